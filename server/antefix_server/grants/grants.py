"""Grants of a vault's users: which prefixes this server may use, until when, by whose word.

grants = Grants(vault, epochs)
grants.put(session, signed)                    # from a device
with grants.open(user, id, base) as opened:    # the id of a grant
    prefix = opened.prefix()
grants.revoke(user, id)                        # by device or operator
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection

from antefix.errors import GrantRefused
from antefix.grants import Grant, open_granted
from antefix.keys import DevicePublic
from antefix.records import OpenedRecord
from antefix.wire import Signed
from antefix_server.errors import GrantsRevoked
from antefix_server.grants import store
from antefix_server.grants.epochs import Epochs
from antefix_server.registry import Session
from antefix_server.registry import devices as devices_module
from antefix_server.vault import Vault, reader, user_rows
from antefix_server.vault.envelope import RecordMeta, UserEnvelope
from antefix_server.vault.user_rows import Kind

__all__ = ["Grants"]


class Grants:
    """What a server may use. Any thread may call anything."""

    def __init__(self, vault: Vault, epochs: Epochs, clock: Callable[[], float] = time.time) -> None:
        """Use an open vault, whose owner closes it, and its epoch keys."""
        self._vault, self._epochs, self._clock = vault, epochs, clock

    def put(self, session: Session, signed: Signed, revocations: int | None = None) -> Grant:
        """Keep what a device grants, in place of an earlier grant of the same prefix.

        Args:
            session: of the device.
            signed: the grant.
            revocations: the number that the device knows, where it grants anew without being asked again.

        Raises:
            GrantRefused: it opens nothing here, was revoked, or is for what is not stored.
            GrantsRevoked: something was revoked since.
            UnknownUser, RecordAbsent, VaultDamaged.
        """
        database = self._vault.shelf.database
        with self._vault.owner(session.user) as owner:
            with database.reading() as connection:
                grant = Grant.from_device(_device(connection, owner, session.device), signed)
                record = self._stored(connection, owner, grant)
            self._opened(owner, grant, record, bytes.fromhex(grant.base)).wipe()
        # That took a while, in which others wrote: what it stands on is looked at once more.
        with (
            self._vault.writing(),
            self._vault.owner(session.user) as owner,
            database.writing() as connection,
        ):
            _device(connection, owner, session.device)
            self._require_stored(connection, owner, grant)
            _require_known(revocations, store.revocations(connection, owner))
            if not store.keep(connection, owner, signed, grant, self._clock()):
                raise GrantRefused("it was revoked or replaced, or there are too many")
        return grant

    def of(self, user: bytes) -> list[Grant]:
        """Those that hold now: of devices that may come in, for what is stored. A newer version ends them.

        Raises:
            UnknownUser.
        """
        with self._vault.owner(user) as owner, self._vault.shelf.database.reading() as connection:
            return [grant for grant, _, _ in self._holding(connection, owner)]

    def open(self, user: bytes, grant: str, base: bytes) -> OpenedRecord:
        """The record that a grant is about, opened; wipe it when it is done with.

        Args:
            user: 16 bytes.
            grant: its id, in hex.
            base: fingerprint of the base that is served, 32 bytes.

        Raises:
            GrantRefused: there is none such that holds.
            UnknownUser, RecordAbsent, RecordMismatch, RecordRefused, VaultDamaged.
        """
        with self._vault.owner(user) as owner:
            with self._vault.shelf.database.reading() as connection:
                holding = self._holding(connection, owner)
                held_grant, row, head = next(
                    (entry for entry in holding if entry[0].id == grant), (None, 0, None)
                )
                if held_grant is None or head is None:
                    raise GrantRefused("it does not hold any more")
                record = reader.content(self._vault.shelf, connection, owner, row, head)
            return self._opened(owner, held_grant, record, base)

    def revoke(self, user: bytes, grant: bytes) -> bool:
        """Use a grant no more; False where there is none such.

        Raises:
            UnknownUser.
        """
        with (
            self._vault.writing(),
            self._vault.owner(user) as owner,
            self._vault.shelf.database.writing() as connection,
        ):
            return store.revoked(connection, owner, grant)

    def revoke_all(self, user: bytes) -> int:
        """Use none of a user's grants any more; so many there were.

        Raises:
            UnknownUser.
        """
        with (
            self._vault.writing(),
            self._vault.owner(user) as owner,
            self._vault.shelf.database.writing() as connection,
        ):
            return store.all_revoked(connection, owner)

    def revocations(self, user: bytes) -> int:
        """How often something of a user was revoked, by whomever: a number that only grows.

        Raises:
            UnknownUser.
        """
        with self._vault.owner(user) as owner, self._vault.shelf.database.reading() as connection:
            return store.revocations(connection, owner)

    def tidy(self) -> int:
        """Destroy the keys of epochs that are over; so many were."""
        return self._epochs.destroy_over(self._clock())

    def _holding(self, connection: Connection, owner: UserEnvelope) -> list[tuple[Grant, int, RecordMeta]]:
        """Each with row and head of its record. In one transaction: what is found together holds together."""
        now, facts = self._clock(), user_rows.of_kinds(connection, owner, Kind.USER, Kind.DEVICE, Kind.GRANT)
        if not user_rows.is_active(owner, facts[Kind.USER]):
            return []
        grants = [row.grant for row in store.read(owner, facts[Kind.GRANT]) if row.until > now]
        devices = {
            device.id.hex() for device in devices_module.read(owner, facts[Kind.DEVICE]) if not device.revoked
        }
        live = [grant for grant in grants if grant is not None and grant.device in devices]
        live = [grant for grant in live if self._epochs.find(bytes.fromhex(grant.epoch), now) is not None]
        if not live:
            return []
        stored = reader.rows(self._vault.shelf, connection, owner)
        records = {(head.prefix.hex(), head.digest.hex()): (row, head) for row, head in stored.items()}
        pairs = [(grant, records.get((grant.prefix, grant.record))) for grant in live]
        return [(grant, *record) for grant, record in pairs if record is not None]

    def _stored(self, connection: Connection, owner: UserEnvelope, grant: Grant) -> bytes:
        return reader.record(self._vault.shelf, connection, owner, bytes.fromhex(grant.prefix))

    def _require_stored(self, connection: Connection, owner: UserEnvelope, grant: Grant) -> None:
        _, head = reader.find(self._vault.shelf, connection, owner, bytes.fromhex(grant.prefix))
        if head.digest.hex() != grant.record:
            raise GrantRefused(f"it is for version {grant.version}, stored is {head.version}")

    def _opened(self, owner: UserEnvelope, grant: Grant, record: bytes, base: bytes) -> OpenedRecord:
        now = self._clock()
        epoch = self._epochs.find(bytes.fromhex(grant.epoch), now)
        if epoch is None:
            raise GrantRefused(f"epoch {grant.epoch} is over, or never was")
        return open_granted(
            grant, record, tenant=owner.tenant, user=owner.user, base=base, epoch=epoch, now=now
        )


def _device(connection: Connection, owner: UserEnvelope, device: bytes) -> DevicePublic:
    result = devices_module.public_key(connection, owner, device)
    if result is None:
        raise GrantRefused(f"its device is not one of user {owner.user.hex()}")
    return result


def _require_known(known: int | None, now: int) -> None:
    if known not in (None, now):
        raise GrantsRevoked(now, known or 0)
