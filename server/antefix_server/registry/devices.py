"""Devices of a user: their public keys, and the tokens by which they come in.

A token is the user's id and 32 random bytes; what is stored is a hash of the latter.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from antefix.keys import DevicePublic
from antefix_server.errors import DeviceUnknown, InvitationRefused, TokenRefused
from antefix_server.vault import user_rows
from antefix_server.vault.envelope import UserEnvelope
from antefix_server.vault.user_rows import Kind, UserRow

_SECRET = 32


@dataclass(frozen=True)
class Device:
    """A device as the operator sees it.

    Attributes:
        id: 16 bytes, a digest of its keys.
        name: what its user calls it.
        enrolled: seconds since 1970, the last time.
        revoked: it is not let in.
    """

    id: bytes
    name: str
    enrolled: int
    revoked: bool


@dataclass(frozen=True)
class Enrolled:
    """What a device gets when it is let in for the first time.

    Attributes:
        tenant, user: the user's ids, 16 bytes each.
        token: goes with every request from then on. Private; the server keeps a hash.
    """

    tenant: bytes
    user: bytes
    token: str = field(repr=False)


@dataclass(frozen=True)
class Session:
    """Whose request it is."""

    user: bytes
    device: bytes


def enrolled(connection: Connection, owner: UserEnvelope, device: DevicePublic, name: str) -> Enrolled:
    """Keep a device; one that is there gets a new token, and the old one is no good any more.

    Raises:
        InvitationRefused: it was revoked.
    """
    secret = os.urandom(_SECRET)
    content = {
        "kem": device.kem_bytes.hex(),
        "signing": device.signing_bytes.hex(),
        "name": name[:200],
        "token": hashlib.sha256(secret).hexdigest(),
        "enrolled": int(time.time()),
        "revoked": False,
    }
    mark = _mark(owner, device.id)
    row = user_rows.by_mark(connection, Kind.DEVICE, mark)
    if row is None:
        user_rows.add(connection, owner, Kind.DEVICE, mark, content)
    elif user_rows.opened(owner, row)["revoked"]:
        raise InvitationRefused
    else:
        user_rows.change(connection, owner, row, content)
    token = base64.urlsafe_b64encode(owner.user + secret).decode()
    return Enrolled(owner.tenant, owner.user, token)


def parts_of(token: str) -> tuple[bytes, bytes]:
    """User and secret of a token.

    Raises:
        TokenRefused: not even a token.
    """
    try:
        content = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenRefused from None
    if len(content) != 16 + _SECRET:
        raise TokenRefused
    return content[:16], content[16:]


def session(connection: Connection, owner: UserEnvelope, secret: bytes) -> Session:
    """The device of a user that has a token.

    Raises:
        TokenRefused: none that may come in.
    """
    given = hashlib.sha256(secret).hexdigest()
    for row in user_rows.of(connection, owner, Kind.DEVICE):
        content = user_rows.opened(owner, row)
        if hmac.compare_digest(given, content["token"]) and not content["revoked"]:
            return Session(owner.user, _public(content).id)
    raise TokenRefused


def signing_key(connection: Connection, owner: UserEnvelope, device: bytes) -> bytes | None:
    """Of a device that may come in: its Ed25519 public key; None for any other."""
    key = public_key(connection, owner, device)
    return None if key is None else key.signing_bytes


def public_key(connection: Connection, owner: UserEnvelope, device: bytes) -> DevicePublic | None:
    """Both public keys of a device that may come in; None for any other."""
    row = user_rows.by_mark(connection, Kind.DEVICE, _mark(owner, device))
    content = None if row is None else user_rows.opened(owner, row)
    return None if content is None or content["revoked"] else _public(content)


def listed(connection: Connection, owner: UserEnvelope) -> list[Device]:
    """A user's devices."""
    return read(owner, user_rows.of(connection, owner, Kind.DEVICE))


def read(owner: UserEnvelope, rows: Iterable[UserRow]) -> list[Device]:
    """What rows say."""
    return [_device(user_rows.opened(owner, row)) for row in rows]


def revoked(connection: Connection, owner: UserEnvelope, device: bytes) -> Device:
    """Let it in no more.

    Raises:
        DeviceUnknown.
    """
    row: UserRow | None = user_rows.by_mark(connection, Kind.DEVICE, _mark(owner, device))
    if row is None:
        raise DeviceUnknown(f"the user has no device {device.hex()}", "antefix-server devices list NAME")
    content = {**user_rows.opened(owner, row), "revoked": True}
    user_rows.change(connection, owner, row, content)
    return _device(content)


def _mark(owner: UserEnvelope, device: bytes) -> bytes:
    return hmac.digest(owner.key.data, b"antefix/v1/registry device\0" + device, "sha256")


def _public(content: dict[str, Any]) -> DevicePublic:
    return DevicePublic(bytes.fromhex(content["kem"]), bytes.fromhex(content["signing"]))


def _device(content: dict[str, Any]) -> Device:
    return Device(_public(content).id, content["name"], content["enrolled"], content["revoked"])
