"""Grants: a device lets its server use one record version for a time, and nothing else.

The device takes the data key of that version out of its record and seals it to the server's *epoch key*,
bound to terms that it signs. The server opens the record with it and never learns the user key: not for an
older or a later version, nor for writing one. When the epoch ends its key is destroyed, and a copy of the
grant is worth nothing any more.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey
from pydantic import Field

from antefix.common.deprecation import FormerAttribute
from antefix.crypto import hpke as hpke
from antefix.crypto.aead import KEY_BYTES, SecretBytes, UserKeyProtocol
from antefix.errors import GrantRefused, ReleaseRefused
from antefix.keys.device_keys import DeviceKeys, DevicePublic
from antefix.records.header import Address, ParsedRecord
from antefix.records.record import OpenedRecord
from antefix.records.verification import (
    Expected,
    check_public_fields,
    data_key_of,
    decrypt_body,
    require_epoch,
    verify,
)
from antefix.wire.signed import Digest, Id, Number, Signed, Size, Statement

_SEALED = 2 * (KEY_BYTES + hpke.OVERHEAD)  # hex digits
_ID, _SEED = 16, 32
_CLOCK_SKEW_S = 300  # by which those of a device and a server differ


class Epoch(Statement):
    """The key that grants are sealed to for some hours, signed with the server's release key.

    Attributes:
        tenant: id of the server's vault.
        id: 16 random bytes; never used twice.
        key: X-Wing, 1,216 bytes.
        until: seconds since 1970; the private key is destroyed then.
    """

    label: ClassVar[bytes] = b"antefix/v1/epoch\0"

    tenant: Id
    id: Id
    key: Annotated[str, Field(pattern="^[0-9a-f]{2432}$")]
    until: Size


class EpochKey:
    """Opens the grants of one epoch, until it is wiped. Private.

    Attributes:
        id: 16 bytes.
        until: seconds since 1970.
        public: 1,216 bytes.
    """

    def __init__(self, id: bytes, seed: SecretBytes, until: int) -> None:
        """Take a seed, 32 bytes, which stays the caller's to wipe."""
        private, self.public = hpke.private_key(seed.data)
        self._private: MLKEM768X25519PrivateKey | None = private
        self.id, self.until = id, until

    @classmethod
    def generate(cls, until: int) -> tuple[Self, SecretBytes]:
        """A fresh one, and the seed to keep it by."""
        seed = SecretBytes.random(_SEED)
        return cls(os.urandom(_ID), seed, until), seed

    def statement(self, tenant: bytes) -> Epoch:
        """For the server to sign."""
        return Epoch(tenant=tenant.hex(), id=self.id.hex(), key=self.public.hex(), until=self.until)

    def open(self, sealed: bytes, associated_data: bytes) -> SecretBytes:
        """The data key of a grant.

        Raises:
            GrantRefused: sealed to another key or under other terms, or damaged; or the key was wiped.
        """
        private = self._private
        if private is None:
            raise GrantRefused("its epoch is over")
        try:
            return SecretBytes.take(hpke.SUITE.decrypt(sealed, private, info=associated_data))
        except (InvalidTag, ValueError):
            raise GrantRefused("it does not open") from None

    def wipe(self) -> None:
        """Open nothing any more: the library overwrites the key once what is opening just now is done."""
        self._private = None

    def __repr__(self) -> str:
        """Its id, never a byte of it."""
        return f"EpochKey({self.id.hex()})"


class Grant(Statement):
    """What a device allows; signed with its key.

    Attributes:
        id: 16 random bytes.
        tenant, user, prefix, base, shape: where the record belongs.
        version: of the record.
        record: its digest.
        writer, writer_key: id and Ed25519 key of the device that wrote it.
        device: id of the device that grants.
        epoch: whose key `sealed` is for.
        purpose: what the server may do.
        since, until: seconds since 1970.
        sealed: the data key, HPKE with info = `associated_data`.
    """

    label: ClassVar[bytes] = b"antefix/v1/grant\0"

    id: Id
    tenant: Id
    user: Id
    prefix: Id
    base: Digest
    shape: Digest
    version: Number
    record: Digest
    writer: Id
    writer_key: Digest
    device: Id
    epoch: Id
    purpose: Literal["generate"] = "generate"
    since: Size
    until: Size
    sealed: Annotated[str, Field(pattern=f"^[0-9a-f]{{{_SEALED}}}$")]

    bound: ClassVar = FormerAttribute("associated_data")
    bound_of: ClassVar = FormerAttribute("associated_data_of")
    by: ClassVar = FormerAttribute("from_device")

    @property
    def associated_data(self) -> bytes:
        """What the sealed key is bound to: everything else in here."""
        return self.associated_data_of(self.model_dump(exclude={"sealed"}))

    @classmethod
    def associated_data_of(cls, terms: Mapping[str, object]) -> bytes:
        """The same, of terms that are not sealed yet."""
        return cls.label + json.dumps(terms, sort_keys=True, separators=(",", ":")).encode()

    @property
    def address(self) -> Address:
        """Where the record belongs."""
        ids = (self.tenant, self.user, self.prefix, self.base, self.shape)
        return Address(*map(bytes.fromhex, ids))

    @classmethod
    def from_device(cls, device: DevicePublic, signed: Signed) -> Self:
        """What a device signed (step 1).

        Raises:
            GrantRefused: somebody else did, or it is no grant.
        """
        try:
            grant = cls.verified(signed, device.signing_bytes)
        except ReleaseRefused:
            raise GrantRefused("it is not signed by the device that sends it") from None
        if grant.device != device.id.hex():
            raise GrantRefused(f"it is of device {grant.device}, expected {device.id.hex()}")
        return grant


