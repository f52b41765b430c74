"""Reads a prefix file as if an attacker had written it.

Order of the checks: size, header length, JSON, exact names, exact shape and dtype, byte ranges,
metadata, and only then the numbers, which must be finite. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antefix._layout import Kind, Layout, Slot
from antefix.errors import PrefixFileRefused

HEADER_LIMIT = 64 * 1024
FILE_LIMIT = 2 * 1024**3
_SLOT_LIMIT = 4096
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_FIELDS = {"format", "base", "layout", "length", "slots"}
_KINDS: tuple[Kind, ...] = ("encoder", "decoder", "cross")


def read(path: Path, expected_format: str) -> tuple[Tensor, Layout, str]:
    """Values (fp32), layout and base fingerprint of a prefix file.

    Raises:
        PrefixFileRefused: anything unexpected; the message names the first difference.
    """
    content = _content(path)
    header, body = _header(path, content)
    entry, fields = _entries(path, header)
    dtype, count = _tensor(path, entry, len(body))
    if fields["format"] != expected_format:
        raise _refused(path, f"its format is {fields['format']!r}, this version reads {expected_format!r}")
    layout = _layout(path, fields)
    length = int(fields["length"]) if fields["length"].isascii() and fields["length"].isdigit() else 0
    if length < 1 or layout.size(length) != count:
        raise _refused(path, f"{count} values do not make a prefix of length {fields['length']!r}")
    if len(fields["base"]) != 64 or set(fields["base"]) - set(string.hexdigits.lower()):
        raise _refused(path, "its base fingerprint is not 64 hex digits")
    values = torch.frombuffer(bytearray(body), dtype=dtype).float()
    if not torch.isfinite(values).all():
        raise _refused(path, "it holds NaN or infinite values")
    return values, layout, fields["base"]


def _refused(path: Path, why: str) -> PrefixFileRefused:
    return PrefixFileRefused(f"{path} is not a usable prefix: {why}", "use a file written by Prefix.save")


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > FILE_LIMIT:
            raise _refused(path, f"it has {size:,} bytes, more than {FILE_LIMIT:,}")
        return path.read_bytes()
    except OSError as error:
        raise PrefixFileRefused(f"{path} cannot be read: {error.strerror}", "check the path") from error


def _header(path: Path, content: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON header and the bytes after it."""
    if content[:1] == b"\x80" or content[:2] == b"PK":  # pickle, torch's zip of pickles
        raise _refused(path, "it is a pickle, which could run code when opened")
    if len(content) < 8:
        raise _refused(path, f"it has {len(content)} bytes, too few for a header")
    size = int.from_bytes(content[:8], "little")
    if size > HEADER_LIMIT:
        raise _refused(path, f"its header claims {size:,} bytes, more than {HEADER_LIMIT:,}")
    if 8 + size > len(content):
        raise _refused(path, f"it is truncated: its header claims {size} bytes, {len(content) - 8} follow")
    try:
        header = json.loads(content[8 : 8 + size], object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _refused(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _refused(path, "its header is not a JSON object")
    return header, content[8 + size :]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys appear once: two readers must not see two files in one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _entries(path: Path, header: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    if set(header) != {"__metadata__", "prefix"}:
        raise _refused(path, f"its header names {sorted(header)[:4]}, expected '__metadata__' and 'prefix'")
    fields, entry = header["__metadata__"], header["prefix"]
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        raise _refused(path, f"its metadata must have exactly {sorted(_FIELDS)}")
    if not all(isinstance(value, str) for value in fields.values()):
        raise _refused(path, "its metadata must be strings")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _refused(path, "its tensor entry must have dtype, shape and data_offsets")
    return entry, fields


def _tensor(path: Path, entry: dict[str, Any], size: int) -> tuple[torch.dtype, int]:
    """Checked dtype and number of values."""
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _refused(path, f"its dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) != 1 or type(shape[0]) is not int or shape[0] < 1:
        raise _refused(path, f"its shape is {shape!r}, expected one dimension")
    count: int = shape[0]
    if entry["data_offsets"] != [0, size] or count * _DTYPES[dtype].itemsize != size:
        raise _refused(path, f"it is truncated or padded: {count} {dtype} values, {size} bytes of data")
    return _DTYPES[dtype], count


def _layout(path: Path, fields: dict[str, str]) -> Layout:
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
        raise _refused(path, "its list of layers cannot be read") from error
    layout = Layout(tuple(slots))
    if not slots or layout.digest != fields["layout"]:
        raise _refused(path, "its list of layers does not match the digest beside it")
    return layout
