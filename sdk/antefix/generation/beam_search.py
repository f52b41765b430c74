"""Beam search of many requests at once, through transformers' own `generate`.

Prefix and prompt go in as a cache that is filled already. `generate` repeats tensors for its beams but not a
cache, so it is repeated here. A mask shorter than prefix and text together would silently hide the wrong
tokens, so it is always given in full; it also tells `generate` the position of each row's next token.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from antefix.attention.kv_cache import KVCache
from antefix.generation.detokenizer import IncrementalDetokenizer
from antefix.generation.forward import CHUNK
from antefix.generation.prefill import capacity_for, prefill
from antefix.generation.request import Generated, Size, TokenizedRequest, banned_tokens
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Kind


@torch.no_grad()
def beam_search(base: FrozenBase, prepared: Sequence[TokenizedRequest]) -> list[Generated]:
    """The best text that a beam search gives for each request.

    Args:
        base: the frozen base.
        prepared: alike in `group_key`; encoder-decoders: one alone.
    """
    request, stop_ids = prepared[0].request, sorted(prepared[0].stop_token_ids)
    pad = base.tokenizer.pad_token_id
    settings = GenerationConfig(
        max_new_tokens=request.max_new_tokens,
        num_beams=request.num_beams,
        do_sample=False,
        eos_token_id=stop_ids or None,
        pad_token_id=pad if pad is not None else (stop_ids or [0])[0],
        suppress_tokens=banned_tokens(base) or None,
        decoder_start_token_id=prepared[0].inputs[0] if base.is_encoder_decoder else None,
    )
    inputs = _seq2seq(base, prepared[0]) if base.is_encoder_decoder else _causal(base, prepared)
    # Settings that come with a model (BART forces a last token, say) would fill what is left open above; a
    # running batch knows none of them. The copy shares all but this attribute.
    model: Any = copy(base.model)
    model.generation_config = GenerationConfig()
    outputs = model.generate(**inputs, generation_config=settings)[:, 1:].tolist()
    return [_generated(base, request, tokens) for request, tokens in zip(prepared, outputs, strict=True)]


def group_key(base: FrozenBase, prepared: TokenizedRequest) -> Hashable:
    """What requests have in common that are searched together."""
    request = prepared.request
    alone = id(prepared) if base.is_encoder_decoder else 0
    return request.num_beams, request.max_new_tokens, prepared.stop_token_ids, alone


def _generated(base: FrozenBase, prepared: TokenizedRequest, tokens: list[int]) -> Generated:
    length = next((n for n, token in enumerate(tokens) if token in prepared.stop_token_ids), len(tokens))
    text = IncrementalDetokenizer(base.tokenizer, ())
    for token in tokens[:length]:
        text.push(token)
    text.finish()
    return Generated(text.text, tuple(tokens[:length]), "end" if length < len(tokens) else "length")


def _causal(base: FrozenBase, prepared: Sequence[TokenizedRequest]) -> dict[str, Any]:
    """The last token of each prompt; what comes before it is read here, each under its own prefix.

    `generate` could not read an infix, which a part of the prompt does not see.
    """
    cache = _read(base, prepared)
    ends = [request.length + len(request.inputs) - 1 for request in prepared]
    width, rows = max(ends), slice(0, len(prepared))
    padding = torch.tensor([width - end for end in ends], device=base.device)[:, None]  # (R, 1)
    visible = (torch.arange(width + 1, device=base.device) >= padding).long()  # (R, width + 1)
    past = [
        tuple(_per_beam(_left_pad(part, ends), prepared[0]) for part in cache.view(number, rows, width))
        for number in range(len(base.layout.slots))
    ]
    cache.wipe()
    ids = torch.tensor([request.inputs[-1:] for request in prepared], device=base.device)
    return {
        "input_ids": ids,
        "attention_mask": visible,
        **({"past_key_values": DynamicCache(past)} if width else {}),
    }


def _read(base: FrozenBase, prepared: Sequence[TokenizedRequest]) -> KVCache:
    """A cache with all prompts."""
    size = Size(max(request.length + len(request.inputs) for request in prepared))
    cache = KVCache(base, len(prepared), capacity_for(size))
    each = max(1, CHUNK // max(len(request.inputs) for request in prepared))
    for at in range(0, len(prepared), each):
        pack = prepared[at : at + each]
        prefill(base, cache, range(at, at + len(pack)), pack)
    return cache


def _left_pad(part: Tensor, ends: Sequence[int]) -> Tensor:
    """Rows [R, heads, width, d] moved so that all end at the same place, zeros before them."""
    moved = torch.zeros_like(part)
    for row, end in enumerate(ends):
        moved[row, :, part.shape[2] - end :] = part[row, :, :end]
    return moved


def _seq2seq(base: FrozenBase, prepared: TokenizedRequest) -> dict[str, Any]:
    """Inputs whose cross-attention is filled already, with what the prefill of a running batch stores."""
    cache = KVCache(base, 1, capacity_for(prepared.size))
    prefill(base, cache, [0], [prepared])
    cross = [
        tuple(_per_beam(part, prepared) for part in cache.view(number, slice(0, 1), prepared.size.cross))
        for number, slot in enumerate(base.layout.slots)
        if slot.kind == "cross"
    ]
    past = EncoderDecoderCache(DynamicCache(_prefix_cache(base, prepared, "decoder")), DynamicCache(cross))
    # Nobody reads it, for the cross-attention is filled; masks take their length from it.
    shape = (1, prepared.size.cross, base.head.weight.shape[1])
    unread = torch.zeros(shape, device=base.device, dtype=base.dtype)
    return {
        "decoder_input_ids": torch.tensor([prepared.inputs], device=base.device),
        "decoder_attention_mask": _seen(base, prepared.length + len(prepared.inputs)),
        "encoder_outputs": BaseModelOutput(last_hidden_state=unread),
        "attention_mask": _seen(base, prepared.size.cross),
        "past_key_values": past,
    }


def _prefix_cache(base: FrozenBase, prepared: TokenizedRequest, kind: Kind) -> list[tuple[Tensor, ...]]:
    """Keys and values of the prefix, one pair [beams, heads, P, head_dim] per layer; none without one."""
    prefix = prepared.request.prefix
    if prefix is None:
        return []
    own = prefix.layout.split(prefix.values.to(base.device, base.dtype))
    parts = base.layout.spread(prefix.layout, own)
    return [
        tuple(_per_beam(part[None], prepared) for part in both)
        for both, slot in zip(parts, base.layout.slots, strict=True)
        if slot.kind == kind
    ]


def _per_beam(part: Tensor, prepared: TokenizedRequest) -> Tensor:
    return part.repeat_interleave(prepared.request.num_beams, 0)


def _seen(base: FrozenBase, length: int) -> Tensor:
    return torch.ones(1, length, dtype=torch.long, device=base.device)
