"""Exchanges prefixes with Hugging Face PEFT, both ways, without importing it.

A PEFT folder holds `adapter_config.json` and `adapter_model.safetensors` with one matrix,
`prompt_embeddings`: a row per position, in it key and value of layer after layer. Text starts at
position P in PEFT as it does here, so the numbers mean the same on both sides.

    from antefix.peft import export_peft, import_peft

    export_peft(prefix, base, "alice-peft")
    model = peft.PeftModel.from_pretrained(model, "alice-peft")

PEFT names a base, but does not pin it. `export_peft` therefore writes a third file, `antefix.json`, with
the base's fingerprint; PEFT does not look at it, and `import_peft` refuses a folder whose fingerprint
is another base's. Without that file only the shapes can be checked.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from antefix.common.files import atomic_write
from antefix.common.validation import path_of, require
from antefix.errors import InvalidArgument, PrefixFileRefused, PrefixMismatch
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Slot
from antefix.prefix.prefix import Prefix
from antefix.prefix.strict_safetensors import Unreadable, content_of, read_object, read_tensor

__all__ = ["export_peft", "import_peft"]

_CONFIG, _WEIGHTS, _PIN = "adapter_config.json", "adapter_model.safetensors", "antefix.json"
_TENSOR = "prompt_embeddings"
_HINT = "use a folder written by export_peft, or by save_pretrained of a PEFT model with a prefix"


def export_peft(prefix: Prefix, base: FrozenBase, folder: str | Path) -> Path:
    """Write a folder that `peft.PeftModel.from_pretrained(model, folder)` loads.

    The prefix is written in the clear, readable by its owner only: whoever holds the folder can probe it
    for the texts it was trained on.

    Args:
        prefix: the prefix.
        base: the base it was trained on.
        folder: created if need be; files of an earlier export are replaced.

    Raises:
        PrefixMismatch: of another base.
        InvalidArgument: PEFT cannot hold a prefix for this base.
    """
    target = path_of(folder, "folder")
    require(prefix, Prefix, "prefix")
    require(base, FrozenBase, "base")
    prefix.require_base(base.fingerprint, base.layout)
    slot = _uniform_slot(base)
    parts = base.layout.split(prefix.values)  # each [2, heads, P, head_dim]
    rows = torch.cat([part.permute(2, 0, 1, 3).flatten(1) for part in parts], 1)  # [P, width]
    config = {
        "base_model_name_or_path": base.name,
        "encoder_hidden_size": slot.heads * slot.head_dim,
        "inference_mode": True,
        "num_attention_heads": slot.heads,
        "num_layers": len(base.layout.slots),
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prefix.length,
        "peft_type": "PREFIX_TUNING",
        "prefix_projection": False,
        "task_type": "CAUSAL_LM",
        "token_dim": slot.heads * slot.head_dim,
    }
    atomic_write(target / _PIN, _json({"base": base.name, "base_fingerprint": base.fingerprint}))
    atomic_write(target / _CONFIG, _json(config))
    atomic_write(target / _WEIGHTS, save({_TENSOR: rows.contiguous()}, metadata={"format": "pt"}))
    return target


def import_peft(folder: str | Path, base: FrozenBase) -> Prefix:
    """Read a prefix that PEFT trained, or that `export_peft` wrote; nothing in the folder is trusted.

    A prefix trained with PEFT's `prefix_projection` is read too: PEFT saves what its MLP computes.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        base: the base it was trained on. PEFT does not pin its base: without an `antefix.json` in the
            folder, a prefix of another base of the same shape goes unnoticed.

    Raises:
        PrefixFileRefused: no prefix, pickled, truncated, or with anything but the expected content.
        PrefixMismatch: of another base or other shapes.
        InvalidArgument: PEFT cannot hold a prefix for this base.
    """
    source = path_of(folder, "folder")
    require(base, FrozenBase, "base")
    slot = _uniform_slot(base)
    config = _object(source / _CONFIG, _HINT)
    kind = config.get("peft_type")
    if kind != "PREFIX_TUNING":
        raise PrefixFileRefused(
            f"{source / _CONFIG} is of type {_shown(kind)}, expected 'PREFIX_TUNING'", _HINT
        )
    task = config.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise PrefixMismatch(
            f"{source / _CONFIG} has task_type {_shown(task)}, base {base.name!r} needs 'CAUSAL_LM'",
            "load the base it was trained on",
        )
    _require_pinned_base(source, base)
    _refuse_pickle(source)
    rows = _matrix(source / _WEIGHTS)
    _require_shapes(source, config, rows, base, slot)
    return Prefix(base.layout.from_positions(rows), base.layout, base.fingerprint)


def _object(path: Path, hint: str) -> dict[str, Any]:
    try:
        return read_object(path)
    except Unreadable as error:
        raise PrefixFileRefused(f"{path} cannot be used: {error}", hint) from error


def _matrix(path: Path) -> Tensor:
    try:
        return read_tensor(content_of(path), _TENSOR, 2).values
    except Unreadable as error:
        raise PrefixFileRefused(f"{path} cannot be used: {error}", _HINT) from error


def _uniform_slot(base: FrozenBase) -> Slot:
    """The one shape of all layers; PEFT stores a single one, of the decoder's self-attention."""
    if base.is_encoder_decoder:
        raise InvalidArgument(
            f"base {base.name!r} is an encoder-decoder: PEFT has a prefix for the decoder's self-attention "
            "only, Antefix also for the encoder and for cross-attention",
            "exchange the prefix as a file of its own, with Prefix.save and Prefix.load",
        )
    shapes = {(slot.heads, slot.head_dim) for slot in base.layout.slots}
    if len(shapes) > 1:
        raise InvalidArgument(
            f"the layers of base {base.name!r} differ in (heads, head_dim), {sorted(shapes)}: "
            "PEFT stores one shape for all",
            "exchange the prefix as a file of its own, with Prefix.save and Prefix.load",
        )
    return base.layout.slots[0]


