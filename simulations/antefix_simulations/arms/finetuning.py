"""Arms that train weights, one user after another: PEFT's LoRA, and all of the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from antefix import Example, FrozenBase
from antefix.data.tokenization import Row, encode
from antefix.errors import AntefixError
from antefix_simulations.arms.weights import Pace, all_weights, lora
from antefix_simulations.data.store import Split
from antefix_simulations.settings import RunSettings

__all__ = ["Finetuning", "WeightsTooLarge"]


class WeightsTooLarge(AntefixError):
    """No memory for weights of one's own, their gradients and Adam's moments."""


class Finetuning:
    """A model of its own; every user begins with the same weights."""

    def __init__(self, kind: Literal["lora", "full"], base: FrozenBase, settings: RunSettings) -> None:
        """LoRA on the layers that PEFT chooses, or all weights: the same passes as private prefixes."""
        self._base, self._settings = base, settings
        if kind == "lora":
            self._rate, self._weights = (
                settings.lora_learning_rate,
                lora(base, settings.lora_rank, settings.seed),
            )
        else:
            self._rate, self._weights = settings.full_learning_rate, all_weights(base)
        self._start = self._weights.keep()

    @property
    def numbers(self) -> int:
        """That are trained for each user."""
        return self._weights.numbers

    def losses(self, users: Mapping[int, Split], rate: float = 0.0) -> dict[int, float]:
        """Nats per token of each user's held-out texts, under weights of its own.

        Args:
            users: their texts.
            rate: learning rate; 0 for that of the settings.

        Raises:
            WeightsTooLarge: the device's memory does not last. Smaller micro-batches would not help.
        """
        found = {}
        for user, split in users.items():
            self._weights.restore(self._start)
            try:
                self._weights.train(self._rows(split.training), self._pace(len(split.training), rate))
                found[user] = self._weights.read(self._rows(split.held_out))
            except torch.OutOfMemoryError:
                raise WeightsTooLarge(
                    f"{self._base.device} has no memory left to train {self.numbers:,} numbers",
                    "leave this arm out, or lower private-batch-size",
                ) from None
        return found

    def _rows(self, texts: Sequence[Example]) -> list[Row]:
        return [encode(self._base, text, None) for text in texts]

    def _pace(self, texts: int, rate: float) -> Pace:
        each = self._settings.private_batch_size
        steps = max(1, round(self._settings.private_passes * -(-texts // each)))
        return Pace(steps, each, rate or self._rate, self._settings.seed)
