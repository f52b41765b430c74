"""Where each attention layer's keys and values lie in a flat prefix vector.

A prefix of length P is one vector of `P * width` numbers, slot after slot; slot s holds
`[2, heads, P, head_dim]` (0 = keys, 1 = values). Layers may differ in shape, and an encoder-decoder
has three kinds of slot, without any special case elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # settings name kinds of layers, and are read where torch is not
    from torch import Tensor

Kind = Literal["encoder", "decoder", "cross"]


@dataclass(frozen=True)
class Slot:
    """One attention layer that takes a prefix.

    Attributes:
        kind: `decoder` for every layer of a causal model.
        layer: number within its kind, from 0.
        heads: key/value heads (fewer than query heads under grouped-query attention).
        head_dim: numbers per head.
    """

    kind: Kind
    layer: int
    heads: int
    head_dim: int

    @property
    def width(self) -> int:
        """Numbers per prefix position: keys and values."""
        return 2 * self.heads * self.head_dim


@dataclass(frozen=True)
class Layout:
    """All slots of a base, in the order of its forward pass."""

    slots: tuple[Slot, ...]

    @property
    def width(self) -> int:
        """Numbers per prefix position over all slots."""
        return sum(slot.width for slot in self.slots)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of its slots, each once."""
        return tuple(dict.fromkeys(slot.kind for slot in self.slots))

    def only(self, kinds: Iterable[Kind]) -> Layout:
        """The slots of some kinds."""
        wanted = set(kinds)
        return Layout(tuple(slot for slot in self.slots if slot.kind in wanted))

    def spread(self, part: Layout, tensors: Sequence[Tensor]) -> list[Tensor]:
        """One tensor for each of these slots: those of `part`, and of 0 positions where `part` has none.

        Args:
            part: what `only` gave.
            tensors: one for each of its slots, [..., 2, heads, P, head_dim].
        """
        if part.slots == self.slots:
            return list(tensors)
        given = {(slot.kind, slot.layer): tensor for slot, tensor in zip(part.slots, tensors, strict=True)}
        leading = tensors[0].shape[:-4]
        return [
            given.get(
                (slot.kind, slot.layer), tensors[0].new_zeros(*leading, 2, slot.heads, 0, slot.head_dim)
            )
            for slot in self.slots
        ]

    @property
    def digest(self) -> str:
        """Hex digest by which a file names the shapes it was written for."""
        text = ";".join(f"{s.kind},{s.layer},{s.heads},{s.head_dim}" for s in self.slots)
        return hashlib.sha256(text.encode()).hexdigest()

    def size(self, length: int) -> int:
        """Numbers in a prefix of `length` positions."""
        return self.width * length

    def split(self, flat: Tensor) -> list[Tensor]:
        """Views of `flat` [..., size(P)], one per slot: [..., 2, heads, P, head_dim]."""
        length = flat.shape[-1] // self.width
        parts, start = [], 0
        for slot in self.slots:
            stop = start + slot.width * length
            shape = (*flat.shape[:-1], 2, slot.heads, length, slot.head_dim)
            parts.append(flat[..., start:stop].unflatten(-1, shape[-4:]))
            start = stop
        return parts

    def from_positions(self, rows: Tensor) -> Tensor:
        """Flat vector [size(P)] of a matrix with one row per position, [P, width]."""
        parts = rows.split([slot.width for slot in self.slots], dim=-1)
        return self.join(
            [
                part.unflatten(-1, (2, slot.heads, slot.head_dim)).permute(1, 2, 0, 3)
                for part, slot in zip(parts, self.slots, strict=True)
            ]
        )

    def join(self, parts: list[Tensor]) -> Tensor:
        """Flat vector [..., size(P)] of slot tensors [..., 2, heads, P, head_dim]; inverse of `split`."""
        import torch

        return torch.cat([part.flatten(-4) for part in parts], dim=-1)
