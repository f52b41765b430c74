"""Forward passes over rows whose keys and values lie in an arena.

A prefill packs the prompts of several rows end to end, so that nothing but attention sees padding; a
decoding step takes one token of every row. Both write the new keys into the arena and look at the rows
there; indices and masks are made once per pass, not once per layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from antefix.attention.kv_cache import Arena, round_up
from antefix.generation.request import Size
from antefix.model.attention import added_mask, has_relative_bias, relative_bias, weigh
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Kind

CHUNK = 1024  # tokens of a prompt in one pass: bounds activations and masks


@dataclass(frozen=True)
class Pack:
    """Where rows lie that are packed end to end, without padding.

    Attributes:
        spread: place in the pack of token t of row r [R, T].
        gathered: place among R * T of each packed token.
    """

    spread: Tensor
    gathered: Tensor


@dataclass(frozen=True)
class Access:
    """What the layers of one kind write and see in one pass: R rows with up to T tokens each.

    Attributes:
        arena: where the keys lie.
        rows: which of its rows, a slice or numbers [R].
        used: slots that are looked at.
        last: last slot that a token sees [R, T].
        places: slots of the tokens themselves [R, T].
        stored: row and slot of each new key, both [B, N]; None writes nothing.
        pack: of the asking tokens; None if the pass has one row of tokens per row.
        unseen: an infix: per row, slots below the first number are not seen from places below the second
            [R, 1]; None for none.
    """

    arena: Arena
    rows: slice | Tensor
    used: int
    last: Tensor
    places: Tensor
    stored: tuple[Tensor, Tensor] | None
    pack: Pack | None = None
    unseen: tuple[Tensor, Tensor] | None = None


class StoredRows:
    """Watcher of one forward pass."""

    def __init__(self, base: FrozenBase, by_kind: dict[Kind, Access]) -> None:
        self._base, self._by_kind = base, by_kind
        self._indices: dict[tuple[Kind, int], Tensor] = {}
        self._masks: dict[tuple[Kind, int], Tensor] = {}
        self._tables: dict[Kind, nn.Module] = {}

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, extra: Any
    ) -> Tensor:
        """Store the new keys and values, then attend to all that the row has."""
        number = self._base.slot_of[module]
        kind = self._base.layout.slots[number].kind
        access = self._by_kind[kind]
        if has_relative_bias(module):
            self._tables[kind] = module
        if access.stored is not None:
            access.arena.store(number, self._index(kind, number), key, value)
        keys, values = access.arena.look(number, access.rows, access.used)
        if access.pack is not None:
            query = query[0][:, access.pack.spread].transpose(0, 1)  # (R, heads, T, d)
        mask = self._mask(kind, query.shape[1] // keys.shape[1])
        output = weigh(query, keys, values, mask, scaling).transpose(1, 2)
        if isinstance(access.rows, Tensor):  # then these are copies, and freed memory keeps what was in it
            keys.zero_()
            values.zero_()
        if access.pack is not None:
            output = output.flatten(0, 1)[access.pack.gathered][None]  # (1, tokens, heads, d)
        return output

    def _index(self, kind: Kind, number: int) -> Tensor:
        access, heads = self._by_kind[kind], self._base.layout.slots[number].heads
        if (kind, heads) not in self._indices and access.stored is not None:
            self._indices[kind, heads] = access.arena.index(number, *access.stored)
        return self._indices[kind, heads]

    def _mask(self, kind: Kind, group: int) -> Tensor:
        """Added mask [R, 1 or heads, group * T, used]."""
        if (kind, group) not in self._masks:
            access = self._by_kind[kind]
            slots = torch.arange(access.used, device=access.last.device)
            visible = slots <= access.last[:, :, None]  # (R, T, used)
            if access.unseen is not None:
                length, until = access.unseen
                visible &= ~((slots < length[:, :, None]) & (access.places < until)[:, :, None])
            mask = added_mask(visible, self._base.dtype).repeat(1, group, 1)[:, None]
            if kind in self._tables:
                mask = mask + relative_bias(self._tables[kind], access.places, slots[None])
            self._masks[kind, group] = mask
        return self._masks[kind, group]


@dataclass(frozen=True)
class Newcomer:
    """A row about to be prefilled; its prefix is in the arena.

    Attributes:
        row: its number in the arena.
        length: positions of its prefix in the decoder.
        inputs: tokens that the decoder reads.
        source: tokens that the encoder reads.
        lengths: positions of its prefix in the encoder, and in what the decoder sees of that.
        padding: tokens at the end of `inputs` that are there for the shape only.
        blind: of the first `inputs`, so many do not see the prefix.
    """

    row: int
    length: int
    inputs: Sequence[int]
    source: Sequence[int]
    lengths: tuple[int, int] = (0, 0)
    padding: int = 0
    blind: int = 0


def prefill(base: FrozenBase, arena: Arena, rows: Sequence[Newcomer], prefixes: Arena | None) -> Tensor:
    """Last hidden state [rows, hidden] of the rows' last input tokens, padding aside.

    Args:
        base: the frozen base.
        arena: gets the keys and values.
        rows: a pack; a prompt longer than `CHUNK` is alone in it, without padding.
        prefixes: encoder-decoders: an arena of the encoder's kind, the prefixes of `rows` in its rows.
    """
    numbers = _flat([row.row for row in rows], base)
    starts = [row.length for row in rows]
    encoded = looked = None
    if prefixes is not None:
        behind = [row.lengths[1] for row in rows]
        looked, _ = _packed(base, arena, "cross", numbers, behind, [len(row.source) for row in rows])
        encoded = _encode(base, rows, prefixes)
    for start in range(0, max(len(row.inputs) for row in rows), CHUNK):
        parts = [row.inputs[start : start + CHUNK] for row in rows]
        here = [length + start for length in starts]
        own, places = _packed(base, arena, "decoder", numbers, here, [len(part) for part in parts])
        by_kind: dict[Kind, Access] = {"decoder": replace(own, unseen=_unseen(base, rows))}
        if looked is not None:
            by_kind["cross"] = replace(looked, last=looked.last[:, :1].expand(own.last.shape), pack=own.pack)
        ids = _flat([token for part in parts for token in part], base)[None]
        hidden = base.decode(ids, places, StoredRows(base, by_kind), encoded)
    ends = _flat([len(part) for part in parts], base).cumsum(0) - 1
    return hidden[0, ends - _flat([row.padding for row in rows], base)]


def decode(
    base: FrozenBase, arena: Arena, tokens: Sequence[int], lengths: Sequence[Size | None], used: Size
) -> Tensor:
    """Last hidden state [rows, hidden] after one more token of each of the arena's first rows.

    Args:
        base: the frozen base.
        arena: holds the keys and values, and gets the new ones.
        tokens: the last token of each row.
        lengths: positions that each row fills already; None for a dummy.
        used: slots that are looked at.
    """
    count = len(tokens)
    rows = [arena.spare if at is None else row for row, at in enumerate(lengths)]
    places = _flat([0 if at is None else at.decoder for at in lengths], base)[:, None]
    everyone = slice(0, count)
    stored = (_flat(rows, base)[:, None], places)
    by_kind: dict[Kind, Access] = {"decoder": Access(arena, everyone, used.decoder, places, places, stored)}
    encoded = None
    if used.cross:
        last = _flat([0 if at is None else at.cross - 1 for at in lengths], base)[:, None]
        by_kind["cross"] = Access(arena, everyone, used.cross, last, last, None)
        # The layers insist on projecting something; they look at what the prefill stored.
        encoded = torch.zeros(count, 1, base.head.weight.shape[1], device=base.device, dtype=base.dtype)
    hidden = base.decode(_flat(tokens, base)[:, None], places, StoredRows(base, by_kind), encoded)
    return hidden[:, 0]


def _unseen(base: FrozenBase, rows: Sequence[Newcomer]) -> tuple[Tensor, Tensor] | None:
    if not any(row.blind for row in rows):
        return None
    ends = [row.length + row.blind for row in rows]
    return _flat([row.length for row in rows], base)[:, None], _flat(ends, base)[:, None]


def _encode(base: FrozenBase, rows: Sequence[Newcomer], prefixes: Arena) -> Tensor:
    """Encoder output [1, tokens, hidden] of packed sources, each under its own prefix."""
    order = torch.arange(len(rows), device=base.device)
    starts, counts = [row.lengths[0] for row in rows], [len(row.source) for row in rows]
    access, places = _packed(base, prefixes, "encoder", order, starts, counts)
    ids = _flat([token for row in rows for token in row.source], base)[None]
    return base.encode(ids, places, StoredRows(base, {"encoder": access}))


def _packed(
    base: FrozenBase, arena: Arena, kind: Kind, numbers: Tensor, starts: Sequence[int], counts: Sequence[int]
) -> tuple[Access, Tensor]:
    """Access of packed rows, `counts` tokens each from slot `starts` on; and those slots [1, tokens]."""
    begin, count = _flat(starts, base)[:, None], _flat(counts, base)[:, None]
    steps = torch.arange(max(counts), device=base.device)[None]
    places = begin + steps  # (R, T)
    gathered = (steps < count).flatten().nonzero()[:, 0]
    packed = places.take(gathered)[None]
    stored = numbers[:, None].expand(places.shape).take(gathered)[None], packed
    # A token of padding asks what the row's last token asks; nobody reads its answer.
    spread = count.cumsum(0) - count + steps.minimum(count - 1)
    last = places if kind == "decoder" else (begin + count - 1).expand(places.shape)
    used = min(arena.capacity[kind], round_up(max(s + c for s, c in zip(starts, counts, strict=True))))
    return Access(arena, numbers, used, last, places, stored, Pack(spread, gathered)), packed


def _flat(numbers: Sequence[int], base: FrozenBase) -> Tensor:
    return torch.tensor(numbers, device=base.device)
