"""Reads a safetensors file of another library, with one tensor in it, as if an attacker had written it.

Order of the checks: size, header length, JSON, exact names, dtype, shape, byte range, and only then the
numbers, which must be finite. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antefix.errors import PrefixFileRefused

HEADER_LIMIT = 64 * 1024
FILE_LIMIT = 2 * 1024**3
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_matrix(path: Path, name: str, hint: str) -> Tensor:
    """The finite matrix `name`, fp32, which must be the only tensor of the file.

    Args:
        path: the file.
        name: of the tensor.
        hint: the next step that an error recommends.

    Raises:
        PrefixFileRefused: anything unexpected; the message names the first difference.
    """
    try:
        return _matrix(_bytes(path, FILE_LIMIT), name)
    except _Unreadable as error:
        raise PrefixFileRefused(f"{path} cannot be used: {error}", hint) from error


def read_object(path: Path, hint: str) -> dict[str, Any]:
    """The JSON object in a small file whose keys each appear once.

    Raises:
        PrefixFileRefused: no such file, too large, or not a JSON object.
    """
    try:
        return _object(_bytes(path, HEADER_LIMIT), "it")
    except _Unreadable as error:
        raise PrefixFileRefused(f"{path} cannot be used: {error}", hint) from error


class _Unreadable(Exception):
    """What is wrong with a file; told to the user as PrefixFileRefused."""


def _bytes(path: Path, limit: int) -> bytes:
    """The whole file, unless it is larger than `limit` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise _Unreadable(f"it cannot be read ({error.strerror})") from error
    if len(content) > limit:
        raise _Unreadable(f"it has more than {limit:,} bytes")
    return content


def _matrix(content: bytes, name: str) -> Tensor:
    if content[:1] == b"\x80" or content[:2] == b"PK":  # pickle, torch's zip of pickles
        raise _Unreadable("it is a pickle, which could run code when opened")
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > HEADER_LIMIT:
        raise _Unreadable(f"its header claims {size:,} bytes, at most {HEADER_LIMIT:,} are read")
    if 8 + size > len(content):
        raise _Unreadable(f"it is truncated: its header claims {size} bytes, {len(content) - 8} follow")
    header = _object(content[8 : 8 + size], "its header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Unreadable("its metadata is not a JSON object of strings")
    if set(header) != {name}:
        raise _Unreadable(f"it holds the tensors {sorted(header)[:4]}, expected {name!r} alone")
    values = _values(header[name], content[8 + size :])
    if not torch.isfinite(values).all():
        raise _Unreadable("it holds NaN or infinite values")
    return values


def _values(entry: Any, body: bytes) -> Tensor:
    """The tensor that a header entry describes, fp32."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _Unreadable("its tensor entry must have dtype, shape and data_offsets")
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _Unreadable(f"its dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and n > 0 for n in shape):
        raise _Unreadable(f"its shape is {shape!r}, expected two dimensions")
    count = shape[0] * shape[1]
    if entry["data_offsets"] != [0, len(body)] or count * _DTYPES[dtype].itemsize != len(body):
        raise _Unreadable(f"it is truncated or padded: {count} {dtype} values, {len(body)} bytes of data")
    return torch.frombuffer(bytearray(body), dtype=_DTYPES[dtype]).float().view(shape)


def _object(content: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(content, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"{what} is not JSON") from error
    if not isinstance(found, dict):
        raise _Unreadable(f"{what} is not a JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys appear once: two readers must not see two files in one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found
