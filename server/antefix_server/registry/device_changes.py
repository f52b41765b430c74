"""Changes of a user's devices, one after another, as the devices themselves have signed them.

The server cannot make one, and hands them on. It looks at them only to refuse what does not follow, so that
of two that were made at once one is there, and to let in no more who was removed.
"""

from __future__ import annotations

import hmac

from sqlalchemy import Connection

from antefix.errors import DeviceListRefused
from antefix.keys import DeviceChange
from antefix_server.errors import VersionConflict
from antefix_server.vault import user_rows
from antefix_server.vault.envelope import UserEnvelope
from antefix_server.vault.user_rows import Kind

_MOST = 1000
_FARTHEST = 64  # versions that a restored backup may be behind


def found(connection: Connection, owner: UserEnvelope, version: int) -> bytes | None:
    """The change that made a version of the list; None where there is none."""
    row = user_rows.by_mark(connection, Kind.CHANGE, _mark(owner, version))
    return None if row is None else bytes.fromhex(user_rows.opened(owner, row)["change"])


def added(connection: Connection, owner: UserEnvelope, content: bytes, by: bytes) -> bytes | None:
    """Keep the next change; id of the device that left with it, 16 bytes.

    The first one that is stored has no list before it here, nor has one after a gap (devices are ahead after
    a restore): what it says of who left is then no more than a device's word, and nobody's id is returned.

    Args:
        connection: in a transaction.
        owner: the user.
        content: the change.
        by: id of the device that sends it, which must have written it.

    Raises:
        DeviceListRefused: not by that device, of another user, or not after what is stored.
        VersionConflict: another one came first.
    """
    change = DeviceChange.trust_initial(content, by=by)
    version, place = change.devices.version, (change.devices.tenant, change.devices.user)
    if place != (owner.tenant, owner.user):
        raise DeviceListRefused("it is of another user")
    rows = user_rows.of(connection, owner, Kind.CHANGE)
    previous = None
    if rows:
        newest = user_rows.opened(owner, rows[-1])
        previous = DeviceChange.trust_initial(
            bytes.fromhex(newest["change"]), by=bytes.fromhex(newest["by"])
        ).devices
        if version <= previous.version:
            raise VersionConflict(
                f"version {previous.version} of the devices is stored, this is version {version}",
                "fetch what is stored, then decide",
            )
    if len(rows) >= _MOST or version > (previous.version if previous else 0) + _FARTHEST:
        raise DeviceListRefused(f"version {version} after {len(rows)} changes is too far")
    left = None
    if previous is not None and by not in previous.writers:
        raise DeviceListRefused(f"device {by.hex()} is not on the list that is stored")
    if previous is not None and version == previous.version + 1:
        left = DeviceChange.following(content, previous).left
    payload = {"change": content.hex(), "by": by.hex()}
    user_rows.add(connection, owner, Kind.CHANGE, _mark(owner, version), payload)
    return left


def _mark(owner: UserEnvelope, version: int) -> bytes:
    message = b"antefix/v1/registry change\0" + version.to_bytes(8, "big")
    return hmac.digest(owner.key.data, message, "sha256")
