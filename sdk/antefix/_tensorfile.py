"""Reads a safetensors file with one tensor in it as if an attacker had written it.

Order of the checks: size, header length, JSON, exact names, dtype, shape, byte range, and only then the
numbers, which must be finite. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HEADER_LIMIT = 64 * 1024
FILE_LIMIT = 2 * 1024**3
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Unreadable(Exception):
    """What is wrong with a file, to be told to the user by who knows what it should have been."""


def read_tensor(path: Path, name: str, dimensions: int) -> tuple[Tensor, dict[str, str]]:
    """The finite tensor `name`, fp32, which must be the only one of the file, and the file's metadata.

    Raises:
        Unreadable: anything unexpected; the message names the first difference.
    """
    header, body = _parts(_content(path, FILE_LIMIT))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Unreadable("its metadata is not a JSON object of strings")
    if set(header) != {name}:
        raise Unreadable(f"it holds the tensors {sorted(header)[:4]}, expected {name!r} alone")
    values = _values(header[name], dimensions, body)
    if not torch.isfinite(values).all():
        raise Unreadable("it holds NaN or infinite values")
    return values, metadata


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a small file, whose keys each appear once.

    Raises:
        Unreadable: no such file, too large, or not a JSON object.
    """
    return _object(_content(path, HEADER_LIMIT), "it")


def _content(path: Path, limit: int) -> bytes:
    """The whole file, unless it is larger than `limit` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise Unreadable(f"it cannot be read ({error.strerror})") from error
    if len(content) > limit:
        raise Unreadable(f"it has more than {limit:,} bytes")
    return content


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON header and the bytes after it."""
    if content[:1] == b"\x80" or content[:2] == b"PK":  # pickle, torch's zip of pickles
        raise Unreadable("it is a pickle, which could run code when opened")
    if len(content) < 8:
        raise Unreadable(f"it has {len(content)} bytes, too few for a header")
    size = int.from_bytes(content[:8], "little")
    if size > HEADER_LIMIT:
        raise Unreadable(f"its header claims {size:,} bytes, more than {HEADER_LIMIT:,}")
    if 8 + size > len(content):
        raise Unreadable(f"it is truncated: its header claims {size} bytes, {len(content) - 8} follow")
    return _object(content[8 : 8 + size], "its header"), content[8 + size :]


def _values(entry: Any, dimensions: int, body: bytes) -> Tensor:
    """The tensor that a header entry describes, fp32."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Unreadable("its tensor entry must have dtype, shape and data_offsets")
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise Unreadable(f"its dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}")
    sizes = shape if isinstance(shape, list) else []
    if len(sizes) != dimensions or not all(type(n) is int and n > 0 for n in sizes):
        raise Unreadable(f"its shape is {shape!r}, expected {dimensions} dimension{'s' * (dimensions > 1)}")
    count = math.prod(sizes)
    if entry["data_offsets"] != [0, len(body)] or count * _DTYPES[dtype].itemsize != len(body):
        raise Unreadable(f"it is truncated or padded: {count} {dtype} values, {len(body)} bytes of data")
    return torch.frombuffer(bytearray(body), dtype=_DTYPES[dtype]).float().view(sizes)


def _object(content: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(content, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{what} is not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable(f"{what} is not a JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys appear once: two readers must not see two files in one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found
