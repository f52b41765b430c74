"""How prompts are read into an arena, in exact mode at a constant shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from antefix.attention.kv_cache import Arena, round_up
from antefix.generation.forward import Newcomer, prefill
from antefix.generation.request import Size, TokenizedRequest
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Kind

_EXACT_TOKENS = 256  # of one prefill in exact mode, dummies included
_STEP = 16  # tokens to which an exact prompt is padded


@dataclass(frozen=True)
class Shape:
    """Constant shape of a prefill: `rows` rows of `width` tokens, looking at `used` slots."""

    rows: int
    width: int
    used: int


def shape_of(base: FrozenBase, arena: Arena, prepared: TokenizedRequest, rows: int) -> Shape | None:
    """Shape in which an exact row of a batch of `rows` is read in: a function of that row alone.

    None is for alone, at its own shape: prompts that are long, or have no room for padding, and
    encoder-decoders.
    """
    width = -(-len(prepared.inputs) // _STEP) * _STEP
    count = min(rows, _EXACT_TOKENS // width)
    end = prepared.length + width
    if base.is_encoder_decoder or count < 2 or end > arena.capacity["decoder"]:
        return None
    return Shape(count, width, round_up(end))


def read_in(
    base: FrozenBase,
    arena: Arena,
    slots: Sequence[int],
    pack: Sequence[TokenizedRequest],
    shape: Shape | None = None,
) -> Tensor:
    """Last hidden state [rows, hidden] of prompts that begin in `slots`; dummies fill up a constant shape."""
    for slot, one in zip(slots, pack, strict=True):
        arena.place(slot, one.request.prefix)
    prefixes = None
    if base.is_encoder_decoder:
        sources = [one.begins("encoder") + len(one.source) for one in pack]
        prefixes = Arena(base, len(pack), {"encoder": max(sources)})
        for number, one in enumerate(pack):
            prefixes.place(number, one.request.prefix)
    newcomers = [
        Newcomer(
            slot,
            one.length,
            one.inputs,
            one.source,
            (one.begins("encoder"), one.begins("cross")),
            blind=one.blind,
        )
        for slot, one in zip(slots, pack, strict=True)
    ]
    if shape is None:
        hidden = prefill(base, arena, newcomers, prefixes)
        if prefixes is not None:
            prefixes.wipe()
        return hidden
    dummy = Newcomer(arena.spare, 0, (0,) * shape.width, ())
    padded = [_padded(new, shape.width) for new in newcomers] + [dummy] * (shape.rows - len(pack))
    hidden = prefill(base, arena, padded, prefixes)
    for new in newcomers:
        arena.clear(new.row, new.length + len(new.inputs))
    return hidden


def capacity_for(size: Size) -> dict[Kind, int]:
    """Positions that an arena needs for a row of `size`."""
    capacity: dict[Kind, int] = {"decoder": size.decoder}
    return {**capacity, "cross": size.cross} if size.cross else capacity


def _padded(new: Newcomer, width: int) -> Newcomer:
    short = width - len(new.inputs)
    return replace(new, inputs=(*new.inputs, *[0] * short), padding=short)
