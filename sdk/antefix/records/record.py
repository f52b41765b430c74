"""Sealing, opening and rewrapping records; the package says what a record is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from antefix.crypto.aead import KEY_BYTES, DeviceSigner, SecretBytes, UserKeyProtocol, encrypt, sealed_size
from antefix.errors import InvalidArgument, RecordRefused
from antefix.records.header import (
    BODY_LIMIT,
    BODY_OFFSET,
    BUCKET,
    NO_PREVIOUS,
    Address,
    KeyEnvelope,
    RecordVersion,
    header_of,
    shape_of,
    signed,
)
from antefix.records.verification import (
    Expected,
    check_public_fields,
    data_key_of,
    decrypt_body,
    parse_record,
    require_epoch,
    verify,
)

if TYPE_CHECKING:
    from antefix.prefix.prefix import Prefix

__all__ = [  # noqa: RUF022 (plain order)
    "Address",
    "RecordHeader",
    "RecordVersion",
    "NO_PREVIOUS",
    "Expected",
    "OpenedRecord",
    "read_header",
    "digest_of",
    "open_record",
    "rewrap",
    "seal",
    "shape_of",
]


@dataclass(frozen=True)
class RecordHeader:
    """What anyone can read on a record, as a server that stores it; nothing of it is verified.

    Attributes:
        edition: address, version and digest of the version before.
        epoch: of the user key.
        writer: id of the device that signed.
        size: of the whole record, in bytes.
        digest: of the record, 32 bytes.
    """

    SIZE: ClassVar[int] = BODY_OFFSET
    """Bytes before the body."""

    edition: RecordVersion
    epoch: int
    writer: bytes
    size: int
    digest: bytes


class OpenedRecord:
    """A record's content. Private. Use it in a `with` block, which wipes it.

    Attributes:
        edition: address, version and digest of the version before: assert it again where it is applied.
        digest: of this record, 32 bytes.
        writer: id of the device that wrote it.
    """

    def __init__(
        self,
        edition: RecordVersion,
        digest: bytes,
        writer: bytes,
        content: SecretBytes,
        size: int,
        start: int = 4,
    ) -> None:
        """Use `open_record`."""
        self.edition, self.digest, self.writer = edition, digest, writer
        self._content, self._start, self._size = content, start, size

    @property
    def payload(self) -> memoryview:
        """What was sealed; a view of memory that is zeroed in the end."""
        return memoryview(self._content.data)[self._start : self._start + self._size]

    def prefix(self) -> Prefix:
        """The payload as a prefix, checked like any foreign file (step 12).

        Raises:
            RecordRefused: it is none, or of another base or shape than the address says.
        """
        from antefix.prefix.prefix import FORMAT, Prefix
        from antefix.prefix.prefix_file import parse
        from antefix.prefix.strict_safetensors import Unreadable

        address = self.edition.address
        try:
            stored = parse(self.payload, FORMAT)
        except Unreadable:
            raise RecordRefused() from None
        prefix = Prefix(stored.values, stored.layout, stored.base_fingerprint)
        if bytes.fromhex(stored.base_fingerprint) != address.base:
            raise RecordRefused()
        if shape_of(stored.layout.digest, prefix.length, stored.dtype) != address.shape:
            raise RecordRefused()
        return prefix

    def wipe(self) -> None:
        """Zero the content."""
        self._content.wipe()
        self._size = 0

    def __enter__(self) -> Self:
        """The record itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wipe it."""
        self.wipe()

    def __repr__(self) -> str:
        """Version and size, never a byte of the content."""
        return f"OpenedRecord(version={self.edition.version}, {self._size} bytes)"


def seal(payload: bytes, edition: RecordVersion, *, key: UserKeyProtocol, device: DeviceSigner) -> bytes:
    """Encrypt and sign one version.

    Args:
        payload: `prefix.to_bytes()`. Private.
        edition: where it belongs, its version, and the digest of the version before.
        key: the user key.
        device: who writes.

    Raises:
        InvalidArgument: too large, or version and previous digest do not go together.
    """
    first = edition.previous == NO_PREVIOUS
    if not 1 <= edition.version < 2**64 or (edition.version == 1) != first:
        raise InvalidArgument(
            f"version {edition.version} with {'no' if first else 'a'} version before it",
            "the first version is 1 and has previous=NO_PREVIOUS; each later one names the digest before",
        )
    padded_bytes = -(-(4 + len(payload)) // BUCKET) * BUCKET
    if sealed_size(padded_bytes) > BODY_LIMIT:
        raise InvalidArgument(f"a payload of {len(payload):,} bytes makes a body above {BODY_LIMIT:,}")
    with SecretBytes(bytearray(padded_bytes)) as padded:
        padded.data[:4] = len(payload).to_bytes(4, "big")
        padded.data[4 : 4 + len(payload)] = payload
        with SecretBytes.random(KEY_BYTES) as data_key:
            body = encrypt(data_key.data, edition.context(b"body"), padded.data)
            wrap = _wrapped(data_key, edition, key, device)
    return _put_together(edition.core(len(body)), wrap, body, device)


def open_record(
    record: bytes,
    address: Address,
    *,
    key: UserKeyProtocol,
    writers: Mapping[bytes, Ed25519PublicKey],
    known: Expected | None = None,
) -> OpenedRecord:
    """Open a record that must be the one the caller expects.

    The steps are numbered as in `docs/reference/record-format.md`.

    Args:
        record: bytes from anywhere.
        address: where the caller is about to use it.
        key: the user key.
        writers: public keys of the user's devices by id, from a verified device list.
        known: what the caller remembers.

    Raises:
        RecordMismatch: a public field is not the expected one; shows both. No key was used.
        RecordRefused: everything after that, with one message.
    """
    parts, edition = check_public_fields(record, address, known or Expected())
    require_epoch(parts, key.epoch)
    verify(parts, writers)
    with data_key_of(parts, edition, key) as data_key:
        content, size = decrypt_body(parts, edition, data_key)
    return OpenedRecord(edition, parts.digest, parts.wrap.writer, content, size)


def rewrap(
    record: bytes,
    address: Address,
    *,
    old: UserKeyProtocol,
    new: UserKeyProtocol,
    device: DeviceSigner,
    writers: Mapping[bytes, Ed25519PublicKey],
) -> bytes:
    """The same record under a new user key: body and digest stay, `device` signs anew.

    Raises:
        RecordMismatch, RecordRefused: as `open_record`.
    """
    parts, edition = check_public_fields(record, address, Expected())
    require_epoch(parts, old.epoch)
    verify(parts, writers)
    with data_key_of(parts, edition, old) as data_key:
        decrypt_body(parts, edition, data_key)[0].wipe()  # no device signs what does not open
        wrap = _wrapped(data_key, edition, new, device)
    return _put_together(edition.core(parts.core.body_bytes), wrap, bytes(parts.body), device)


def read_header(start: bytes, body_hash: bytes | None = None) -> RecordHeader:
    """Read the public fields of a record (steps 1 to 3).

    Args:
        start: the whole record; or its first `RecordHeader.SIZE` bytes, of a record that is read piece by
            piece: the caller compares `size`.
        body_hash: SHA-256 of the rest, where `start` is not the whole.

    Raises:
        RecordMismatch: not a record.
    """
    parts = parse_record(start, whole=body_hash is None)
    core = parts.core
    address = Address(core.tenant, core.user, core.prefix, core.base, core.shape)
    digest = parts.digest if body_hash is None else parts.digest_with(body_hash)
    edition = RecordVersion(address, core.version, core.previous)
    return RecordHeader(edition, parts.wrap.epoch, parts.wrap.writer, BODY_OFFSET + core.body_bytes, digest)


def digest_of(record: bytes) -> bytes:
    """Digest by which a record is remembered. It says nothing about who wrote it.

    Raises:
        RecordMismatch: not a record.
    """
    return parse_record(record).digest


def _wrapped(
    data_key: SecretBytes, edition: RecordVersion, key: UserKeyProtocol, device: DeviceSigner
) -> KeyEnvelope:
    context = edition.context(b"data key", key.epoch.to_bytes(4, "big"))
    return KeyEnvelope(key.epoch, device.id, encrypt(key.secret.data, context, data_key.data))


def _put_together(core: bytes, wrap: KeyEnvelope, body: bytes, device: DeviceSigner) -> bytes:
    header = header_of(core, wrap)
    return header + device.sign(signed(header, hashlib.sha256(body).digest())) + body
