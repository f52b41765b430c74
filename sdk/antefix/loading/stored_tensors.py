"""A tensor as it is stored in a file, known by the digest of its bytes; no torch tensor is made."""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from antefix.errors import BaseDamaged

# The format's own limit; a longer header is an attempt to exhaust memory.
_HEADER_LIMIT_BYTES = 100_000_000
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, order=True)
class StoredTensor:
    """Name, dtype and shape as the file says, SHA-256 of the stored bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


class GgufContent(NamedTuple):
    """What a GGUF file says about a base."""

    tensors: list[StoredTensor]
    config: dict[str, object]
    tokenizer: dict[str, object]


def read_safetensors(path: Path) -> Iterator[StoredTensor]:
    """Yield the tensors of a safetensors file in the order of their bytes.

    Raises:
        BaseDamaged: not a safetensors file, cut off, or with bytes that belong to no tensor.
    """
    with path.open("rb") as file:
        header, start = _header(file, path)
        size = os.fstat(file.fileno()).st_size
        end = start
        for name, entry in sorted(header.items(), key=lambda item: item[1].offsets):
            # Overlaps and gaps would let two different files look alike.
            if entry.offsets[0] + start != end or entry.offsets[1] < entry.offsets[0]:
                raise _damaged(
                    path, f"tensor {name!r} is at {list(entry.offsets)}, expected at {end - start}"
                )
            end = start + entry.offsets[1]
            if end > size:
                raise _damaged(path, f"tensor {name!r} ends at byte {end:,}, the file at {size:,}")
            yield StoredTensor(name, entry.dtype, entry.shape, _digest(file, entry.offsets))
        if end != size:
            raise _damaged(path, f"its tensors end at byte {end:,}, the file at {size:,}")


def read_gguf(path: Path) -> GgufContent:
    """Read a GGUF file that is already known to be the pinned one."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = str(fields["general.architecture"])
    return GgufContent(
        tensors=[
            StoredTensor(
                tensor.name,
                tensor.tensor_type.name,
                tuple(int(n) for n in tensor.shape),
                hashlib.sha256(tensor.data.tobytes()).hexdigest(),
            )
            for tensor in reader.tensors
        ],
        config={"general.architecture": architecture, **_under(fields, f"{architecture}.")},
        tokenizer={
            name: value
            for name, value in _under(fields, "tokenizer.").items()
            if not name.startswith("tokenizer.chat_template")
        },
    )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, int]


def _header(file: BinaryIO, path: Path) -> tuple[dict[str, _Entry], int]:
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 0 < length <= _HEADER_LIMIT_BYTES:
        raise _damaged(path, f"its header has {length:,} bytes, allowed are 1 to {_HEADER_LIMIT_BYTES:,}")
    try:
        fields = json.loads(file.read(length))
        fields.pop("__metadata__", None)
        return {name: _entry(value) for name, value in fields.items()}, 8 + length
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(path, "its header is not that of a safetensors file") from error


def _entry(fields: Mapping[str, object]) -> _Entry:
    match fields:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)], **rest}:
            sizes = tuple(n for n in shape if type(n) is int and n >= 0)
            if not rest and len(sizes) == len(shape):
                return _Entry(dtype, sizes, (begin, end))
    raise ValueError("not a tensor's entry")


def _digest(file: BinaryIO, offsets: tuple[int, int]) -> str:
    """Hash the next bytes; the caller has checked that the ranges follow one another."""
    digest = hashlib.sha256()
    left = offsets[1] - offsets[0]
    while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def _under(fields: Mapping[str, object], prefix: str) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name.startswith(prefix)}


def _damaged(path: Path, reason: str) -> BaseDamaged:
    return BaseDamaged(
        f"{path} is damaged or no safetensors file: {reason}", "fetch or convert the base again"
    )
