"""The bytes of a record: fixed fields, and what is computed over them (docs/reference/record-format.md)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple, Self

from antefix.errors import InvalidArgument

MAGIC, SUITE = b"ANTEFIX\x01", 1
SIGNATURE_BYTES = 64
BODY_LIMIT = 64 * 2**20
BUCKET = 4096
_ID, _DIGEST, _WRAPPED = 16, 32, 104
_CORE = struct.Struct(f">8sH{_ID}s{_ID}s{_ID}sQ{_DIGEST}s{_DIGEST}s{_DIGEST}sI")
_WRAP = struct.Struct(f">I{_ID}s{_WRAPPED}s")
_PLACE = struct.Struct(f">H{_ID}s{_ID}s{_ID}sQ{_DIGEST}s{_DIGEST}s{_DIGEST}s")
HEADER_BYTES = _CORE.size + _WRAP.size
BODY_OFFSET = HEADER_BYTES + SIGNATURE_BYTES
RECORD_LIMIT = BODY_OFFSET + BODY_LIMIT
_STORED = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
NO_PREVIOUS = bytes(_DIGEST)
"""`previous` of version 1."""


@dataclass(frozen=True)
class Address:
    """The one place where a record opens. Ids are random; no name, no mail address.

    Attributes:
        tenant: 16 bytes: whose server.
        user: 16 bytes.
        prefix: 16 bytes: which of the user's prefixes.
        base: 32 bytes: `bytes.fromhex(base.fingerprint)`.
        shape: 32 bytes: from `shape_of`.
    """

    tenant: bytes
    user: bytes
    prefix: bytes
    base: bytes
    shape: bytes

    def __post_init__(self) -> None:
        """Refuse ids of another size.

        Raises:
            InvalidArgument: which one, and both sizes.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            size = _DIGEST if field.name in ("base", "shape") else _ID
            if not isinstance(value, bytes) or len(value) != size:
                had = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
                raise InvalidArgument(f"{field.name} of an address is {had}, expected {size} bytes")


class CoreHeader(NamedTuple):
    """Fields that a new user key leaves alone."""

    magic: bytes
    suite: int
    tenant: bytes
    user: bytes
    prefix: bytes
    version: int
    base: bytes
    shape: bytes
    previous: bytes
    body_bytes: int


class KeyEnvelope(NamedTuple):
    """Fields that change with the user key."""

    epoch: int
    writer: bytes
    wrapped: bytes


@dataclass(frozen=True)
class ParsedRecord:
    """A record taken apart; nothing in it is checked."""

    core: CoreHeader
    wrap: KeyEnvelope
    header: bytes
    signature: bytes
    body: memoryview

    @classmethod
    def of(cls, record: bytes) -> Self:
        """Take apart a record of at least `BODY_OFFSET` bytes."""
        view = memoryview(record)
        core, wrap = CoreHeader(*_CORE.unpack_from(view)), KeyEnvelope(*_WRAP.unpack_from(view, _CORE.size))
        return cls(core, wrap, record[:HEADER_BYTES], record[HEADER_BYTES:BODY_OFFSET], view[BODY_OFFSET:])

    @cached_property
    def body_hash(self) -> bytes:
        """SHA-256 of the body."""
        return hashlib.sha256(self.body).digest()

    @property
    def digest(self) -> bytes:
        """What a device remembers of a record, and the next one names as `previous`."""
        return self.digest_with(self.body_hash)

    def digest_with(self, body_hash: bytes) -> bytes:
        """The same, where the body is elsewhere."""
        return _hash(b"record", self.header[: _CORE.size] + body_hash)


@dataclass(frozen=True)
class RecordVersion:
    """One version at one address, as its owner expects it: what encryption is bound to."""

    address: Address
    version: int
    previous: bytes

    def context(self, label: bytes, extra: bytes = b"") -> bytes:
        """The context of the body or of the wrapped data key."""
        at = self.address
        place = (SUITE, at.tenant, at.user, at.prefix, self.version, at.base, at.shape, self.previous)
        return b"antefix/v1/" + label + b"\0" + _PLACE.pack(*place) + extra

    def core(self, body_bytes: int) -> bytes:
        """The first bytes of the header."""
        at = self.address
        place = (at.tenant, at.user, at.prefix, self.version, at.base, at.shape, self.previous)
        return _CORE.pack(MAGIC, SUITE, *place, body_bytes)


def header_of(core: bytes, wrap: KeyEnvelope) -> bytes:
    """The whole header."""
    return core + _WRAP.pack(*wrap)


def signed(header: bytes, body_hash: bytes) -> bytes:
    """What the signature is over."""
    return b"antefix/v1/signature\0" + header + body_hash


def shape_of(layout_digest: str, length: int, dtype: str) -> bytes:
    """Shape of a prefix: its base's `layout.digest`, positions, and stored type `fp32`, `fp16` or `bf16`.

    Raises:
        InvalidArgument: unknown dtype.
    """
    stored = _STORED.get(dtype, dtype)
    if stored not in _STORED.values():
        raise InvalidArgument(f"dtype is {dtype!r}", f"use one of {', '.join(_STORED)}")
    return _hash(b"shape", f"{stored}\n{length}\n{layout_digest}".encode())


def _hash(label: bytes, data: bytes) -> bytes:
    return hashlib.sha256(b"antefix/v1/" + label + b"\0" + data).digest()
