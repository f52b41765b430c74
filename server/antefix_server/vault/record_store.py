"""Sealed records in a database: rows that say nothing without the shred keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, text, update

from antefix_server.errors import RecordReplaced, VaultDamaged
from antefix_server.storage.database import Database, Made
from antefix_server.storage.schema import belongs, blob, facts, pieces, records

_BATCH = 500
_IN_PLACE = Made(select(records).where(records.c.place == bindparam("place")))
_OWNED = Made(select(records).where(records.c.owner == bindparam("owner"), records.c.place.is_not(None)))
_CONTENT = Made(
    select(pieces.c.content).where(pieces.c.record == bindparam("record")).order_by(pieces.c.number)
)


@dataclass(frozen=True)
class Stored:
    """A row as it lies there.

    Attributes:
        id: of the row, never used twice.
        place, owner: 16 bytes.
        head: sealed.
    """

    id: int
    place: bytes
    owner: bytes
    head: bytes


class RecordStore:
    """The tables `records` and `pieces`. Transactions are the caller's."""

    def __init__(self, database: Database) -> None:
        """Use a database that has the tables."""
        self.database = database

    def claim(self, tenant: bytes) -> None:
        """Bind the database to one vault.

        Raises:
            VaultDamaged: it is another's.
        """
        with self.database.writing() as connection:
            if not self.database.is_file:  # there two vaults could find it free at once
                connection.execute(text("LOCK TABLE belongs IN EXCLUSIVE MODE"))
            if not self._compare(connection, tenant):
                connection.execute(insert(belongs), {"tenant": tenant})

    def _compare(self, connection: Connection, tenant: bytes) -> bool:
        claims = [blob(claim) for claim in connection.execute(select(belongs.c.tenant)).scalars()]
        if claims and claims != [tenant]:
            raise VaultDamaged(
                f"{self.database.name} has the records of vault {claims[0].hex()}, not of {tenant.hex()}",
                "give the database that belongs to this folder",
            )
        return bool(claims)

    def find(self, connection: Connection, place: bytes) -> Stored | None:
        """The record in a place."""
        rows = _IN_PLACE.rows(connection, place=place)
        return _stored(rows[0]) if rows else None

    def owned(self, connection: Connection, owner: bytes) -> list[Stored]:
        """A user's records; uploads under way are not among them."""
        return [_stored(row) for row in _OWNED.rows(connection, owner=owner)]

    def find_all(self, connection: Connection, places: Sequence[bytes]) -> dict[bytes, Stored]:
        """The records in some places, by place."""
        result: dict[bytes, Stored] = {}
        for at in range(0, len(places), _BATCH):
            query = select(records).where(records.c.place.in_(_many("places")))
            rows = connection.execute(query, {"places": list(places[at : at + _BATCH])})
            result |= {row.place: row for row in map(_stored, rows)}
        return result

    def add_all(self, connection: Connection, new: Sequence[tuple[bytes, bytes, bytes, list[bytes]]]) -> None:
        """Add records: place, owner, sealed head and pieces of each."""
        rows = [{"place": place, "owner": owner, "head": head} for place, owner, head, _ in new]
        query = insert(records).returning(records.c.id, sort_by_parameter_order=True)
        ids = connection.execute(query, rows).scalars().all()
        parts = [
            {"record": id, "number": number, "content": piece}
            for id, (_, _, _, content) in zip(ids, new, strict=True)
            for number, piece in enumerate(content)
        ]
        connection.execute(insert(pieces), parts)

    def begin_upload(self, owner: bytes, head: bytes) -> int:
        """A row without a place; its id."""
        row = {"place": None, "owner": owner, "head": head}
        with self.database.writing() as connection:
            return int(connection.execute(insert(records).returning(records.c.id), row).scalar_one())

    def add_piece(self, record: int, number: int, content: bytes) -> None:
        """One more piece of an upload.

        Raises:
            RecordReplaced: its row is gone, since its user was removed.
        """
        with self.database.writing() as connection:
            if connection.execute(select(records.c.id).where(records.c.id == record)).first() is None:
                raise _dropped()
            connection.execute(insert(pieces), {"record": record, "number": number, "content": content})

    def settle(self, connection: Connection, record: int, place: bytes, head: bytes) -> None:
        """Give an upload its place.

        Raises:
            RecordReplaced: its row is gone, since its user was removed.
        """
        changed = connection.execute(
            update(records).where(records.c.id == record).values(place=place, head=head)
        )
        if changed.rowcount != 1:
            raise _dropped()

    def drop(self, connection: Connection, ids: Sequence[int]) -> None:
        """Delete rows with their pieces, some at a time: a statement takes so many values and no more."""
        for at in range(0, len(ids), _BATCH):
            some = {"ids": list(ids[at : at + _BATCH])}
            connection.execute(delete(pieces).where(pieces.c.record.in_(_many("ids"))), some)
            connection.execute(delete(records).where(records.c.id.in_(_many("ids"))), some)

    def drop_upload(self, record: int) -> None:
        """Delete an upload that failed, but not one that has its place.

        Who was interrupted, or lost the connection, while it got it cannot know that it did; the record
        that it replaced is gone by then.
        """
        left = (records.c.id == record) & records.c.place.is_(None)
        with self.database.writing() as connection:
            self.drop(connection, connection.execute(select(records.c.id).where(left)).scalars().all())

    def drop_owners(self, owners: Sequence[bytes]) -> None:
        """Delete everything of some users, uploads too; durable, and gone from the file, on return."""
        for at in range(0, len(owners), _BATCH):
            some = list(owners[at : at + _BATCH])
            with self.database.writing(durable=False) as connection:
                query = select(records.c.id).where(records.c.owner.in_(_many("owners")))
                ids = connection.execute(query, {"owners": some}).scalars().all()
                self.drop(connection, ids)
                connection.execute(delete(facts).where(facts.c.owner.in_(_many("owners"))), {"owners": some})
        self.database.purge()

    def sweep(self) -> None:
        """Delete what uploads left that a crash cut off."""
        with self.database.writing() as connection:
            left = connection.execute(select(records.c.id).where(records.c.place.is_(None))).scalars().all()
            self.drop(connection, left)

    def content(self, connection: Connection, record: int) -> list[bytes]:
        """All pieces of a record."""
        return [blob(piece) for (piece,) in _CONTENT.rows(connection, record=record)]

    def piece(self, record: int, number: int) -> bytes | None:
        """One piece, in a transaction of its own; None after the last.

        Raises:
            RecordReplaced: the record is not there any more.
        """
        wanted = (pieces.c.record == record) & (pieces.c.number == number)
        query = select(pieces.c.content).where(wanted)
        with self.database.reading() as connection:
            content = connection.execute(query).scalar()
            if (
                content is None
                and connection.execute(select(records.c.id).where(records.c.id == record)).first() is None
            ):
                raise RecordReplaced(
                    "the record was replaced or removed while it was read", "ask for it again"
                )
        return None if content is None else blob(content)

    def rows(self) -> Iterator[list[Stored]]:
        """Every record in the order of ids, some at a time, each time in a short transaction."""
        after = 0
        while True:
            query = select(records).where(records.c.id > after, records.c.place.is_not(None))
            with self.database.reading() as connection:
                batch = connection.execute(query.order_by(records.c.id).limit(_BATCH)).all()
            if not batch:
                return
            after = batch[-1].id
            yield [_stored(row) for row in batch]

    def single_pieces(self, ids: Sequence[int]) -> dict[int, bytes]:
        """The content of those records that have one piece, by id."""
        mine = pieces.c.record.in_(_many("ids"))
        with self.database.reading() as connection:
            several = select(pieces.c.record).where(mine, pieces.c.number == 1)
            large = set(connection.execute(several, {"ids": list(ids)}).scalars())
            first = select(pieces.c.record, pieces.c.content).where(mine, pieces.c.number == 0)
            small = {"ids": [id for id in ids if id not in large]}
            return {row.record: blob(row.content) for row in connection.execute(first, small)}

    def require(self, tenant: bytes) -> None:
        """Refuse the database of another vault.

        Raises:
            VaultDamaged: it is.
        """
        with self.database.reading() as connection:
            self._compare(connection, tenant)

    def count(self) -> int:
        """Records stored."""
        with self.database.reading() as connection:
            query = select(func.count()).where(records.c.place.is_not(None))
            return int(connection.execute(query).scalar_one())


def _dropped() -> RecordReplaced:
    return RecordReplaced("the upload was dropped while it was under way", "see whether the user was removed")


def _many(name: str) -> ColumnElement[object]:
    return bindparam(name, expanding=True)


def _stored(row: Any) -> Stored:
    id, place, owner, head = row
    return Stored(id, blob(place), blob(owner), blob(head))
