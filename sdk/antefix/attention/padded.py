"""Attention over packed rows all at once, each padded to one width: for a GPU.

One call per layer, of a constant shape, in place of one per row. The rest of a micro-batch stays packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from antefix.attention.rows import RowAttention
from antefix.model.attention import grouped_sdpa, hide_prefix
from antefix.model.kv_layout import Kind

Side = Literal["decoder", "encoder"]
_SIDES: dict[Kind, tuple[Side, Side]] = {  # whose tokens ask, and whose are looked at
    "decoder": ("decoder", "decoder"),
    "encoder": ("encoder", "encoder"),
    "cross": ("decoder", "encoder"),
}


@dataclass
class PaddedRows(RowAttention):
    """All rows at once.

    Attributes:
        width: tokens of a padded row. Padding is zero, never another row's memory.
    """

    width: int = 0
    _places: dict[Side, Tensor] = field(default_factory=dict)

    def _attend(
        self, kind: Kind, prefixes: Tensor, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        queries, keyed = _SIDES[kind]
        length, group = prefixes.shape[3], query.shape[1] // key.shape[1]
        keys = torch.cat([prefixes[:, 0], self._pad(key, keyed)], 2)  # (rows, kv_heads, P + width, d)
        values = torch.cat([prefixes[:, 1], self._pad(value, keyed)], 2)
        mask = self._mask(kind, None, lambda: self._visible(kind, length, query.device), length, query, group)
        output = grouped_sdpa(self._pad(query, queries), keys, values, mask, scaling).transpose(1, 2)
        # (rows, width, heads, d) back to the pack: (tokens, heads, d), zeros where the dummies are
        packed = output.reshape(-1, *output.shape[2:]).index_select(0, self._index(queries, query))
        short = query.shape[2] - len(packed)
        return torch.cat([packed, packed.new_zeros(short, *packed.shape[1:])])[None]

    def _pad(self, packed: Tensor, side: Side) -> Tensor:
        """[1, heads, tokens, d] to [rows, heads, width, d]."""
        index = self._index(side, packed)
        heads, dim = packed.shape[1], packed.shape[3]
        padded = packed.new_zeros(len(self.parts[0]) * self.width, heads, dim)
        padded = padded.index_copy(0, index, packed[0].transpose(0, 1)[: len(index)])
        return padded.view(-1, self.width, heads, dim).transpose(1, 2)

    def _index(self, side: Side, like: Tensor) -> Tensor:
        """Padded place of each packed token [n]."""
        if side not in self._places:
            lengths = self.query_lengths[side]
            places = [row * self.width + at for row, count in enumerate(lengths) for at in range(count)]
            self._places[side] = torch.tensor(places, device=like.device)
        return self._places[side]

    def _visible(self, kind: Kind, length: int, device: torch.device) -> Tensor:
        """What a token sees [rows or 1, width, P + width]; padding comes after whatever a text sees."""
        slots = torch.arange(length + self.width, device=device)
        if kind == "decoder":
            visible = torch.ones(1, self.width, len(slots), dtype=torch.bool, device=device).tril(length)
            if not any(self.prefix_hidden_until):
                return visible
            until = self._per_row(self.prefix_hidden_until, device)
            return hide_prefix(visible, slots[None, : self.width], torch.full_like(until, length), until)
        # A dummy row looks at zeros, since a softmax over nothing at all is NaN.
        ends = length + self._per_row(self.key_lengths[kind], device).clamp(min=1)
        return (slots < ends)[:, None].expand(-1, self.width, -1)

    def _per_row(self, counts: Sequence[int], device: torch.device) -> Tensor:
        """`counts` as [rows, 1]; 0 for dummy rows."""
        short = [0] * (len(self.parts[0]) - len(counts))
        return torch.tensor([*counts, *short], device=device)[:, None]
