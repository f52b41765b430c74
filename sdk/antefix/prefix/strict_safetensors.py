"""Reads a safetensors file with one tensor in it as if an attacker had written it.

Order of the checks: size, header length, JSON, exact names, dtype, shape, byte range, and only then the
numbers, which must be finite. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HEADER_LIMIT = 64 * 1024
FILE_LIMIT = 2 * 1024**3
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Unreadable(Exception):
    """What is wrong with a file, to be told to the user by who knows what it should have been."""


@dataclass(frozen=True)
class OneTensor:
    """What a file holds.

    Attributes:
        values: fp32, finite.
        dtype: as stored: `F32`, `F16` or `BF16`.
        metadata: names and texts.
    """

    values: Tensor
    dtype: str
    metadata: dict[str, str]


def read_tensor(content: bytes | bytearray | memoryview, name: str, dimensions: int) -> OneTensor:
    """The tensor `name`, which must be the only one of a file with that content.

    Raises:
        Unreadable: anything unexpected; the message names the first difference.
    """
    header, body = _parts(memoryview(content))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Unreadable("its metadata is not a JSON object of strings")
    if set(header) != {name}:
        raise Unreadable(f"it holds the tensors {sorted(header)[:4]}, expected {name!r} alone")
    values = _values(header[name], dimensions, body)
    # A sum is finite only if every value is; one that overflowed tells nothing.
    if not torch.isfinite(values.sum()) and not torch.isfinite(values).all():
        raise Unreadable("it holds NaN or infinite values")
    return OneTensor(values, header[name]["dtype"], metadata)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a small file, whose keys each appear once.

    Raises:
        Unreadable: no such file, too large, or not a JSON object.
    """
    return _object(content_of(path, HEADER_LIMIT), "it")


def content_of(path: Path, limit: int = FILE_LIMIT) -> bytes:
    """The whole file.

    Raises:
        Unreadable: no such file, or larger than `limit` bytes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise Unreadable(f"it cannot be read ({error.strerror})") from error
    if len(content) > limit:
        raise Unreadable(f"it has more than {limit:,} bytes")
    return content


def _parts(content: memoryview) -> tuple[dict[str, Any], memoryview]:
    """The JSON header and the bytes after it."""
    if bytes(content[:1]) == b"\x80" or bytes(content[:2]) == b"PK":  # pickle, torch's zip of pickles
        raise Unreadable("it is a pickle, which could run code when opened")
    if len(content) < 8:
        raise Unreadable(f"it has {len(content)} bytes, too few for a header")
    size = int.from_bytes(content[:8], "little")
    if size > HEADER_LIMIT:
        raise Unreadable(f"its header claims {size:,} bytes, more than {HEADER_LIMIT:,}")
    if 8 + size > len(content):
        raise Unreadable(f"it is truncated: its header claims {size} bytes, {len(content) - 8} follow")
    return _object(bytes(content[8 : 8 + size]), "its header"), content[8 + size :]


def _values(entry: Any, dimensions: int, body: memoryview) -> Tensor:
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
        header = json.loads(content, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{what} is not JSON") from error
    if not isinstance(header, dict):
        raise Unreadable(f"{what} is not a JSON object")
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys appear once: two readers must not see two files in one."""
    header = dict(pairs)
    if len(header) != len(pairs):
        raise ValueError("a key appears twice")
    return header


def ordered(content: bytes) -> bytes:
    """The same file with a sorted header: the library writes it in an order that chance gives.

    So equal prefixes have equal files, and equal digests.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]
