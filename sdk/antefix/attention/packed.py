"""Attention over packed rows: each row attends to its own prefix, then to its own text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from antefix.model.attention import added_mask, has_relative_bias, relative_bias, weigh
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Kind


@dataclass
class PackedRows:
    """Watcher of one forward pass over rows packed end to end.

    Attributes:
        base: gives the slot of a layer.
        parts: per slot, one prefix per row [rows, 2, heads, P, head_dim].
        lengths: tokens per row that ask, by kind of layer.
        seen: tokens per row that are looked at, by kind of layer.
        blind: first tokens per row that do not see the prefix in the decoder; empty for none.
    """

    base: FrozenBase
    parts: list[Tensor]
    lengths: dict[Kind, list[int]]
    seen: dict[Kind, list[int]]
    blind: Sequence[int] = ()
    _masks: dict[tuple[object, ...], Tensor] = field(default_factory=dict)
    _tables: dict[Kind, nn.Module] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        base: FrozenBase,
        inputs: Sequence[int],
        sources: Sequence[int],
        parts: list[Tensor],
        **more: Any,
    ) -> Self:
        """Take the rows' lengths in decoder and encoder (0 for causal models)."""
        asks: dict[Kind, list[int]] = {"decoder": [*inputs], "encoder": [*sources], "cross": [*inputs]}
        seen: dict[Kind, list[int]] = {"decoder": [*inputs], "encoder": [*sources], "cross": [*sources]}
        return cls(base, parts, asks, seen, **more)

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, extra: Any
    ) -> Tensor:
        """Attention row by row; query [1, heads, tokens, d], result [1, tokens, heads, d]."""
        number = self.base.slot_of[module]
        kind = self.base.layout.slots[number].kind
        if has_relative_bias(module):
            self._tables[kind] = module
        group = query.shape[1] // key.shape[1]
        outputs = []
        blind = self.blind if self.blind and kind == "decoder" else [0] * len(self.lengths[kind])
        for asked, keys, values, before, unseen in zip(
            _rows(query, self.lengths[kind]),
            _rows(key, self.seen[kind]),
            _rows(value, self.seen[kind]),
            self.parts[number].unbind(0),
            blind,
            strict=True,
        ):
            size = (asked.shape[2], keys.shape[2], before.shape[2], unseen)
            mask = self._mask(kind, size, group, query)
            keys = torch.cat([before[None, 0], keys], 2)  # (1, kv_heads, P + S, d)
            values = torch.cat([before[None, 1], values], 2)
            outputs.append(weigh(asked, keys, values, mask, scaling).transpose(1, 2))
        short = query.shape[2] - sum(self.lengths[kind])
        if short:  # dummies attend to nothing: zeros, never uninitialised memory
            outputs.append(query.new_zeros(1, short, query.shape[1], value.shape[3]))
        return torch.cat(outputs, 1)

    def _mask(self, kind: Kind, size: tuple[int, int, int, int], group: int, like: Tensor) -> Tensor:
        """Added mask [1, 1 or heads, group * T, P + S] of a row, the same for rows of the same size."""
        key, (asks, sees, length, unseen) = (kind, *size, group), size
        if key not in self._masks:
            visible = torch.ones(asks, length + sees, dtype=torch.bool, device=like.device)
            visible = visible.tril(length) if kind == "decoder" else visible
            visible[:unseen, :length] = False
            mask = added_mask(visible, like.dtype).repeat(group, 1)[None, None]
            if kind in self._tables:
                places = torch.arange(length + sees, device=like.device)[None]
                mask = mask + relative_bias(self._tables[kind], places[:, length:], places)
            self._masks[key] = mask
        return self._masks[key]


def _rows(packed: Tensor, lengths: list[int]) -> list[Tensor]:
    """Views [1, heads, T, d] of each row in [1, heads, tokens, d]; the dummies at the end are left out.

    One `split`, since its backward is one concatenation; slices would each make a full-sized gradient.
    """
    return list(packed.split([*lengths, packed.shape[2] - sum(lengths)], dim=2))[: len(lengths)]
