"""What a server knows of a user besides records: rows in the vault's database, sealed under the shred key.

A row is found by its mark, which says nothing without what it was made of, or by its owner. A removal deletes
a user's facts in the transaction that deletes the records, and what is left of them in backups or in free
pages has no key.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from antefix_server.storage.database import Made
from antefix_server.storage.schema import blob, facts
from antefix_server.vault.envelope import UserEnvelope

_PAD = 256
_BATCH = 500
_THREE = Made(
    select(facts)
    .where(
        facts.c.owner == bindparam("owner"),
        facts.c.kind.in_([bindparam("first"), bindparam("second"), bindparam("third")]),
    )
    .order_by(facts.c.id)
)


class Kind(IntEnum):
    """What a fact is about; stored, so a number is never used for something else."""

    USER = 1
    INVITATION = 2
    DEVICE = 3
    NODE = 4
    CHANGE = 5
    GRANT = 6
    REVOCATIONS = 7


@dataclass(frozen=True)
class UserRow:
    """A row as it lies there.

    Attributes:
        id: never used twice.
        owner: the user's tag, 16 bytes.
        mark: 32 bytes, unique.
        hint: the user's id, sealed under what the mark was made of; None where nobody asks by mark.
        sealed: the fact.
    """

    id: int
    owner: bytes
    kind: Kind
    mark: bytes
    hint: bytes | None
    sealed: bytes


def add(
    connection: Connection,
    owner: UserEnvelope,
    kind: Kind,
    mark: bytes,
    content: dict[str, Any],
    hint: bytes | None = None,
) -> None:
    """A new row."""
    sealed = owner.seal_fact(kind, mark, _padded(content))
    row = {"owner": owner.tag, "kind": int(kind), "mark": mark, "hint": hint, "sealed": sealed}
    connection.execute(insert(facts), row)


def by_mark(connection: Connection, kind: Kind, mark: bytes) -> UserRow | None:
    """The row with a mark."""
    row = connection.execute(select(facts).where(facts.c.mark == mark, facts.c.kind == int(kind))).first()
    return None if row is None else _row(row)


def of(connection: Connection, owner: UserEnvelope, kind: Kind) -> list[UserRow]:
    """A user's rows of one kind, oldest first."""
    query = select(facts).where(facts.c.owner == owner.tag, facts.c.kind == int(kind)).order_by(facts.c.id)
    return [_row(row) for row in connection.execute(query)]


def of_kinds(
    connection: Connection, owner: UserEnvelope, first: Kind, second: Kind, third: Kind
) -> dict[Kind, list[UserRow]]:
    """A user's rows of three kinds, read at once, oldest first."""
    result: dict[Kind, list[UserRow]] = {first: [], second: [], third: []}
    kinds = {"first": int(first), "second": int(second), "third": int(third)}
    for row in map(_row, _THREE.rows(connection, owner=owner.tag, **kinds)):
        result[row.kind].append(row)
    return result


def after(connection: Connection, kind: Kind, id: int) -> list[UserRow]:
    """Everybody's rows of one kind after an id, some at a time."""
    query = select(facts).where(facts.c.kind == int(kind), facts.c.id > id).order_by(facts.c.id)
    return [_row(row) for row in connection.execute(query.limit(_BATCH))]


def pages(connection: Connection, last: int) -> list[UserRow]:
    """Everybody's rows of every kind after an id, some at a time."""
    query = select(facts).where(facts.c.id > last).order_by(facts.c.id).limit(_BATCH)
    return [_row(row) for row in connection.execute(query)]


def put(connection: Connection, rows: list[UserRow]) -> None:
    """Rows as they lay in another database; those with the same marks are replaced."""
    for row in rows:
        connection.execute(delete(facts).where(facts.c.mark == row.mark))
        values = {"owner": row.owner, "kind": int(row.kind), "mark": row.mark, "hint": row.hint}
        connection.execute(insert(facts), {**values, "sealed": row.sealed})


def change(connection: Connection, owner: UserEnvelope, row: UserRow, content: dict[str, Any]) -> None:
    """Another content for a row."""
    sealed = owner.seal_fact(row.kind, row.mark, _padded(content))
    connection.execute(update(facts).where(facts.c.id == row.id).values(sealed=sealed))


def drop(connection: Connection, row: UserRow) -> None:
    """Delete a row."""
    connection.execute(delete(facts).where(facts.c.id == row.id))


def opened(owner: UserEnvelope, row: UserRow) -> dict[str, Any]:
    """What a row says.

    Raises:
        VaultDamaged: another user's, or changed.
    """
    result: dict[str, Any] = json.loads(owner.open_fact(row.kind, row.mark, blob(row.sealed)))
    return result


def is_active(owner: UserEnvelope, users: Sequence[UserRow]) -> bool:
    """Whether a user whose rows of kind `USER` these are may come in: it is there, and not suspended."""
    return len(users) == 1 and not opened(owner, users[0])["suspended"]


def count(connection: Connection, kind: Kind) -> int:
    """Rows of one kind."""
    return int(connection.execute(select(func.count()).where(facts.c.kind == int(kind))).scalar_one())


def _padded(content: dict[str, Any]) -> bytes:
    """JSON; its length does not tell a name's."""
    plain = json.dumps(content).encode()
    return plain.ljust(-(-len(plain) // _PAD) * _PAD)


def _row(row: Any) -> UserRow:
    # What is sealed is looked at by `opened`: whose row it is can be told without it.
    id, owner, kind, mark, hint, sealed = row
    return UserRow(id, blob(owner), Kind(kind), blob(mark), None if hint is None else blob(hint), sealed)
