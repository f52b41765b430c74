"""Beam search, through transformers' own `generate`.

The prefix goes in as a cache that is filled already. `generate` repeats tensors for its beams but not a
cache, so the prefix is repeated here. A mask shorter than prefix and text together would silently hide
the wrong tokens, so it is always given in full.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from antefix._arena import Arena
from antefix._base import FrozenBase
from antefix._layout import Kind
from antefix._reading import capacity_for, read_in
from antefix._request import Generated, Prepared, banned_tokens
from antefix._text import TextStream


@torch.no_grad()
def search(base: FrozenBase, prepared: Prepared) -> Generated:
    """The best text that a beam search finds for one request."""
    request, ends = prepared.request, sorted(prepared.ends)
    pad = base.tokenizer.pad_token_id
    settings = GenerationConfig(
        max_new_tokens=request.max_new_tokens,
        num_beams=request.num_beams,
        do_sample=False,
        eos_token_id=ends or None,
        pad_token_id=pad if pad is not None else (ends or [0])[0],
        suppress_tokens=banned_tokens(base) or None,
        decoder_start_token_id=prepared.inputs[0] if base.is_encoder_decoder else None,
    )
    inputs, given = _inputs(base, prepared)
    # Settings that come with a model (BART forces a last token, say) would fill what is left open above; a
    # running batch knows none of them. The copy shares all but this attribute.
    model: Any = copy(base.model)
    model.generation_config = GenerationConfig()
    found = model.generate(**inputs, generation_config=settings)[0, given:].tolist()
    length = next((n for n, token in enumerate(found) if token in prepared.ends), len(found))
    text = TextStream(base.tokenizer, ())
    for token in found[:length]:
        text.push(token)
    text.finish()
    return Generated(text.text, tuple(found[:length]), "end" if length < len(found) else "length")


def _inputs(base: FrozenBase, prepared: Prepared) -> tuple[dict[str, Any], int]:
    """What `generate` gets, and how many tokens of it come back in front of what it finds."""
    if base.is_encoder_decoder:
        return _seq2seq(base, prepared), len(prepared.inputs)
    if prepared.blind:
        return _under_infix(base, prepared), 1
    return _causal(base, prepared), len(prepared.inputs)


def _under_infix(base: FrozenBase, prepared: Prepared) -> dict[str, Any]:
    """`generate` cannot hide a cache from some of its tokens: the prompt but its last is read here."""
    arena = Arena(base, 1, capacity_for(prepared.size))
    read_in(base, arena, [0], [prepared])
    end = prepared.length + prepared.blind
    cache = [
        tuple(_per_beam(part[:, :, :end], prepared) for part in arena.look(number, slice(0, 1), end))
        for number in range(len(base.layout.slots))
    ]
    return {
        "input_ids": torch.tensor([prepared.inputs[-1:]], device=base.device),
        "attention_mask": _seen(base, end + 1),
        "past_key_values": DynamicCache(cache),
    }


def _causal(base: FrozenBase, prepared: Prepared) -> dict[str, Any]:
    ids = torch.tensor([prepared.inputs], device=base.device)
    cache = DynamicCache(_prefix_cache(base, prepared, "decoder"))
    return {
        "input_ids": ids,
        "attention_mask": _seen(base, prepared.length + len(prepared.inputs)),
        "past_key_values": cache,
    }


def _seq2seq(base: FrozenBase, prepared: Prepared) -> dict[str, Any]:
    """Inputs whose cross-attention is filled already, with what the prefill of a running batch stores."""
    arena = Arena(base, 1, capacity_for(prepared.size))
    read_in(base, arena, [0], [prepared])
    cross = [
        tuple(_per_beam(part, prepared) for part in arena.look(number, slice(0, 1), prepared.size.cross))
        for number, slot in enumerate(base.layout.slots)
        if slot.kind == "cross"
    ]
    cache = EncoderDecoderCache(DynamicCache(_prefix_cache(base, prepared, "decoder")), DynamicCache(cross))
    # Nobody reads it, for the cross-attention is filled; masks take their length from it.
    shape = (1, prepared.size.cross, base.head.weight.shape[1])
    unread = torch.zeros(shape, device=base.device, dtype=base.dtype)
    return {
        "decoder_input_ids": torch.tensor([prepared.inputs], device=base.device),
        "decoder_attention_mask": _seen(base, prepared.length + len(prepared.inputs)),
        "encoder_outputs": BaseModelOutput(last_hidden_state=unread),
        "attention_mask": _seen(base, prepared.size.cross),
        "past_key_values": cache,
    }


def _prefix_cache(base: FrozenBase, prepared: Prepared, kind: Kind) -> list[tuple[Tensor, ...]]:
    """Keys and values of the prefix, one pair [beams, heads, P, head_dim] per layer; none without one."""
    prefix = prepared.request.prefix
    if prefix is None:
        return []
    parts = base.layout.split(prefix.values.to(base.device, base.dtype))
    return [
        tuple(_per_beam(part[None], prepared) for part in both)
        for both, slot in zip(parts, base.layout.slots, strict=True)
        if slot.kind == kind
    ]


def _per_beam(part: Tensor, prepared: Prepared) -> Tensor:
    return part.repeat_interleave(prepared.request.num_beams, 0)


def _seen(base: FrozenBase, length: int) -> Tensor:
    return torch.ones(1, length, dtype=torch.long, device=base.device)