def issue_grant(
    record: bytes,
    address: Address,
    *,
    key: UserKeyProtocol,
    writers: Mapping[bytes, Ed25519PublicKey],
    device: DeviceKeys,
    epoch: Epoch,
    seconds: int,
) -> Signed:
    """Let a server use a record for some time.

    Args:
        record: the version. It is opened here first: nobody grants what does not open.
        address: where it belongs.
        key: the user key.
        writers: public keys of the user's devices by id.
        device: who grants.
        epoch: of the server, verified with its release key.
        seconds: how long; cut to the end of the epoch.

    Raises:
        RecordMismatch, RecordRefused: as `open_record`.
        GrantRefused: the epoch is over, of another server, or its key is none.
    """
    now = int(time.time())
    if epoch.tenant != address.tenant.hex():
        raise GrantRefused(f"the epoch is of tenant {epoch.tenant}, expected {address.tenant.hex()}")
    if epoch.until <= now:
        raise GrantRefused(f"the epoch ended {now - epoch.until} s ago")
    parts, edition = check_public_fields(record, address, Expected())
    require_epoch(parts, key.epoch)
    verify(parts, writers)
    terms = {
        **_record_terms(parts, address),
        "id": os.urandom(_ID).hex(),
        "writer_key": writers[parts.wrap.writer].public_bytes_raw().hex(),
        "device": device.id.hex(),
        "epoch": epoch.id,
        "purpose": "generate",
        "since": now,
        "until": min(now + seconds, epoch.until),
    }
    with data_key_of(parts, edition, key) as data_key:
        decrypt_body(parts, edition, data_key)[0].wipe()
        sealed = _seal_data_key(data_key, epoch, Grant.associated_data_of(terms))
    grant = Grant.model_validate({**terms, "sealed": sealed.hex()})
    body = grant.to_bytes()
    return Signed(body=body.decode(), signature=device.sign(Grant.label + body).hex())


def _record_terms(parts: ParsedRecord, address: Address) -> dict[str, str | int]:
    """Which record a grant is of."""
    return {
        **{name: getattr(address, name).hex() for name in ("tenant", "user", "prefix", "base", "shape")},
        "version": parts.core.version,
        "record": parts.digest.hex(),
        "writer": parts.wrap.writer.hex(),
    }


def _seal_data_key(data_key: SecretBytes, epoch: Epoch, associated_data: bytes) -> bytes:
    try:
        key = hpke.public_key(bytes.fromhex(epoch.key))
        return hpke.SUITE.encrypt(data_key.data, key, info=associated_data)
    except ValueError:
        raise GrantRefused("the server's key is none") from None


def open_granted(
    grant: Grant, record: bytes, *, tenant: bytes, user: bytes, base: bytes, epoch: EpochKey, now: float
) -> OpenedRecord:
    """Open a record under a grant, as a server does (steps 2 to 6; `Grant.from_device` is the first).

    Args:
        grant: verified.
        record: as it is stored.
        tenant, user: who asks, from its token; 16 bytes each.
        base: fingerprint of the base that will use it, 32 bytes.
        epoch: the key.
        now: seconds since 1970.

    Raises:
        GrantRefused: over, of another server, user, base or epoch, or it does not open.
        RecordMismatch: another version or place than the grant says.
        RecordRefused: the record is damaged or forged.
    """
    for name, theirs, ours in (  # 2
        ("tenant", grant.tenant, tenant.hex()),
        ("user", grant.user, user.hex()),
        ("base", grant.base, base.hex()),
        ("epoch", grant.epoch, epoch.id.hex()),
    ):
        if theirs != ours:
            raise GrantRefused(f"{name} is {theirs}, expected {ours}")
    if not grant.since <= now + _CLOCK_SKEW_S or now >= min(grant.until, epoch.until):  # 3
        raise GrantRefused(f"it holds from {grant.since} until {grant.until}, and now is {int(now)}")
    expected = Expected(grant.version, bytes.fromhex(grant.record))
    parts, edition = check_public_fields(record, grant.address, expected)  # 4
    if parts.core.version != grant.version:
        raise GrantRefused(f"it is for version {grant.version}, stored is {parts.core.version}")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(grant.writer_key))
    verify(parts, {bytes.fromhex(grant.writer): key})  # 5
    with epoch.open(bytes.fromhex(grant.sealed), grant.associated_data) as data_key:  # 6
        content, size = decrypt_body(parts, edition, data_key)
    return OpenedRecord(edition, parts.digest, parts.wrap.writer, content, size)