def _require_pinned_base(source: Path, base: FrozenBase) -> None:
    """Refuse a folder that names the fingerprint of another base."""
    path = source / _PIN
    if not path.exists():
        return
    pinned = _object(path, "export the prefix again").get("base_fingerprint")
    if not isinstance(pinned, str) or len(pinned) != 64 or set(pinned) - set(string.hexdigits.lower()):
        raise PrefixFileRefused(f"{path} has no base_fingerprint of 64 hex digits", "export the prefix again")
    if pinned != base.fingerprint:
        raise PrefixMismatch(
            f"the prefix in {source} belongs to base {pinned[:16]}…, "
            f"the base in use is {base.fingerprint[:16]}…",
            "load the base it was trained on, or train a new prefix",
        )


def _refuse_pickle(source: Path) -> None:
    pickled = source / "adapter_model.bin"
    if pickled.exists() and not (source / _WEIGHTS).exists():
        raise PrefixFileRefused(
            f"{pickled} is a pickle, which could run code when opened",
            f"save it with safe_serialization=True, which writes {_WEIGHTS}",
        )


def _require_shapes(source: Path, config: dict[str, Any], rows: Tensor, base: FrozenBase, slot: Slot) -> None:
    """Compare what the folder says, what it holds and what the base needs."""
    length = config.get("num_virtual_tokens")
    needed = {
        "num_layers": len(base.layout.slots),
        "num_attention_heads": slot.heads,
        "token_dim": slot.heads * slot.head_dim,
        "num_transformer_submodules": 1,
    }
    for key, value in needed.items():
        if not _equal(config.get(key), value):
            raise PrefixMismatch(
                f"{source / _CONFIG} has {key} {_shown(config.get(key))}, base {base.name!r} needs {value}",
                "load the base it was trained on",
            )
    if not _equal(length, rows.shape[0]) or rows.shape[1] != base.layout.width:
        raise PrefixMismatch(
            f"{_TENSOR} in {source} has shape {list(rows.shape)}, expected "
            f"[{_shown(length)}, {base.layout.width}] by its num_virtual_tokens and base {base.name!r}",
            "load the base it was trained on",
        )


def _equal(value: object, wanted: int) -> bool:
    """Whether JSON's `found` is that whole number; 3.0 and true are none."""
    return type(value) is int and value == wanted


def _shown(value: object) -> str:
    """A foreign value, short enough for an error message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
