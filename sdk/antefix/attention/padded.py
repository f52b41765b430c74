"""Attention over packed rows all at once, each padded to one width: for a GPU.

One call per layer, of a constant shape, in place of one per row. The rest of a micro-batch stays packed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from antefix.attention.packed import PackedRows
from antefix.model.attention import added_mask, has_relative_bias, relative_bias, weigh
from antefix.model.kv_layout import Kind

Side = Literal["decoder", "encoder"]
_SIDES: dict[Kind, tuple[Side, Side]] = {  # whose tokens ask, and whose are seen
    "decoder": ("decoder", "decoder"),
    "encoder": ("encoder", "encoder"),
    "cross": ("decoder", "encoder"),
}


@dataclass
class PaddedRows(PackedRows):
    """Watcher of one forward pass.

    Attributes:
        width: tokens of a padded row. Padding is zero, never another row's memory.
    """

    width: int = 0
    _places: dict[Side, Tensor] = field(default_factory=dict)

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, extra: Any
    ) -> Tensor:
        """Attention of all rows; query [1, heads, tokens, d], result [1, tokens, heads, d]."""
        number = self.base.slot_of[module]
        kind = self.base.layout.slots[number].kind
        if has_relative_bias(module):
            self._tables[kind] = module
        before = self.parts[number]  # (rows, 2, kv_heads, P, d)
        asks, sees = _SIDES[kind]
        keys = torch.cat([before[:, 0], self._pad(key, sees)], 2)
        values = torch.cat([before[:, 1], self._pad(value, sees)], 2)
        mask = self._common_mask(kind, before.shape[3], query.shape[1] // key.shape[1], query)
        output = weigh(self._pad(query, asks), keys, values, mask, scaling).transpose(1, 2)
        packed = output.reshape(-1, *output.shape[2:]).index_select(0, self._index(asks, query))
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
            lengths = self.lengths[side]
            places = [row * self.width + at for row, count in enumerate(lengths) for at in range(count)]
            self._places[side] = torch.tensor(places, device=like.device)
        return self._places[side]

    def _common_mask(self, kind: Kind, length: int, group: int, like: Tensor) -> Tensor:
        """Added mask [rows or 1, 1 or heads, group * width, P + width]."""
        key = (kind, group)
        if key not in self._masks:
            visible = self._visible(kind, length, like.device)
            mask = added_mask(visible, like.dtype).repeat(1, group, 1)[:, None]
            if kind in self._tables:
                places = torch.arange(length + self.width, device=like.device)[None]
                mask = mask + relative_bias(self._tables[kind], places[:, length:], places)
            self._masks[key] = mask
        return self._masks[key]

    def _visible(self, kind: Kind, length: int, device: torch.device) -> Tensor:
        """What a token sees [rows or 1, width, P + width]; padding comes after whatever a text sees."""
        size = length + self.width
        if kind == "decoder":
            visible = torch.ones(1, self.width, size, dtype=torch.bool, device=device).tril(length)
            if not any(self.blind):
                return visible
            unseen = torch.zeros(len(self.parts[0]), 1, 1, dtype=torch.long)
            unseen[: len(self.blind), 0, 0] = torch.tensor(self.blind)
            asking = torch.arange(self.width, device=device)[:, None] < unseen.to(device)
            return visible & ~(asking & (torch.arange(size, device=device) < length))
        counts = torch.zeros(len(self.parts[0]), dtype=torch.long)
        counts[: len(self.seen[kind])] = torch.tensor(self.seen[kind])
        ends = length + counts.to(device).clamp(min=1)  # a dummy looks at zeros, since nothing at all is NaN
        slots = torch.arange(size, device=device)
        return (slots < ends[:, None])[:, None].expand(-1, self.width, -1)
