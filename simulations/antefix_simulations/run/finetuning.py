"""Arms that train weights, one user after another: PEFT's LoRA, and all of the base."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import torch
from peft import LoraConfig, get_peft_model

from antefix import Example, FrozenBase
from antefix._examples import Row, encode
from antefix.errors import AntefixError
from antefix_simulations._peers import batches, own_copy, quiet
from antefix_simulations.population.store import Split
from antefix_simulations.run.settings import RunSettings

__all__ = ["Finetuning", "WeightsTooLarge"]

_READ_AT_ONCE = 8


@dataclass(frozen=True)
class Pace:
    """As for private prefixes: the same passes over the same texts in steps of the same size."""

    passes: float
    batch_size: int
    learning_rate: float
    seed: int


class WeightsTooLarge(AntefixError):
    """No memory for weights of one's own, their gradients and Adam's moments."""


class Finetuning:
    """A model of its own; every user begins with the same weights."""

    def __init__(self, base: FrozenBase, model: Any, pace: Pace) -> None:
        """Remember where every user begins."""
        self._base, self._model, self._pace = base, model, pace
        self._trained = [one for one in model.parameters() if one.requires_grad]
        self._start = [one.detach().clone() for one in self._trained]
        self._computed = partial(
            torch.autocast, base.device.type, dtype=base.dtype, enabled=base.dtype != torch.float32
        )

    @classmethod
    def of(cls, kind: Literal["lora", "full"], base: FrozenBase, settings: RunSettings) -> Self:
        """LoRA on the layers that PEFT chooses, or all weights.

        Raises:
            InvalidArgument: an encoder-decoder.
        """
        rate = settings.lora_learning_rate if kind == "lora" else settings.full_learning_rate
        pace = Pace(settings.private_passes, settings.private_batch_size, rate, settings.seed)
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
        return cls(base, model, pace)

    @property
    def numbers(self) -> int:
        """That are trained for each user."""
        return sum(one.numel() for one in self._trained)

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
            with torch.no_grad():
                for one, start in zip(self._trained, self._start, strict=True):
                    one.copy_(start)
            try:
                self._train(self._rows(split.training), rate or self._pace.learning_rate)
                found[user] = self._read(self._rows(split.held_out))
            except torch.OutOfMemoryError:
                raise WeightsTooLarge(
                    f"{self._base.device} has no memory left to train {self.numbers:,} numbers",
                    "leave this arm out, or lower private-batch-size",
                ) from None
        return found

    def _rows(self, texts: Sequence[Example]) -> list[Row]:
        return [encode(self._base, text, None) for text in texts]

    def _train(self, rows: list[Row], rate: float) -> None:
        pace, dice = self._pace, torch.Generator().manual_seed(self._pace.seed)
        steps = max(1, round(pace.passes * -(-len(rows) // pace.batch_size)))
        adam = torch.optim.AdamW(self._trained, lr=rate, weight_decay=0.0)
        falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / steps)
        self._model.train()
        order: list[int] = []
        for _ in range(steps):
            if len(order) < min(pace.batch_size, len(rows)):
                order += torch.randperm(len(rows), generator=dice).tolist()
            chosen, order = order[: pace.batch_size], order[pace.batch_size :]
            (batch,) = batches([rows[at] for at in chosen], pace.batch_size, self._base.device)
            with self._computed():
                loss = self._model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
            adam.step()
            falling.step()
            adam.zero_grad()

    @torch.no_grad()
    def _read(self, rows: Sequence[Row]) -> float:
        self._model.eval()
        total, tokens = 0.0, 0
        for batch in batches(rows, _READ_AT_ONCE, self._base.device):
            count = int((batch["labels"] != -100).sum())
            with self._computed():
                total += float(self._model(**batch).loss) * count
            tokens += count
        return total / tokens
