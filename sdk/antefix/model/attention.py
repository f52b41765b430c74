"""The one seam into a model: an attention function registered with transformers.

Every layer of every supported model calls `attend`. A model keyword, `antefix`, carries a `AttentionBackend`
that decides what a layer sees beyond the keys and values it just computed: a prefix per row
(training, scoring), the running batch's stored keys (generation), or nothing (probes). Without that
keyword the layer behaves as transformers' own `sdpa`.

No cache object is involved, so activation checkpointing works and nothing is shared between rows.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "antefix"


class AttentionBackend(Protocol):
    """Receives each layer's attention call, in the order of the forward pass."""

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, extra: Any
    ) -> Tensor:
        """Return the attention output [rows, queries, heads, head_dim]."""
        ...


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    antefix: AttentionBackend | None = None,
    **extra: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention of one layer: query [rows, heads, T, d], key and value [rows, kv_heads, S, d]."""
    if antefix is None:
        output, weights = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **extra
        )
        return output, weights
    return antefix.attend(module, query, key, value, scaling, extra), None


def grouped_sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """Masked attention with grouped queries folded into the query length.

    Folding spares the copy of keys and values per query head that `repeat_kv` makes.

    Args:
        query: [rows, heads, T, d]; heads = kv_heads * group, a group's heads next to each other.
        key: [rows, kv_heads, S, d]; value alike.
        mask: added to the scores, [rows or 1, 1 or heads, group * T, S]; one mask per head needs group 1.
        scaling: factor on the scores; None is 1/sqrt(d).

    Returns:
        [rows, heads, T, d].
    """
    rows, heads, length, dim = query.shape
    folded = query.reshape(rows, key.shape[1], -1, dim)
    if key.requires_grad and query.device.type == "cpu":  # its backward is five times slower in bf16
        folded, key, value, mask = folded.float(), key.float(), value.float(), mask.float()
    output = F.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(rows, heads, length, dim).to(query.dtype)


def added_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `visible`, minus infinity elsewhere; added to attention scores."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, float("-inf"))


def hide_prefix(visible: Tensor, places: Tensor, length: Tensor, until: Tensor) -> Tensor:
    """Hide each row's prefix from its first tokens: an infix, which only the completion sees.

    Args:
        visible: what each token sees [rows or 1, T, S].
        places: of the tokens, [rows or 1, T].
        length: slots of the prefix, from 0 on [rows, 1].
        until: tokens at places below this number do not see it [rows, 1].

    Returns:
        [rows, T, S].
    """
    length, until = length.to(visible.device), until.to(visible.device)
    in_prefix = torch.arange(visible.shape[-1], device=visible.device) < length[..., None]  # (rows, 1, S)
    return visible & ~(in_prefix & (places < until)[..., None])


def relative_bias(module: nn.Module, query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """T5's learned bias for any positions: [rows, T] and [rows, S] to [rows, heads, T, S].

    T5's own `compute_bias` knows only rows that start at 0; a prefix and a running batch do not.
    """
    layer: Any = module
    buckets = layer._relative_position_bucket(
        key_positions[:, None, :] - query_positions[:, :, None],
        bidirectional=not layer.is_decoder,
        num_buckets=layer.relative_attention_num_buckets,
        max_distance=layer.relative_attention_max_distance,
    )
    bias: Tensor = layer.relative_attention_bias(buckets)
    return bias.permute(0, 3, 1, 2)


def has_relative_bias(module: nn.Module) -> bool:
    """Whether this very layer holds T5's table (the first of each stack does)."""
    return bool(getattr(module, "has_relative_attention_bias", False))


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
