"""Arms that train weights, one user after another: PEFT's LoRA, and all of the base."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from peft import LoraConfig, get_peft_model

from antefix import Example, FrozenBase
from antefix._examples import Row, encode
from antefix.errors import AntefixError
from antefix_simulations._peers import own_copy, quiet
from antefix_simulations._weights import Pace, Weights
from antefix_simulations.population.store import Split
from antefix_simulations.run.settings import RunSettings

__all__ = ["Finetuning", "WeightsTooLarge"]


class WeightsTooLarge(AntefixError):
    """No memory for weights of one's own, their gradients and Adam's moments."""


class Finetuning:
    """A model of its own; every user begins with the same weights."""

    def __init__(self, base: FrozenBase, model: Any, settings: RunSettings, rate: float) -> None:
        """Train it as private prefixes are: the same passes over the same texts, in steps of one size."""
        self._base, self._weights, self._settings, self._rate = base, Weights(base, model), settings, rate

    @classmethod
    def of(cls, kind: Literal["lora", "full"], base: FrozenBase, settings: RunSettings) -> Self:
        """LoRA on the layers that PEFT chooses, or all weights.

        Raises:
            InvalidArgument: an encoder-decoder.
        """
        rate = settings.lora_learning_rate if kind == "lora" else settings.full_learning_rate
        model: Any = own_copy(base)
        if kind == "lora":
            torch.manual_seed(settings.seed)
            config = LoraConfig(
                task_type="CAUSAL_LM", r=settings.lora_rank, lora_alpha=2 * settings.lora_rank
            )
            with quiet():
                model = get_peft_model(model, config).to(base.device)
        else:
            # The base's own weights stay as they are; in bf16 small steps would be rounded away.
            model = copy.deepcopy(model).float().requires_grad_(True)
        return cls(base, model, settings, rate)

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
            self._weights.reset()
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
