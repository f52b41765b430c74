"""Finds by trial what a prefix needs to know of a model, and refuses what cannot take one exactly.

Shapes come from a forward pass on a few tokens, never from configuration formulas: those differ by
family (grouped queries, head sizes, uneven layers) and were the source of every shape bug in PEFT.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from antefix.errors import BaseUnsuitable
from antefix.model.attention import added_mask, grouped_sdpa, has_relative_bias, relative_bias
from antefix.model.kv_layout import Kind, Layout, Slot
from antefix.model.lm_head import Head

_SOURCE_TOKENS, _TOKENS = 5, 3  # different, so that cross-attention shows by its shape
_INDEX = re.compile(r"^(.*?)\.(\d+)(?:\.|$)")


def find_layout(model: PreTrainedModel) -> tuple[Layout, dict[nn.Module, int]]:
    """Layout of a model, and the number of the slot of each of its attention modules.

    Raises:
        BaseUnsuitable: a layer has a sliding window, no keys and values, attention sinks, keys and
            values of different sizes, or an attention of its own that transformers does not register.
    """
    seen = _Seen()
    run_body(model, seen)
    names = {module: name for name, module in model.named_modules()}
    if not seen.calls:
        raise BaseUnsuitable(
            f"no layer of {type(model).__name__} takes its attention from transformers' registry",
            "choose a model such as Llama, Qwen, GPT-2, OPT, BART or T5",
        )
    counts: dict[Kind, int] = {"encoder": 0, "decoder": 0, "cross": 0}
    slots: list[Slot] = []
    numbers: dict[nn.Module, int] = {}
    for number, (module, kind, key, value, extra) in enumerate(seen.calls):
        _refuse_unsuitable(names[module], module, key, value, extra, numbers)
        slots.append(Slot(kind, counts[kind], key[1], key[3]))
        counts[kind] += 1
        numbers[module] = number
    _refuse_missing(model, [names[module] for module in numbers])
    _refuse_windows(model, [names[module] for module in numbers])
    return Layout(tuple(slots)), numbers


def run_body(model: PreTrainedModel, backend: Any) -> Tensor:
    """Last hidden state of the model on a few tokens, through the attention of `backend`."""
    device = next(model.parameters()).device
    ids = torch.arange(1, _TOKENS + 1, device=device)[None]
    with torch.no_grad():
        if not model.config.is_encoder_decoder:
            output = model.get_decoder()(input_ids=ids, use_cache=False, antefix=backend)
        else:
            source = torch.arange(1, _SOURCE_TOKENS + 1, device=device)[None]
            encoded = model.get_encoder()(input_ids=source, antefix=backend).last_hidden_state
            output = model.get_decoder()(
                input_ids=ids, encoder_hidden_states=encoded, use_cache=False, antefix=backend
            )
    hidden: Tensor = output.last_hidden_state
    return hidden


def find_head(model: PreTrainedModel) -> Head:
    """The model's head as one affine map, fitted to and checked against its own logits.

    Raises:
        BaseUnsuitable: the logits are not an affine map of the last hidden state (soft caps, say).
    """
    layer: Any = model.get_output_embeddings()
    bias = getattr(model, "final_logits_bias", None)  # BART
    bias = getattr(layer, "bias", None) if bias is None else bias[0]
    hidden = run_body(model, None).float()  # the way of `_logits`, rounded alike
    ours = hidden @ layer.weight.float().T
    theirs = _logits(model).float() - (0 if bias is None else bias.float())
    scale = ((ours * theirs).sum() / (ours * ours).sum()).item()
    scale = 1.0 if abs(scale - 1) < 1e-2 else scale
    error = (ours * scale - theirs).abs().max() / theirs.abs().max().clamp_min(1e-9)
    if not error < (1e-3 if layer.weight.dtype == torch.float32 else 5e-2):
        raise BaseUnsuitable(
            f"the logits of {type(model).__name__} are not one affine map of its last hidden state "
            f"(relative difference {error:.1e})",
            "models that cap or gate their logits are not supported",
        )
    return Head(layer.weight.detach(), bias, scale)


def _logits(model: PreTrainedModel) -> Tensor:
    device = next(model.parameters()).device
    ids = torch.arange(1, _TOKENS + 1, device=device)[None]
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        source = torch.arange(1, _SOURCE_TOKENS + 1, device=device)[None]
        inputs = {"input_ids": source, "decoder_input_ids": ids}
    with torch.no_grad():
        logits: Tensor = model(**inputs, use_cache=False).logits
    return logits


class _Seen:
    """An `AttentionBackend` that records every attention call and computes it without any prefix."""

    def __init__(self) -> None:
        self.calls: list[tuple[nn.Module, Kind, torch.Size, torch.Size, dict[str, Any]]] = []
        self._bias: dict[Kind, Tensor] = {}

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, extra: Any
    ) -> Tensor:
        length, size = query.shape[2], key.shape[2]
        kind: Kind = "cross" if length != size else "encoder" if length == _SOURCE_TOKENS else "decoder"
        self.calls.append((module, kind, key.shape, value.shape, extra))
        visible = torch.ones(length, size, dtype=torch.bool, device=query.device)
        visible = visible.tril() if kind == "decoder" else visible
        mask = added_mask(visible, query.dtype).repeat(query.shape[1] // key.shape[1], 1)[None, None]
        if has_relative_bias(module):
            positions = torch.arange(size, device=query.device)[None]
            self._bias[kind] = relative_bias(module, positions, positions)
        if key.shape != value.shape:  # refused by the caller, which names the layer
            return query.transpose(1, 2)
        return grouped_sdpa(query, key, value, mask + self._bias.get(kind, 0.0), scaling).transpose(1, 2)


def _refuse_unsuitable(
    name: str,
    module: nn.Module,
    key: torch.Size,
    value: torch.Size,
    extra: dict[str, Any],
    seen: dict[nn.Module, int],
) -> None:
    """Refuse a layer whose attention a prefix would reach wrongly, or not at all."""
    layer = f"layer {name} ({type(module).__name__})"
    use = "choose a model whose layers all attend to the whole text"
    if extra.get("sliding_window") is not None:
        raise BaseUnsuitable(
            f"{layer} has a sliding window of {extra['sliding_window']} tokens: "
            "a prefix would slip out of its sight",
            use,
        )
    if key != value:
        raise BaseUnsuitable(
            f"{layer} has keys {list(key)} and values {list(value)} of different shapes", use
        )
    if module in seen:
        raise BaseUnsuitable(f"{layer} runs twice in one forward pass", use)
    unknown = [word for word in ("s_aux", "softcap", "alibi", "indices") if extra.get(word) is not None]
    if unknown:
        raise BaseUnsuitable(f"{layer} uses {unknown[0]!r}, which a prefix cannot follow", use)
    if extra.get("position_bias") is not None and not hasattr(module, "_relative_position_bucket"):
        raise BaseUnsuitable(f"{layer} has a position bias of an unknown kind", use)


def _refuse_missing(model: PreTrainedModel, names: list[str]) -> None:
    """Refuse a layer stack in which some layers have no attention (linear attention, state spaces)."""
    for stack, modules in model.named_modules():
        if not isinstance(modules, nn.ModuleList):
            continue
        numbers = {m[2] for m in map(_INDEX.match, names) if m and m[1] == stack}
        missing = [i for i in range(len(modules)) if str(i) not in numbers]
        if numbers and missing:
            raise BaseUnsuitable(
                f"layer {stack}.{missing[0]} ({type(modules[missing[0]]).__name__}) "
                "has no key/value attention that could take a prefix",
                "choose a model in which every layer attends",
            )


def _refuse_windows(model: PreTrainedModel, names: list[str]) -> None:
    """Refuse layers that the configuration calls anything but full attention."""
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or []
    for name, kind in zip(names, kinds, strict=False):
        if kind != "full_attention":
            raise BaseUnsuitable(
                f"layer {name} is configured as {kind!r}, not 'full_attention'",
                "choose a model whose layers all attend to the whole text",
            )
