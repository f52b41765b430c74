"""How prompts are read into a cache, in exact mode at a constant shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from antefix.attention.kv_cache import KVCache, round_up
from antefix.generation.forward import PrefillRow, forward_prefill
from antefix.generation.request import Size, TokenizedRequest
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Kind

_EXACT_TOKENS = 256  # of one prefill in exact mode, dummies included
_STEP = 16  # tokens to which an exact prompt is padded


@dataclass(frozen=True)
class PrefillShape:
    """Constant shape of a prefill: `rows` rows of `width` tokens, looking at `used` slots."""

    rows: int
    width: int
    used: int


def exact_shape(
    base: FrozenBase, cache: KVCache, prepared: TokenizedRequest, rows: int
) -> PrefillShape | None:
    """The shape in which an exact row of a batch of `rows` is read in: a function of that row alone.

    None is for alone, at its own shape: prompts that are long, or have no room for padding, and
    encoder-decoders.
    """
    width = -(-len(prepared.inputs) // _STEP) * _STEP
    count = min(rows, _EXACT_TOKENS // width)
    end = prepared.length + width
    if base.is_encoder_decoder or count < 2 or end > cache.capacity["decoder"]:
        return None
    return PrefillShape(count, width, round_up(end))


def prefill(
    base: FrozenBase,
    cache: KVCache,
    slots: Sequence[int],
    pack: Sequence[TokenizedRequest],
    shape: PrefillShape | None = None,
) -> Tensor:
    """Last hidden state [rows, hidden] of prompts that begin in `slots`; dummies fill up a constant shape."""
    for slot, request in zip(slots, pack, strict=True):
        cache.insert_prefix(slot, request.request.prefix)
    prefixes = None
    if base.is_encoder_decoder:
        sources = [request.text_start("encoder") + len(request.source) for request in pack]
        prefixes = KVCache(base, len(pack), {"encoder": max(sources)})
        for number, request in enumerate(pack):
            prefixes.insert_prefix(number, request.request.prefix)
    rows = [
        PrefillRow(
            slot,
            request.length,
            request.inputs,
            request.source,
            (request.text_start("encoder"), request.text_start("cross")),
            prefix_hidden_until=request.prefix_hidden_until,
        )
        for slot, request in zip(slots, pack, strict=True)
    ]
    if shape is None:
        hidden = forward_prefill(base, cache, rows, prefixes)
        if prefixes is not None:
            prefixes.wipe()
        return hidden
    dummy = PrefillRow(cache.scratch_row, 0, (0,) * shape.width, ())
    padded = [_pad(row, shape.width) for row in rows] + [dummy] * (shape.rows - len(pack))
    hidden = forward_prefill(base, cache, padded, prefixes)
    for row in rows:
        cache.clear(row.row, row.length + len(row.inputs))
    return hidden


def capacity_for(size: Size) -> dict[Kind, int]:
    """Positions that a cache needs for a row of `size`."""
    capacity: dict[Kind, int] = {"decoder": size.decoder}
    return {**capacity, "cross": size.cross} if size.cross else capacity


def _pad(row: PrefillRow, width: int) -> PrefillRow:
    short = width - len(row.inputs)
    return replace(row, inputs=(*row.inputs, *[0] * short), padding=short)
