"""Sealed records: one version of one user's private prefix, encrypted, signed, bound to its place.

The format, and why each field is there: `docs/format.md`. Nothing here trusts a record: what it should be
comes from the caller, is compared first, and is what the decryption is bound to.

    record = seal(prefix.to_bytes(), Edition(address, version=1, previous=FIRST), key=user_key, device=device)
    with open_record(record, address, key=user_key, writers=devices.writers) as opened:
        prefix = opened.prefix()
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from antefix._record import (
    BODY_AT,
    BODY_LIMIT,
    BUCKET,
    FIRST,
    MAGIC,
    SUITE,
    Address,
    Edition,
    Parts,
    Wrap,
    header_of,
    shape_of,
    signed,
)
from antefix._sealing import KEY_BYTES, Sealer, Secret, Signer, decrypt, encrypt, sealed_size
from antefix.errors import InvalidArgument, RecordMismatch, RecordRefused

if TYPE_CHECKING:
    from antefix._prefix import Prefix

__all__ = [  # noqa: RUF022 (plain order)
    "Address",
    "Cover",
    "Edition",
    "FIRST",
    "Known",
    "OpenedRecord",
    "cover_of",
    "digest_of",
    "open_record",
    "rewrap",
    "seal",
    "shape_of",
]


@dataclass(frozen=True)
class Known:
    """What a device remembers; older or other records are refused.

    Attributes:
        min_version: least version that is accepted.
        digest: of the record with exactly `min_version`, if known.
        previous: digest of the version before the record, if known.
    """

    min_version: int = 1
    digest: bytes | None = None
    previous: bytes | None = None


@dataclass(frozen=True)
class Cover:
    """What anyone can read on a record, as a server that stores it; nothing of it is verified.

    Attributes:
        edition: address, version and digest of the version before.
        epoch: of the user key.
        writer: id of the device that signed.
        size: of the whole record, in bytes.
        digest: of the record, 32 bytes.
    """

    edition: Edition
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

    def __init__(self, edition: Edition, digest: bytes, writer: bytes, content: Secret, size: int) -> None:
        """Use `open_record`."""
        self.edition, self.digest, self.writer = edition, digest, writer
        self._content, self._size = content, size

    @property
    def payload(self) -> memoryview:
        """What was sealed; a view of memory that is zeroed in the end."""
        return memoryview(self._content.data)[4 : 4 + self._size]

    def prefix(self) -> Prefix:
        """The payload as a prefix, checked like any foreign file (step 12).

        Raises:
            RecordRefused: it is none, or of another base or shape than the address says.
        """
        from antefix._prefix import Prefix

        return Prefix.from_record(self.payload, self.edition.address.base, self.edition.address.shape)

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


def seal(payload: bytes, edition: Edition, *, key: Sealer, device: Signer) -> bytes:
    """Encrypt and sign one version.

    Args:
        payload: `prefix.to_bytes()`. Private.
        edition: where it belongs, its version, and the digest of the version before.
        key: the user key.
        device: who writes.

    Raises:
        InvalidArgument: too large, or version and previous digest do not go together.
    """
    if not 1 <= edition.version < 2**64 or (edition.version == 1) != (edition.previous == FIRST):
        raise InvalidArgument(
            f"version {edition.version} with {'no' if edition.previous == FIRST else 'a'} version before it",
            "the first version is 1 and has previous=FIRST; each later one names the digest before",
        )
    padded_bytes = -(-(4 + len(payload)) // BUCKET) * BUCKET
    if sealed_size(padded_bytes) > BODY_LIMIT:
        raise InvalidArgument(f"a payload of {len(payload):,} bytes makes a body above {BODY_LIMIT:,}")
    with Secret(bytearray(padded_bytes)) as padded:
        padded.data[:4] = len(payload).to_bytes(4, "big")
        padded.data[4 : 4 + len(payload)] = payload
        with Secret.random(KEY_BYTES) as data_key:
            body = encrypt(data_key.data, edition.context(b"body"), padded.data)
            wrap = _wrapped(data_key, edition, key, device)
    return _put_together(edition.core(len(body)), wrap, body, device)


def open_record(
    record: bytes,
    address: Address,
    *,
    key: Sealer,
    writers: Mapping[bytes, Ed25519PublicKey],
    known: Known | None = None,
) -> OpenedRecord:
    """Open a record that must be the one the caller expects.

    The steps are numbered as in `docs/format.md`.

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
    parts, edition = _compared(record, address, key, writers, known or Known())
    _verify(parts, writers[parts.wrap.writer])
    with _data_key(parts, edition, key) as data_key:
        content = _content(parts, edition, data_key)
    size = int.from_bytes(content.data[:4], "big")
    rest = len(content.data) - 4 - size
    if not 0 <= rest < BUCKET or any(content.data[4 + size :]):  # 11
        content.wipe()
        raise RecordRefused()
    return OpenedRecord(edition, parts.digest, parts.wrap.writer, content, size)


