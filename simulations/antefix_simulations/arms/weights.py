"""Training weights instead of a prefix: what every other method does, in one plain loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig
from transformers.pytorch_utils import Conv1D

from antefix import FrozenBase
from antefix.data.tokenization import Row
from antefix.generation.request import TokenizedRequest, banned_tokens
from antefix_simulations.arms.peft import batches, own_copy, quiet

__all__ = ["Schedule", "Weights", "all_weights", "lora"]

_READ_AT_ONCE = 8


@dataclass(frozen=True)
class Schedule:
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
        model: as `antefix_simulations.arms.peft.own_copy` makes it, and whatever was added to it.
    """

    def __init__(self, base: FrozenBase, model: Any) -> None:
        """Train those parameters that require a gradient."""
        self._base, self.model = base, model
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._computed = partial(
            torch.autocast, base.device.type, dtype=base.dtype, enabled=base.dtype != torch.float32
        )

    @property
    def numbers(self) -> int:
        """That are trained."""
        return sum(parameter.numel() for parameter in self._trained)

    def train(
        self, rows: Sequence[Row], schedule: Schedule, after: Callable[[int], None] = lambda step: None
    ) -> int:
        """Go on from where it is; `after` is called with the number of each step that is done.

        Returns:
            Real tokens that were computed.
        """
        dice, steps = torch.Generator().manual_seed(schedule.seed), schedule.steps
        adam = torch.optim.AdamW(self._trained, lr=schedule.learning_rate, weight_decay=0.0)
        falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / steps)
        order: list[int] = []
        tokens = 0
        for step in range(steps):
            self.model.train()
            if len(order) < min(schedule.batch_size, len(rows)):
                order += torch.randperm(len(rows), generator=dice).tolist()
            chosen, order = order[: schedule.batch_size], order[schedule.batch_size :]
            (batch,) = _batches(self._base, [rows[at] for at in chosen], schedule.batch_size)
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
        return [parameter.detach().clone() for parameter in self._trained]

    @torch.no_grad()
    def restore(self, values: Sequence[Tensor]) -> None:
        """Be again as it was."""
        for parameter, value in zip(self._trained, values, strict=True):
            parameter.copy_(value)

    @torch.no_grad()
    def read(self, rows: Sequence[Row]) -> float:
        """Nats per token of what the rows are to predict."""
        self.model.eval()
        total, tokens = 0.0, 0
        for batch in _batches(self._base, rows, _READ_AT_ONCE):
            count = int((batch["labels"] != -100).sum())
            with self._computed():
                total += float(self.model(**batch).loss) * count
            tokens += count
        return total / tokens

    @torch.no_grad()
    def write(self, requests: Sequence[TokenizedRequest]) -> list[list[int]]:
        """The best of a beam search for each request, all at once, up to the first token that ends a text.

        Args:
            requests: alike in all but their prompts, without a prefix.
        """
        self.model.eval()
        request, ends, first = requests[0].request, sorted(requests[0].stop_token_ids), requests[0].inputs[0]
        read = [each.source or each.inputs for each in requests]
        longest = max(map(len, read))
        seq2seq = self._base.is_encoder_decoder
        ids, mask = torch.zeros(2, len(read), longest, dtype=torch.long, device=self._base.device)
        for row, tokens in enumerate(read):  # a decoder goes on at the end of what it read
            place = slice(0, len(tokens)) if seq2seq else slice(longest - len(tokens), longest)
            ids[row, place], mask[row, place] = torch.tensor(tokens, device=ids.device), 1
        settings = GenerationConfig(
            max_new_tokens=request.max_new_tokens,
            num_beams=request.num_beams,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=0,
            suppress_tokens=banned_tokens(self._base) or None,
            decoder_start_token_id=first if seq2seq else None,
        )
        with self._computed():
            rows_of_tokens = self.model.generate(
                input_ids=ids, attention_mask=mask, generation_config=settings
            )
        return [_until(tokens, ends) for tokens in rows_of_tokens[:, 1 if seq2seq else longest :].tolist()]


def all_weights(base: FrozenBase) -> Weights:
    """Every parameter, in fp32."""
    model: Any = copy.deepcopy(own_copy(base)).float()
    return Weights(base, model.requires_grad_(True))


def lora(base: FrozenBase, rank: int, seed: int) -> Weights:
    """PEFT's, on the layers that it chooses."""
    torch.manual_seed(seed)
    model: Any = own_copy(base)
    # GPT-2's weights lie the other way.
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    kind = "SEQ_2_SEQ_LM" if base.is_encoder_decoder else "CAUSAL_LM"
    config = LoraConfig(task_type=kind, r=rank, lora_alpha=2 * rank, fan_in_fan_out=transposed)
    with quiet():
        return Weights(base, get_peft_model(model, config).to(base.device))


def _batches(base: FrozenBase, rows: Sequence[Row], size: int) -> Iterator[dict[str, Tensor]]:
    """As transformers takes them: a causal model shifts labels itself, an encoder-decoder does not."""
    if not base.is_encoder_decoder:
        yield from batches(rows, size, base.device)
        return
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        sources, inputs = [row.source for row in part], [row.inputs for row in part]
        yield {
            "input_ids": _pad(base, sources, 0),
            "attention_mask": _pad(base, [[1] * len(source) for source in sources], 0),
            "decoder_input_ids": _pad(base, inputs, 0),
            "decoder_attention_mask": _pad(base, [[1] * len(tokens) for tokens in inputs], 0),
            "labels": _pad(base, [row.targets for row in part], -100),
        }


def _pad(base: FrozenBase, rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], True, filler).to(base.device)


def _until(tokens: list[int], ends: Sequence[int]) -> list[int]:
    return tokens[: next((at for at, token in enumerate(tokens) if token in ends), len(tokens))]
