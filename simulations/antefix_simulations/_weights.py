"""Training weights instead of a prefix: what every other method does, in one plain loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from antefix import FrozenBase
from antefix._examples import Row
from antefix._request import banned_tokens
from antefix_simulations._peers import batches

__all__ = ["Pace", "Weights"]

_READ_AT_ONCE = 8


@dataclass(frozen=True)
class Pace:
    """Steps of Adam, at a rate that falls linearly to 0.

    Attributes:
        steps: of the optimizer.
        batch_size: texts of a step; all texts come once before one comes again.
        learning_rate: at the first step.
        seed: of the order.
    """

    steps: int
    batch_size: int
    learning_rate: float
    seed: int


class Weights:
    """A model of its own beside the base, of which some parameters are trained.

    Attributes:
        model: as `antefix_simulations._peers.own_copy` makes it, and whatever was added to it.
    """

    def __init__(self, base: FrozenBase, model: Any) -> None:
        """Train those parameters that require a gradient; remember how they begin."""
        self._base, self.model = base, model
        self._trained = [one for one in model.parameters() if one.requires_grad]
        self._start = self.keep()
        self._computed = partial(
            torch.autocast, base.device.type, dtype=base.dtype, enabled=base.dtype != torch.float32
        )

    @property
    def numbers(self) -> int:
        """That are trained."""
        return sum(one.numel() for one in self._trained)

    def reset(self) -> None:
        """Begin again."""
        self.restore(self._start)

    def train(self, rows: Sequence[Row], pace: Pace, after: Callable[[int], None] = lambda step: None) -> int:
        """Go on from where it is; `after` is called with the number of each step that is done.

        Returns:
            Real tokens that were computed.
        """
        dice, steps = torch.Generator().manual_seed(pace.seed), pace.steps
        adam = torch.optim.AdamW(self._trained, lr=pace.learning_rate, weight_decay=0.0)
        falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / steps)
        order: list[int] = []
        tokens = 0
        for step in range(steps):
            self.model.train()
            if len(order) < min(pace.batch_size, len(rows)):
                order += torch.randperm(len(rows), generator=dice).tolist()
            chosen, order = order[: pace.batch_size], order[pace.batch_size :]
            (batch,) = batches([rows[at] for at in chosen], pace.batch_size, self._base.device)
            with self._computed():
                loss = self.model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
            adam.step()
            falling.step()
            adam.zero_grad()
            tokens += sum(rows[at].tokens for at in chosen)
            after(step + 1)
        return tokens

    @torch.no_grad()
    def keep(self) -> list[Tensor]:
        """A copy of the trained numbers, for `restore`."""
        return [one.detach().clone() for one in self._trained]

    @torch.no_grad()
    def restore(self, kept: Sequence[Tensor]) -> None:
        """Be again as it was."""
        for one, before in zip(self._trained, kept, strict=True):
            one.copy_(before)

    @torch.no_grad()
    def read(self, rows: Sequence[Row]) -> float:
        """Nats per token of what the rows are to predict."""
        self.model.eval()
        total, tokens = 0.0, 0
        for batch in batches(rows, _READ_AT_ONCE, self._base.device):
            count = int((batch["labels"] != -100).sum())
            with self._computed():
                total += float(self.model(**batch).loss) * count
            tokens += count
        return total / tokens

    @torch.no_grad()
    def write(
        self, prompts: Sequence[Sequence[int]], ends: Sequence[int], *, beams: int, new_tokens: int
    ) -> list[list[int]]:
        """The best of a beam search after each prompt, all at once; up to the first token of `ends`."""
        self.model.eval()
        longest = max(map(len, prompts))
        ids = [[0] * (longest - len(one)) + list(one) for one in prompts]
        mask = [[0] * (longest - len(one)) + [1] * len(one) for one in prompts]
        settings = GenerationConfig(
            max_new_tokens=new_tokens,
            num_beams=beams,
            do_sample=False,
            eos_token_id=list(ends),
            pad_token_id=0,
            suppress_tokens=banned_tokens(self._base) or None,
        )
        device = self._base.device
        with self._computed():
            found = self.model.generate(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=settings,
            )
        return [_until(tokens, ends) for tokens in found[:, longest:].tolist()]


def _until(tokens: list[int], ends: Sequence[int]) -> list[int]:
    return tokens[: next((at for at, token in enumerate(tokens) if token in ends), len(tokens))]