def rewrap(
    record: bytes,
    address: Address,
    *,
    old: Sealer,
    new: Sealer,
    device: Signer,
    writers: Mapping[bytes, Ed25519PublicKey],
) -> bytes:
    """The same record under a new user key: body and digest stay, `device` signs anew.

    Raises:
        RecordMismatch, RecordRefused: as `open_record`.
    """
    parts, edition = _compared(record, address, old, writers, Known())
    _verify(parts, writers[parts.wrap.writer])
    with _data_key(parts, edition, old) as data_key:
        _content(parts, edition, data_key).wipe()  # no device signs what does not open
        wrap = _wrapped(data_key, edition, new, device)
    return _put_together(edition.core(parts.core.body_bytes), wrap, bytes(parts.body), device)


def cover_of(start: bytes, body_hash: bytes | None = None) -> Cover:
    """Read the public fields of a record (steps 1 to 3).

    Args:
        start: the whole record; or its first 354 bytes, where `body_hash` is SHA-256 of the rest and the
            caller compares `size`, having read the record piece by piece.

    Raises:
        RecordMismatch: not a record.
    """
    parts = _taken_apart(start, whole=body_hash is None)
    core = parts.core
    address = Address(core.tenant, core.user, core.prefix, core.base, core.shape)
    digest = parts.digest if body_hash is None else parts.digest_with(body_hash)
    edition = Edition(address, core.version, core.previous)
    return Cover(edition, parts.wrap.epoch, parts.wrap.writer, BODY_AT + core.body_bytes, digest)


def digest_of(record: bytes) -> bytes:
    """Digest by which a record is remembered. It says nothing about who wrote it.

    Raises:
        RecordMismatch: not a record.
    """
    return _taken_apart(record).digest


def _taken_apart(record: bytes, whole: bool = True) -> Parts:
    if not BODY_AT <= len(record) <= BODY_AT + BODY_LIMIT:  # 1
        _differs("size", f"{len(record):,} bytes", f"{BODY_AT:,} to {BODY_AT + BODY_LIMIT:,}")
    parts = Parts.of(bytes(record))
    if (parts.core.magic, parts.core.suite) != (MAGIC, SUITE):  # 2
        _differs("format", f"{parts.core.magic.hex()} {parts.core.suite}", f"{MAGIC.hex()} {SUITE}")
    if parts.core.body_bytes > BODY_LIMIT:  # 1, of a record that comes piece by piece
        _differs("body", f"{parts.core.body_bytes:,} bytes", f"{BODY_LIMIT:,} at most")
    if whole and parts.core.body_bytes != len(parts.body):  # 3
        _differs("body", f"{len(parts.body):,} bytes", f"{parts.core.body_bytes:,} as its header says")
    return parts


def _compared(
    record: bytes, address: Address, key: Sealer, writers: Mapping[bytes, object], known: Known
) -> tuple[Parts, Edition]:
    """Steps 1 to 7: public fields, before any key is used."""
    parts = _taken_apart(record)
    core, wrap = parts.core, parts.wrap
    for name in ("tenant", "user", "prefix", "base", "shape"):  # 4
        if getattr(core, name) != getattr(address, name):
            _differs(name, getattr(core, name).hex(), getattr(address, name).hex())
    if core.version < known.min_version:  # 5
        _differs("version", str(core.version), f"{known.min_version} or later")
    if known.digest is not None and core.version == known.min_version and parts.digest != known.digest:  # 6
        _differs("digest", parts.digest.hex(), known.digest.hex())
    if known.previous is not None and core.previous != known.previous:
        _differs("previous digest", core.previous.hex(), known.previous.hex())
    if wrap.epoch != key.epoch:  # 7
        _differs("epoch", str(wrap.epoch), str(key.epoch))
    if wrap.writer not in writers:
        _differs("writer", wrap.writer.hex(), f"one of {len(writers)} devices")
    return parts, Edition(address, core.version, core.previous)


def _verify(parts: Parts, writer: Ed25519PublicKey) -> None:
    """Step 8."""
    try:
        writer.verify(parts.signature, signed(parts.header, parts.body_hash))  # 8
    except InvalidSignature:
        raise RecordRefused() from None


def _data_key(parts: Parts, edition: Edition, key: Sealer) -> Secret:
    """Step 9; the field has room for 32 bytes alone, for other sizes allow guessing by parts (age's rule)."""
    context = edition.context(b"data key", key.epoch.to_bytes(4, "big"))
    data_key = decrypt(key.secret.data, context, parts.wrap.wrapped)
    if data_key is None:
        raise RecordRefused()
    return data_key


def _content(parts: Parts, edition: Edition, data_key: Secret) -> Secret:
    """Step 10."""
    content = decrypt(data_key.data, edition.context(b"body"), parts.body)
    if content is None:
        raise RecordRefused()
    return content


def _wrapped(data_key: Secret, edition: Edition, key: Sealer, device: Signer) -> Wrap:
    context = edition.context(b"data key", key.epoch.to_bytes(4, "big"))
    return Wrap(key.epoch, device.id, encrypt(key.secret.data, context, data_key.data))


def _put_together(core: bytes, wrap: Wrap, body: bytes, device: Signer) -> bytes:
    header = header_of(core, wrap)
    return header + device.sign(signed(header, hashlib.sha256(body).digest())) + body


def _differs(what: str, theirs: str, ours: str) -> NoReturn:
    raise RecordMismatch(
        f"{what} of the record is {theirs}, expected {ours}", "ask for the record of this place and version"
    )
