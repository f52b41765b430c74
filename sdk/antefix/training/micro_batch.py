"""One micro-batch: rows of any users, each under its own prefix, through the frozen base once.

Rows are packed end to end without padding, `[1, tokens]`; only attention looks at rows, each at its own.
The promise of bit-equality rests here: the number of tokens is constant (dummies fill the end), so every
matrix product has one shape, in which a token's result does not depend on its place; and attention over a
row has the row's own shape, or on a GPU that of a constant number of rows padded to a constant width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from antefix.attention.packed import PackedRows
from antefix.attention.padded import PaddedRows
from antefix.attention.rows import RowAttention
from antefix.data.tokenization import Row
from antefix.errors import OutOfMemory
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Layout
from antefix.training.bucketing import Bucket


@dataclass
class MicroBatchResult:
    """What one micro-batch gives back.

    Attributes:
        losses: summed nats per row.
        gradients: gradient of `weight * loss` with respect to each row's prefix [rows, size]; None
            without weights.
    """

    losses: list[float]
    gradients: Tensor | None


def forward_backward(
    base: FrozenBase,
    shape: Bucket,
    rows: Sequence[Row],
    prefixes: Tensor,
    weights: Sequence[float] | None,
    layout: Layout | None = None,
) -> MicroBatchResult:
    """As `_run`, where memory lasts.

    Raises:
        OutOfMemory: it does not.
    """
    try:
        return _run(base, shape, rows, prefixes, weights, layout or base.layout)
    except torch.OutOfMemoryError:
        pass  # and let go of the frames that hold what was computed
    raise OutOfMemory(
        f"{base.device} has no memory left for a micro-batch of {shape.tokens} tokens",
        "use a lower micro_batch_tokens; training needs less with activation_checkpointing=True, too",
    )


def _run(
    base: FrozenBase,
    shape: Bucket,
    rows: Sequence[Row],
    prefixes: Tensor,
    weights: Sequence[float] | None,
    layout: Layout,
) -> MicroBatchResult:
    """Losses, and with `weights` prefix gradients, of rows that fit into `shape` together.

    Args:
        base: the frozen base.
        shape: constant shape.
        rows: the rows.
        prefixes: one flat prefix per row [rows, size], fp32; size 0 for none.
        weights: one factor per row, or None to compute losses only.
        layout: of the prefixes: the base's, or some kinds of it.
    """
    device = base.device
    flat = prefixes.to(device, base.dtype)
    if len(rows) < shape.rows:
        flat = torch.cat([flat, flat.new_zeros(shape.rows - len(rows), flat.shape[1])])
    with torch.set_grad_enabled(weights is not None):
        parts = [part.detach().requires_grad_(weights is not None) for part in layout.split(flat)]
        hidden = _forward(base, shape, rows, base.layout.spread(layout, parts))[0]
    places, targets = _targets(rows, device)
    factors = None if weights is None else _per_target(rows, weights).to(device)
    losses, slopes = base.head.losses(hidden.detach()[places], targets, factors)
    per_row = [math.fsum(part) for part in _cut(losses.tolist(), [len(row.targets) for row in rows])]
    if slopes is None:
        return MicroBatchResult(per_row, None)
    upstream = torch.zeros_like(hidden).index_copy(0, places, slopes.to(hidden.dtype))
    gradients = torch.autograd.grad(hidden, parts, upstream)
    joined = layout.join([gradient[: len(rows)].float() for gradient in gradients])
    return MicroBatchResult(per_row, joined)


def _forward(base: FrozenBase, shape: Bucket, rows: Sequence[Row], parts: list[Tensor]) -> Tensor:
    """Last hidden state [1, tokens, hidden] of packed rows."""
    lengths = {slot.kind: part.shape[-2] for slot, part in zip(base.layout.slots, parts, strict=True)}
    inputs, sources = [len(row.inputs) for row in rows], [len(row.source) for row in rows]
    hidden = [row.prefix_hidden_until for row in rows]
    attention: RowAttention
    if shape.rows:
        attention = PaddedRows.of(base, inputs, sources, parts, prefix_hidden_until=hidden, width=shape.width)
    else:
        attention = PackedRows.of(base, inputs, sources, parts, prefix_hidden_until=hidden)
    start = lengths["decoder"]
    ids, positions = _packed([row.inputs for row in rows], shape.tokens, start, base.device)
    if not base.is_encoder_decoder:
        return base.decode(ids, positions, attention)
    start = lengths["encoder"]
    source, places = _packed([row.source for row in rows], shape.source_tokens, start, base.device)
    return base.decode(ids, positions, attention, base.encode(source, places, attention))


def _packed(
    texts: Sequence[tuple[int, ...]], tokens: int, length: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids and positions [1, tokens]; a text starts at the prefix's length; dummies are token 0."""
    ids = [token for text in texts for token in text]
    positions = [length + at for text in texts for at in range(len(text))]
    short = [0] * (tokens - len(ids))
    return torch.tensor([ids + short], device=device), torch.tensor([positions + short], device=device)


def _targets(rows: Sequence[Row], device: torch.device) -> tuple[Tensor, Tensor]:
    """Packed places [n] of all target tokens, and the tokens [n]."""
    places: list[int] = []
    end = 0
    for row in rows:
        end += len(row.inputs)
        places.extend(range(end - len(row.targets), end))
    tokens = [token for row in rows for token in row.targets]
    return torch.tensor(places, device=device), torch.tensor(tokens, device=device)


def _per_target(rows: Sequence[Row], weights: Sequence[float]) -> Tensor:
    counts = torch.tensor([len(row.targets) for row in rows])
    return torch.tensor(weights, dtype=torch.float32).repeat_interleave(counts)


def _cut(values: list[float], counts: list[int]) -> list[list[float]]:
    """Consecutive pieces of `values`, one per count."""
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    return [values[end - count : end] for end, count in zip(ends, counts, strict=True)]
