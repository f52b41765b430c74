"""Slow, plain versions of what the core does fast: one row at a time, nothing shared, nothing clever."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antefix import FrozenBase
from antefix.data.tokenization import Row


class OneRow:
    """Watcher that computes attention of a single row from its definition."""

    def __init__(self, base: FrozenBase, parts: list[Tensor]) -> None:
        self.base, self.parts = base, parts
        self.bias_of: dict[str, nn.Module] = {}

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, extra: Any
    ) -> Tensor:
        number = self.base.slot_of[module]
        kind = self.base.layout.slots[number].kind
        before = self.parts[number]  # (2, heads, P, d)
        length, asks = before.shape[2], query.shape[2]
        key = torch.cat([before[None, 0], key], 2).repeat_interleave(query.shape[1] // key.shape[1], 1)
        value = torch.cat([before[None, 1], value], 2).repeat_interleave(query.shape[1] // value.shape[1], 1)
        scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        if getattr(module, "has_relative_attention_bias", False):
            self.bias_of[kind] = module
        if kind in self.bias_of:
            table: Any = self.bias_of[kind]
            scores = scores + table.compute_bias(length + asks, length + asks)[:, :, length:]
        if kind == "decoder":
            at = torch.arange(asks)[:, None] + length
            scores = scores.masked_fill(torch.arange(length + asks) > at, float("-inf"))
        return (scores.softmax(-1) @ value).transpose(1, 2)


def row_loss(base: FrozenBase, row: Row, flat: Tensor) -> Tensor:
    """Summed nats of one row under one flat prefix, differentiable with respect to it."""
    watcher = OneRow(base, base.layout.split(flat))
    length = flat.numel() // base.layout.width
    positions = length + torch.arange(len(row.inputs))[None]
    encoded = None
    if row.source:
        places = length + torch.arange(len(row.source))[None]
        encoded = base.encode(torch.tensor([row.source]), places, watcher)
    hidden = base.decode(torch.tensor([row.inputs]), positions, watcher, encoded)[0]
    logits = base.head.logits(hidden[-len(row.targets) :])
    return F.cross_entropy(logits, torch.tensor(row.targets), reduction="sum")
