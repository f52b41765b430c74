"""Reads a prefix file: one tensor, and metadata that says what base and which layers it is for."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from antefix.errors import PrefixFileRefused
from antefix.model.kv_layout import Kind, Layout, Slot
from antefix.prefix.strict_safetensors import Unreadable, content_of, read_tensor

_SLOT_LIMIT = 4096
_FIELDS = {"format", "base", "layout", "length", "slots"}
_KINDS: tuple[Kind, ...] = ("encoder", "decoder", "cross")


@dataclass(frozen=True)
class Parsed:
    """A prefix file's content.

    Attributes:
        values: flat, fp32.
        dtype: as stored: `F32`, `F16` or `BF16`.
        layout: of its base.
        base_fingerprint: of its base.
    """

    values: Tensor
    dtype: str
    layout: Layout
    base_fingerprint: str


def parse(content: bytes | bytearray | memoryview, expected_format: str) -> Parsed:
    """Read the content of a prefix file as if an attacker had written it.

    Raises:
        Unreadable: anything unexpected; the message names the first difference.
    """
    stored = read_tensor(content, "prefix", 1)
    layout = _checked(stored.metadata, stored.values.numel(), expected_format)
    return Parsed(stored.values, stored.dtype, layout, stored.metadata["base"])


def read(path: Path, expected_format: str) -> Parsed:
    """As `parse`, from a file.

    Raises:
        PrefixFileRefused: anything unexpected; the message names the first difference.
    """
    try:
        return parse(content_of(path), expected_format)
    except Unreadable as error:
        raise PrefixFileRefused(
            f"{path} is not a usable prefix: {error}", "use a file written by Prefix.save"
        ) from error


def _checked(fields: dict[str, str], count: int, expected_format: str) -> Layout:
    """The layout that the metadata names, if everything in it agrees."""
    if set(fields) != _FIELDS:
        raise Unreadable(f"its metadata must have exactly {sorted(_FIELDS)}")
    if fields["format"] != expected_format:
        raise Unreadable(f"its format is {fields['format'][:40]!r}, this version reads {expected_format!r}")
    layout = _layout(fields)
    digits = fields["length"]
    length = int(digits) if len(digits) < 10 and digits.isascii() and digits.isdigit() else 0
    if length < 1 or layout.size(length) != count:
        raise Unreadable(f"{count} values do not make a prefix of length {digits[:20]!r}")
    if len(fields["base"]) != 64 or set(fields["base"]) - set(string.hexdigits.lower()):
        raise Unreadable("its base fingerprint is not 64 hex digits")
    return layout


def _layout(fields: dict[str, str]) -> Layout:
    """The layout its metadata spells out, checked against the digest beside it."""
    try:
        runs = json.loads(fields["slots"])
        slots: list[Slot] = []
        counts: dict[Kind, int] = dict.fromkeys(_KINDS, 0)
        for kind, count, heads, head_dim in runs:
            sizes = (count, heads, head_dim)
            if kind not in _KINDS or not all(type(n) is int and 0 < n <= _SLOT_LIMIT for n in sizes):
                raise ValueError
            if len(slots) + count > _SLOT_LIMIT:  # a small header must not make a large layout
                raise ValueError
            slots.extend(Slot(kind, counts[kind] + i, heads, head_dim) for i in range(count))
            counts[kind] += count
    except (ValueError, TypeError, RecursionError) as error:
        raise Unreadable("its list of layers cannot be read") from error
    layout = Layout(tuple(slots))
    if not slots or layout.digest != fields["layout"]:
        raise Unreadable("its list of layers does not match the digest beside it")
    return layout
