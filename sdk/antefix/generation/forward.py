"""Forward passes over rows whose keys and values lie in a cache.

A prefill packs the prompts of several rows end to end, so that nothing but attention sees padding; a
decoding step takes one token of every row. Both write the new keys into the cache and look at the rows
there; indices and masks are made once per pass, not once per layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from antefix.attention.kv_cache import KVCache, round_up
from antefix.generation.request import Size
from antefix.model.attention import added_mask, grouped_sdpa, has_relative_bias, hide_prefix, relative_bias
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Kind

CHUNK = 1024  # tokens of a prompt in one pass: bounds activations and masks


@dataclass(frozen=True)
class PackIndex:
    """Where rows lie that are packed end to end, without padding.

    Attributes:
        spread: place in the pack of token t of row r [R, T].
        gathered: place among R * T of each packed token.
    """

    spread: Tensor
    gathered: Tensor


@dataclass(frozen=True)
class CacheView:
    """What the layers of one kind write and see in one pass: R rows with up to T tokens each.

    Attributes:
        cache: where the keys lie.
        rows: which of its rows, a slice or numbers [R].
        used: slots that are looked at.
        last: last slot that a token sees [R, T].
        places: slots of the tokens themselves [R, T].
        stored: row and slot of each new key, both [B, N]; None writes nothing.
        pack: of the asking tokens; None if the pass has one row of tokens per row.
        hidden_prefix: an infix: per row, slots below the first number are not seen from places below the
            second [R, 1]; None for none.
    """

    cache: KVCache
    rows: slice | Tensor
    used: int
    last: Tensor
    places: Tensor
    stored: tuple[Tensor, Tensor] | None
    pack: PackIndex | None = None
    hidden_prefix: tuple[Tensor, Tensor] | None = None


class CachedAttention:
    """An `AttentionBackend` of one pass: new keys go into the cache, and queries see the whole row."""

    def __init__(self, base: FrozenBase, by_kind: dict[Kind, CacheView]) -> None:
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
        view = self._by_kind[kind]
        if has_relative_bias(module):
            self._tables[kind] = module
        if view.stored is not None:
            view.cache.store(number, self._index(kind, number), key, value)
        keys, values = view.cache.view(number, view.rows, view.used)
        if view.pack is not None:
            query = query[0][:, view.pack.spread].transpose(0, 1)  # (heads, tokens, d) to (R, heads, T, d)
        mask = self._mask(kind, query.shape[1] // keys.shape[1])
        output = grouped_sdpa(query, keys, values, mask, scaling).transpose(1, 2)
        if isinstance(view.rows, Tensor):  # then these are copies, and freed memory keeps what was in it
            keys.zero_()
            values.zero_()
        if view.pack is not None:
            output = output.flatten(0, 1)[view.pack.gathered][None]  # (1, tokens, heads, d)
        return output

    def _index(self, kind: Kind, number: int) -> Tensor:
        view, heads = self._by_kind[kind], self._base.layout.slots[number].heads
        if (kind, heads) not in self._indices and view.stored is not None:
            self._indices[kind, heads] = view.cache.index(number, *view.stored)
        return self._indices[kind, heads]

    def _mask(self, kind: Kind, group: int) -> Tensor:
        """Added mask [R, 1 or heads, group * T, used]."""
        if (kind, group) not in self._masks:
            view = self._by_kind[kind]
            slots = torch.arange(view.used, device=view.last.device)
            visible = slots <= view.last[:, :, None]  # (R, T, used)
            if view.hidden_prefix is not None:
                visible = hide_prefix(visible, view.places, *view.hidden_prefix)
            mask = added_mask(visible, self._base.dtype).repeat(1, group, 1)[:, None]
            if kind in self._tables:
                mask = mask + relative_bias(self._tables[kind], view.places, slots[None])
            self._masks[kind, group] = mask
        return self._masks[kind, group]


@dataclass(frozen=True)
class PrefillRow:
    """A row about to be prefilled; its prefix is in the cache.

    Attributes:
        row: its number in the cache.
        length: positions of its prefix in the decoder.
        inputs: tokens that the decoder reads.
        source: tokens that the encoder reads.
        prefix_lengths: positions of its prefix in the encoder, and in what the decoder sees of that.
        padding: tokens at the end of `inputs` that are there for the shape only.
        prefix_hidden_until: of the first `inputs`, so many do not see the prefix.
    """

    row: int
    length: int
    inputs: Sequence[int]
    source: Sequence[int]
    prefix_lengths: tuple[int, int] = (0, 0)
    padding: int = 0
    prefix_hidden_until: int = 0


def forward_prefill(
    base: FrozenBase, cache: KVCache, rows: Sequence[PrefillRow], prefixes: KVCache | None
) -> Tensor:
    """Last hidden state [rows, hidden] of the rows' last input tokens, padding aside.

    Args:
        base: the frozen base.
        cache: gets the keys and values.
        rows: a pack; a prompt longer than `CHUNK` is alone in it, without padding.
        prefixes: encoder-decoders: a cache of the encoder's kind, the prefixes of `rows` in its rows.
    """
    numbers = _flat([row.row for row in rows], base)
    starts = [row.length for row in rows]
    encoded = cross = None
    if prefixes is not None:
        lengths = [row.prefix_lengths[1] for row in rows]
        cross, _ = _packed(base, cache, "cross", numbers, lengths, [len(row.source) for row in rows])
        encoded = _encode(base, rows, prefixes)
    for start in range(0, max(len(row.inputs) for row in rows), CHUNK):
        parts = [row.inputs[start : start + CHUNK] for row in rows]
        begins = [length + start for length in starts]
        own, places = _packed(base, cache, "decoder", numbers, begins, [len(part) for part in parts])
        by_kind: dict[Kind, CacheView] = {"decoder": replace(own, hidden_prefix=_hidden_prefix(base, rows))}
        if cross is not None:
            by_kind["cross"] = replace(cross, last=cross.last[:, :1].expand(own.last.shape), pack=own.pack)
        ids = _flat([token for part in parts for token in part], base)[None]
        hidden = base.decode(ids, places, CachedAttention(base, by_kind), encoded)
    ends = _flat([len(part) for part in parts], base).cumsum(0) - 1
    return hidden[0, ends - _flat([row.padding for row in rows], base)]


def forward_decode(
    base: FrozenBase, cache: KVCache, tokens: Sequence[int], lengths: Sequence[Size | None], used: Size
) -> Tensor:
    """Last hidden state [rows, hidden] after one more token of each of the cache's first rows.

    Args:
        base: the frozen base.
        cache: holds the keys and values, and gets the new ones.
        tokens: the last token of each row.
        lengths: positions that each row fills already; None for a dummy.
        used: slots that are looked at.
    """
    count = len(tokens)
    rows = [cache.scratch_row if size is None else row for row, size in enumerate(lengths)]
    places = _flat([0 if size is None else size.decoder for size in lengths], base)[:, None]
    all_rows = slice(0, count)
    stored = (_flat(rows, base)[:, None], places)
    by_kind: dict[Kind, CacheView] = {
        "decoder": CacheView(cache, all_rows, used.decoder, places, places, stored)
    }
    encoded = None
    if used.cross:
        last = _flat([0 if size is None else size.cross - 1 for size in lengths], base)[:, None]
        by_kind["cross"] = CacheView(cache, all_rows, used.cross, last, last, None)
        # The layers insist on projecting something; they look at what the prefill stored.
        encoded = torch.zeros(count, 1, base.head.weight.shape[1], device=base.device, dtype=base.dtype)
    hidden = base.decode(_flat(tokens, base)[:, None], places, CachedAttention(base, by_kind), encoded)
    return hidden[:, 0]


def _hidden_prefix(base: FrozenBase, rows: Sequence[PrefillRow]) -> tuple[Tensor, Tensor] | None:
    if not any(row.prefix_hidden_until for row in rows):
        return None
    ends = [row.length + row.prefix_hidden_until for row in rows]
    return _flat([row.length for row in rows], base)[:, None], _flat(ends, base)[:, None]


def _encode(base: FrozenBase, rows: Sequence[PrefillRow], prefixes: KVCache) -> Tensor:
    """Encoder output [1, tokens, hidden] of packed sources, each under its own prefix."""
    order = torch.arange(len(rows), device=base.device)
    starts, counts = [row.prefix_lengths[0] for row in rows], [len(row.source) for row in rows]
    view, places = _packed(base, prefixes, "encoder", order, starts, counts)
    ids = _flat([token for row in rows for token in row.source], base)[None]
    return base.encode(ids, places, CachedAttention(base, {"encoder": view}))


def _packed(
    base: FrozenBase,
    cache: KVCache,
    kind: Kind,
    numbers: Tensor,
    starts: Sequence[int],
    counts: Sequence[int],
) -> tuple[CacheView, Tensor]:
    """View of packed rows, `counts` tokens each from slot `starts` on; and those slots [1, tokens]."""
    begin, count = _flat(starts, base)[:, None], _flat(counts, base)[:, None]
    steps = torch.arange(max(counts), device=base.device)[None]
    places = begin + steps  # (R, T)
    gathered = (steps < count).flatten().nonzero()[:, 0]
    packed = places.take(gathered)[None]
    stored = numbers[:, None].expand(places.shape).take(gathered)[None], packed
    # A token of padding asks what the row's last token asks; nobody reads its answer.
    spread = count.cumsum(0) - count + steps.minimum(count - 1)
    last = places if kind == "decoder" else (begin + count - 1).expand(places.shape)
    used = min(cache.capacity[kind], round_up(max(s + c for s, c in zip(starts, counts, strict=True))))
    return CacheView(cache, numbers, used, last, places, stored, PackIndex(spread, gathered)), packed


def _flat(numbers: Sequence[int], base: FrozenBase) -> Tensor:
    return torch.tensor(numbers, device=base.device)
