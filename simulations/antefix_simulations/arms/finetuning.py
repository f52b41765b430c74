"""Arms that train weights, one user after another: PEFT's LoRA, and all of the base."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from antefix import Example, FrozenBase, Prefix
from antefix.data.tokenization import Row, encode
from antefix.errors import AntefixError
from antefix_simulations.arms.interface import Arm, MethodSettings
from antefix_simulations.data.store import Split

if TYPE_CHECKING:  # they import PEFT, which may not be installed
    from antefix_simulations.arms.weights import Schedule, Weights

__all__ = ["Finetuning", "Full", "Lora", "WeightsTooLarge"]


class WeightsTooLarge(AntefixError):
    """No memory for weights of one's own, their gradients and Adam's moments."""


class Finetuning(Arm):
    """A model of its own: every user begins with the same weights, and takes as many passes as a prefix."""

    needs = ("peft",)

    def __init__(self, base: FrozenBase, settings: MethodSettings) -> None:
        """Make the model."""
        super().__init__(base, settings)
        self._weights = self.make_weights()
        self._start = self._weights.keep()

    @abstractmethod
    def make_weights(self) -> Weights:
        """The model, and which of its numbers are trained."""

    def losses(self, users: Mapping[int, Split], shared: Prefix, rate: float = 0.0) -> dict[int, float]:
        """Nats per token of each user's held-out texts, under weights of its own.

        Raises:
            WeightsTooLarge: the device's memory does not last. Smaller micro-batches would not help.
        """
        losses = {}
        for user, split in users.items():
            self._weights.restore(self._start)
            try:
                self._weights.train(self._rows(split.training), self._schedule(len(split.training), rate))
                losses[user] = self._weights.read(self._rows(split.held_out))
            except torch.OutOfMemoryError:
                raise WeightsTooLarge(
                    f"{self.base.device} has no memory left to train {self._weights.numbers:,} numbers",
                    "leave this arm out, or lower private-batch-size",
                ) from None
        return losses

    def _rows(self, texts: Sequence[Example]) -> list[Row]:
        return [encode(self.base, text, None) for text in texts]

    def _schedule(self, texts: int, rate: float) -> Schedule:
        from antefix_simulations.arms.weights import Schedule

        batch_size = self.settings.private_batch_size
        steps = max(1, round(self.settings.private_passes * -(-texts // batch_size)))
        start = rate or self.learning_rate(self.settings) or 0.0
        return Schedule(steps, batch_size, start, self.settings.seed)


class Lora(Finetuning):
    """An adapter for each user, on the layers that PEFT chooses."""

    @staticmethod
    def learning_rate(settings: MethodSettings) -> float:
        """That of adapters."""
        return settings.lora_learning_rate

    def make_weights(self) -> Weights:
        """Adapters are trained, the base is not."""
        from antefix_simulations.arms.weights import lora

        return lora(self.base, self.settings.lora_rank, self.settings.seed)


class Full(Finetuning):
    """All weights for each user."""

    @staticmethod
    def learning_rate(settings: MethodSettings) -> float:
        """That of all weights."""
        return settings.full_learning_rate

    def make_weights(self) -> Weights:
        """A copy of the base in fp32."""
        from antefix_simulations.arms.weights import all_weights

        return all_weights(self.base)
