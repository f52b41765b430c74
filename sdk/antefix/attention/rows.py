"""What attention over packed rows has in common, row by row or all rows at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from antefix.model.attention import added_mask, has_relative_bias, relative_bias
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Kind


@dataclass
class RowAttention(ABC):
    """An `AttentionBackend` of one forward pass: each row sees its own prefix, then its own text.

    Attributes:
        base: gives the slot of a layer.
        parts: per slot, one prefix per row [rows, 2, heads, P, head_dim].
        query_lengths: tokens per row that ask, by kind of layer.
        key_lengths: tokens per row that are looked at, by kind of layer.
        prefix_hidden_until: first tokens per row that do not see the prefix in the decoder; empty for none.
    """

    base: FrozenBase
    parts: list[Tensor]
    query_lengths: dict[Kind, list[int]]
    key_lengths: dict[Kind, list[int]]
    prefix_hidden_until: Sequence[int] = ()
    _masks: dict[Hashable, Tensor] = field(default_factory=dict)
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
        queries: dict[Kind, list[int]] = {"decoder": [*inputs], "encoder": [*sources], "cross": [*inputs]}
        keys: dict[Kind, list[int]] = {"decoder": [*inputs], "encoder": [*sources], "cross": [*sources]}
        return cls(base, parts, queries, keys, **more)

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, extra: Any
    ) -> Tensor:
        """Attention of all rows; query [1, heads, tokens, d], result [1, tokens, heads, d]."""
        number = self.base.slot_of[module]
        kind = self.base.layout.slots[number].kind
        if has_relative_bias(module):  # T5: the first layer holds the table of all layers of its kind
            self._tables[kind] = module
        return self._attend(kind, self.parts[number], query, key, value, scaling)

    @abstractmethod
    def _attend(
        self, kind: Kind, prefixes: Tensor, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """As `attend`, under `prefixes` [rows, 2, kv_heads, P, d]."""

    def _mask(
        self,
        kind: Kind,
        size: Hashable,
        visible: Callable[[], Tensor],
        length: int,
        query: Tensor,
        group: int,
    ) -> Tensor:
        """Added mask [rows or 1, 1 or heads, group * T, P + S], made once a pass for each kind and `size`.

        Args:
            kind: of the layers that share it.
            size: what else it depends on.
            visible: makes what each token sees [rows or 1, T, P + S].
            length: P.
            query: whose dtype it gets.
            group: query heads per key head; `grouped_sdpa` folds them into the queries.
        """
        key = (kind, size, group)
        if key not in self._masks:
            seen = visible()
            mask = added_mask(seen, query.dtype).repeat(1, group, 1)[:, None]
            if kind in self._tables:
                places = torch.arange(seen.shape[-1], device=query.device)[None]
                mask = mask + relative_bias(self._tables[kind], places[:, length:], places)
            self._masks[key] = mask
        return self._masks[key]
