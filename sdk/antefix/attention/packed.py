"""Attention over packed rows: each row attends to its own prefix, then to its own text."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from antefix.attention.rows import RowAttention
from antefix.model.attention import grouped_sdpa, hide_prefix
from antefix.model.kv_layout import Kind


class PackedRows(RowAttention):
    """Row by row, each at its own size: a CPU computes no padding, and a row's bits are its own."""

    def _attend(
        self, kind: Kind, prefixes: Tensor, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        group = query.shape[1] // key.shape[1]
        queries, lengths = self.query_lengths[kind], self.key_lengths[kind]
        hidden = self.prefix_hidden_until if kind == "decoder" else ()
        outputs = []  # of each row [1, T, heads, d]
        for row_query, keys, values, prefix, until in zip(
            _rows(query, queries),
            _rows(key, lengths),
            _rows(value, lengths),
            prefixes.unbind(0),
            hidden or [0] * len(queries),
            strict=True,
        ):
            # Rows of one size share a mask: few of a micro-batch have one to themselves.
            size = (row_query.shape[2], keys.shape[2], prefix.shape[2], until)
            visible = partial(_visible, kind, *size, query.device)
            mask = self._mask(kind, size, visible, prefix.shape[2], query, group)
            keys = torch.cat([prefix[None, 0], keys], 2)  # (1, kv_heads, P + S, d)
            values = torch.cat([prefix[None, 1], values], 2)
            outputs.append(grouped_sdpa(row_query, keys, values, mask, scaling).transpose(1, 2))
        short = query.shape[2] - sum(queries)
        if short:  # dummies attend to nothing: zeros, never uninitialised memory
            outputs.append(query.new_zeros(1, short, query.shape[1], value.shape[3]))
        return torch.cat(outputs, 1)


def _visible(
    kind: Kind, queries: int, keys: int, length: int, hidden_until: int, device: torch.device
) -> Tensor:
    """What each token of a row sees [1, T, P + S]: the prefix, and its text, in the decoder up to itself."""
    visible = torch.ones(1, queries, length + keys, dtype=torch.bool, device=device)
    visible = visible.tril(length) if kind == "decoder" else visible
    if hidden_until:
        places = torch.arange(queries, device=device)[None]
        visible = hide_prefix(visible, places, torch.tensor([[length]]), torch.tensor([[hidden_until]]))
    return visible


def _rows(packed: Tensor, lengths: list[int]) -> list[Tensor]:
    """Views [1, heads, T, d] of each row in [1, heads, tokens, d]; the dummies at the end are left out.

    One `split`, since its backward is one concatenation; slices would each make a full-sized gradient.
    """
    return list(packed.split([*lengths, packed.shape[2] - sum(lengths)], dim=2))[: len(lengths)]
