"""The steps of opening a record by user key or grant, numbered as in `docs/reference/record-format.md`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from antefix.crypto.aead import SecretBytes, UserKeyProtocol, decrypt
from antefix.errors import RecordMismatch, RecordRefused
from antefix.records.header import (
    BODY_LIMIT,
    BODY_OFFSET,
    BUCKET,
    MAGIC,
    RECORD_LIMIT,
    SUITE,
    Address,
    ParsedRecord,
    RecordVersion,
    signed,
)


@dataclass(frozen=True)
class Expected:
    """What a device remembers; older or other records are refused.

    Attributes:
        min_version: least version that is accepted.
        digest: of the record with exactly `min_version`, if known.
        previous: digest of the version before the record, if known.
    """

    min_version: int = 1
    digest: bytes | None = None
    previous: bytes | None = None


def parse_record(record: bytes, whole: bool = True) -> ParsedRecord:
    if not BODY_OFFSET <= len(record) <= RECORD_LIMIT:  # 1
        _differs("size", f"{len(record):,} bytes", f"{BODY_OFFSET:,} to {RECORD_LIMIT:,}")
    parts = ParsedRecord.of(bytes(record))
    if (parts.core.magic, parts.core.suite) != (MAGIC, SUITE):  # 2
        _differs("format", f"{parts.core.magic.hex()} {parts.core.suite}", f"{MAGIC.hex()} {SUITE}")
    if parts.core.body_bytes > BODY_LIMIT:  # 1, of a record that comes piece by piece
        _differs("body", f"{parts.core.body_bytes:,} bytes", f"{BODY_LIMIT:,} at most")
    if whole and parts.core.body_bytes != len(parts.body):  # 3
        _differs("body", f"{len(parts.body):,} bytes", f"{parts.core.body_bytes:,} as its header says")
    return parts


def check_public_fields(
    record: bytes, address: Address, known: Expected
) -> tuple[ParsedRecord, RecordVersion]:
    """Steps 1 to 6: public fields, before any key is used."""
    parts = parse_record(record)
    core = parts.core
    for name in ("tenant", "user", "prefix", "base", "shape"):  # 4
        if getattr(core, name) != getattr(address, name):
            _differs(name, getattr(core, name).hex(), getattr(address, name).hex())
    if core.version < known.min_version:  # 5
        _differs("version", str(core.version), f"{known.min_version} or later")
    if known.digest is not None and core.version == known.min_version and parts.digest != known.digest:  # 6
        _differs("digest", parts.digest.hex(), known.digest.hex())
    if known.previous is not None and core.previous != known.previous:
        _differs("previous digest", core.previous.hex(), known.previous.hex())
    return parts, RecordVersion(address, core.version, core.previous)


def require_epoch(parts: ParsedRecord, epoch: int) -> None:
    """Step 7, of who has the user key."""
    if parts.wrap.epoch != epoch:  # 7
        _differs("epoch", str(parts.wrap.epoch), str(epoch))


def verify(parts: ParsedRecord, writers: Mapping[bytes, Ed25519PublicKey]) -> None:
    """Steps 7, the writer, and 8."""
    if parts.wrap.writer not in writers:  # 7
        _differs("writer", parts.wrap.writer.hex(), f"one of {len(writers)} devices")
    writer = writers[parts.wrap.writer]
    try:
        writer.verify(parts.signature, signed(parts.header, parts.body_hash))  # 8
    except InvalidSignature:
        raise RecordRefused() from None


def data_key_of(parts: ParsedRecord, edition: RecordVersion, key: UserKeyProtocol) -> SecretBytes:
    """Step 9; the field has room for 32 bytes alone, for other sizes allow guessing by parts (age's rule)."""
    context = edition.context(b"data key", key.epoch.to_bytes(4, "big"))
    data_key = decrypt(key.secret.data, context, parts.wrap.wrapped)
    if data_key is None:
        raise RecordRefused()
    return data_key


def decrypt_body(
    parts: ParsedRecord, edition: RecordVersion, data_key: SecretBytes
) -> tuple[SecretBytes, int]:
    """Steps 10 and 11: the padded content, and the size of the payload in it."""
    content = decrypt(data_key.data, edition.context(b"body"), parts.body)
    if content is None:
        raise RecordRefused()
    size = int.from_bytes(content.data[:4], "big")
    rest = len(content.data) - 4 - size
    if not 0 <= rest < BUCKET or any(content.data[4 + size :]):  # 11
        content.wipe()
        raise RecordRefused()
    return content, size


def _differs(what: str, theirs: str, ours: str) -> NoReturn:
    raise RecordMismatch(
        f"{what} of the record is {theirs}, expected {ours}", "ask for the record of this place and version"
    )
