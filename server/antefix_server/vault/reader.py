"""What is stored of a user, read in a transaction of the caller's."""

from __future__ import annotations

from sqlalchemy import Connection

from antefix_server.errors import RecordAbsent
from antefix_server.vault.envelope import Head, Owner
from antefix_server.vault.record_store import Shelf


def heads(shelf: Shelf, connection: Connection, owner: Owner) -> list[Head]:
    """Of all records, without content."""
    return list(rows(shelf, connection, owner).values())


def rows(shelf: Shelf, connection: Connection, owner: Owner) -> dict[int, Head]:
    """Heads of all records by row."""
    return {one.id: owner.open_head(one.head) for one in shelf.owned(connection, owner.tag)}


def find(shelf: Shelf, connection: Connection, owner: Owner, prefix: bytes) -> tuple[int, Head]:
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


def record(shelf: Shelf, connection: Connection, owner: Owner, prefix: bytes) -> bytes:
    """A record as it was put.

    Raises:
        RecordAbsent, VaultDamaged.
    """
    return content(shelf, connection, owner, *find(shelf, connection, owner, prefix))


def content(shelf: Shelf, connection: Connection, owner: Owner, row: int, head: Head) -> bytes:
    """What is in a row.

    Raises:
        VaultDamaged.
    """
    return b"".join(owner.open(head, shelf.content(connection, row)))
