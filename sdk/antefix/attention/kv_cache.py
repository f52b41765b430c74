"""Preallocated keys and values of rows that generate together.

A row is laid out without gaps from slot 0: prefix, prompt, what was generated. So a mask is `slot < length`,
there is no padding on the left, and a token's slot is its position. Nothing is copied when a token joins.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Kind
from antefix.prefix.prefix import Prefix

# A row's first byte lies at a multiple of 64 whatever its number: the shape of a vector loop's start and end
# is part of its bits.
STEP = 64


class KVCache:
    """Keys and values of `rows` rows, for some kinds of layers.

    Slots that hold nothing are zero: minus infinity hides a large number behind a mask, but not NaN.
    One more row takes what dummies write; nobody looks at it.
    """

    def __init__(self, base: FrozenBase, rows: int, capacity: Mapping[Kind, int]) -> None:
        """Make room for `capacity[kind]` positions per row, rounded up."""
        self.rows = rows
        self.capacity = {kind: round_up(positions) for kind, positions in capacity.items()}
        self._layout = base.layout
        self._stored: dict[int, Tensor] = {  # [2, rows + 1, heads, capacity, head_dim]
            number: torch.zeros(
                2,
                rows + 1,
                slot.heads,
                self.capacity[slot.kind],
                slot.head_dim,
                device=base.device,
                dtype=base.dtype,
            )
            for number, slot in enumerate(base.layout.slots)
            if slot.kind in capacity
        }

    @property
    def scratch_row(self) -> int:
        """The row that takes what dummies write."""
        return self.rows

    def insert_prefix(self, row: int, prefix: Prefix | None) -> None:
        """Begin a row: its prefix, and zeros up to the end."""
        self.clear(row)
        if prefix is None:
            return
        own = prefix.layout.split(prefix._values)  # a copy would stay behind in memory
        parts = self._layout.spread(prefix.layout, own)  # per slot [2, heads, P or 0, head_dim]
        for number, stored in self._stored.items():
            stored[:, row, :, : parts[number].shape[2]] = parts[number].to(stored.device)

    def clear(self, row: int, start: int = 0) -> None:
        """Zero a row from slot `start` on: nothing of it is left for the next one."""
        for stored in self._stored.values():
            stored[:, row, :, start:].zero_()

    def wipe(self) -> None:
        """Zero all rows, before the memory is freed."""
        for stored in self._stored.values():
            stored.zero_()

    def move(self, source: int, target: int) -> None:
        """Copy a row over another, and clear where it was."""
        for stored in self._stored.values():
            stored[:, target].copy_(stored[:, source])
        self.clear(source)

    def grow(self, kind: Kind, positions: int) -> None:
        """Make room for longer rows, at least twice as long as before."""
        wanted = round_up(max(positions, 2 * self.capacity[kind]))
        for number, stored in self._stored.items():
            if self._layout.slots[number].kind == kind:
                larger = stored.new_zeros(*stored.shape[:3], wanted, stored.shape[4])
                larger[:, :, :, : stored.shape[3]] = stored
                stored.zero_()  # freed memory keeps what was in it
                self._stored[number] = larger
        self.capacity[kind] = wanted

    def index(self, number: int, rows: Tensor, slots: Tensor) -> Tensor:
        """Where `store` puts keys [B, heads, N, head_dim], of rows [B, N] and slots [B, N]."""
        # Layer `number` as one matrix [rows * heads * capacity, head_dim]: a key is one line of it.
        _, _, heads, capacity, _ = self._stored[number].shape
        head = torch.arange(heads, device=rows.device)[None, :, None]  # (1, heads, 1)
        return ((rows[:, None] * heads + head) * capacity + slots[:, None]).flatten()

    def store(self, number: int, index: Tensor, key: Tensor, value: Tensor) -> None:
        """Write new keys and values [B, heads, N, head_dim] of layer `number`."""
        for stored, new in zip(self._stored[number], (key, value), strict=True):
            stored.view(-1, stored.shape[-1]).index_copy_(0, index, new.reshape(-1, new.shape[-1]))

    def view(self, number: int, rows: slice | Tensor, used: int) -> tuple[Tensor, Tensor]:
        """Keys and values [rows, heads, used, head_dim] of layer `number`; a view if `rows` is a slice."""
        keys, values = self._stored[number][:, :, :, :used].unbind(0)
        return keys[rows], values[rows]


def round_up(positions: int) -> int:
    """Positions in whole steps."""
    return -(-positions // STEP) * STEP
