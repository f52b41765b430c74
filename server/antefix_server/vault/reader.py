"""What is stored of a user, read in a transaction of the caller's."""

from __future__ import annotations

from sqlalchemy import Connection

from antefix_server.errors import RecordAbsent
from antefix_server.vault.envelope import RecordMeta, UserEnvelope
from antefix_server.vault.record_store import RecordStore


def heads(shelf: RecordStore, connection: Connection, owner: UserEnvelope) -> list[RecordMeta]:
    """Of all records, without content."""
    return list(rows(shelf, connection, owner).values())


def rows(shelf: RecordStore, connection: Connection, owner: UserEnvelope) -> dict[int, RecordMeta]:
    """Heads of all records by row."""
    return {row.id: owner.open_head(row.head) for row in shelf.owned(connection, owner.tag)}


def find(
    shelf: RecordStore, connection: Connection, owner: UserEnvelope, prefix: bytes
) -> tuple[int, RecordMeta]:
    """Row and head of a record.

    Raises:
        RecordAbsent: nothing is stored.
        VaultDamaged.
    """
    stored = shelf.find(connection, owner.place(prefix))
    if stored is None:
        raise RecordAbsent(
            f"user {owner.user.hex()} has no record of prefix {prefix.hex()}",
            "put the first with replaces=0",
        )
    return stored.id, owner.open_head(stored.head)


def record(shelf: RecordStore, connection: Connection, owner: UserEnvelope, prefix: bytes) -> bytes:
    """A record as it was put.

    Raises:
        RecordAbsent, VaultDamaged.
    """
    return content(shelf, connection, owner, *find(shelf, connection, owner, prefix))


def content(
    shelf: RecordStore, connection: Connection, owner: UserEnvelope, row: int, head: RecordMeta
) -> bytes:
    """What is in a row.

    Raises:
        VaultDamaged.
    """
    return b"".join(owner.open(head, shelf.content(connection, row)))
