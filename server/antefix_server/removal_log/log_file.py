"""One copy of the removal log: a Merkle tree, and what a removal needs to be finished or repeated.

Releases are leaves of the same tree (`_statement`); they share the numbering of leaves with the removals, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Select,
    Table,
    UniqueConstraint,
    and_,
    func,
    insert,
    inspect,
    or_,
    select,
    update,
)

from antefix.crypto.merkle import Node, Range, complete_subtrees, node_hash, root_from_inclusion_proof
from antefix_server.errors import VaultDamaged
from antefix_server.removal_log.statement import Kind, Statement
from antefix_server.storage.database import Database

_metadata = MetaData()
_nodes = Table(
    "nodes",
    _metadata,
    Column("level", Integer, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
_removals = Table(
    "removals",
    _metadata,
    Column("index", Integer, primary_key=True),
    Column("slot", Integer, nullable=False, unique=True),
    Column("day", Integer, nullable=False),
    Column("salt", LargeBinary),
    Column("heads", LargeBinary),
    Column("mark", LargeBinary, nullable=False),
)
# Logs of before releases have no such table: it is made when they are opened to be written to.
_statements = Table(
    "statements",
    _metadata,
    Column("index", Integer, primary_key=True),
    Column("kind", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("mark", LargeBinary, nullable=False),
    UniqueConstraint("kind", "number"),
)
_BATCH = 10_000


@dataclass(frozen=True)
class Entry:
    """One removal. It stays; salt and heads go after a few days.

    Attributes:
        slot: whose key is destroyed.
        day: days since 1970, UTC.
        salt, heads: 32 bytes each, from which the receipt is made again; None later.
        leaf: hash in the tree.
        mark: by which the vault knows that it wrote this.
    """

    slot: int
    day: int
    salt: bytes | None = field(repr=False)
    heads: bytes | None
    leaf: bytes
    mark: bytes = b""


class LogFile:
    """A SQLite file that is only appended to.

    Attributes:
        size: leaves.
        removals: those of them that are removals.
    """

    def __init__(self, path: Path, *, wait_s: float, create: bool = False, read_only: bool = False) -> None:
        """Open it, or make an empty one."""
        if read_only:
            self.database = Database.of_reader(path, wait_s=wait_s)
        else:
            self.database = Database.of_file(path, wait_s=wait_s, create=create and not path.exists())
            with self.database.writing() as connection:
                _metadata.create_all(connection)
        self.reload()

    def reload(self) -> None:
        """Read what is stored: of a commit that failed nobody knows whether it did."""
        with self.database.reading() as connection:
            self.size = self.removals = _count(connection, _removals)
            if inspect(connection).has_table("statements"):  # a reader cannot make it
                self.size += _count(connection, _statements)
        self._peaks = list(
            zip(complete_subtrees((0, self.size)), self._cover_hashes((0, self.size)), strict=True)
        )

    def append(self, entries: Sequence[Entry | Statement]) -> None:
        """Add leaves; durable on return."""
        peaks, nodes = list(self._peaks), []
        removals: list[dict[str, object]] = []
        statements: list[dict[str, object]] = []
        for index, entry in enumerate(entries, start=self.size):
            (removals if isinstance(entry, Entry) else statements).append({"index": index, **_fields(entry)})
            nodes += grown(peaks, index, entry.leaf)
        with self.database.writing() as connection:
            for table, rows in ((_removals, removals), (_statements, statements)):
                if rows:
                    connection.execute(insert(table), rows)
            connection.execute(insert(_nodes), [_node_row(node, value) for node, value in nodes])
        self._peaks, self.size = peaks, self.size + len(entries)
        self.removals += len(removals)

    def hashes(self, ranges: Sequence[Range]) -> list[bytes]:
        """Hash of each range of leaves."""
        return [root_from_inclusion_proof(self._cover_hashes(leaves)) for leaves in ranges]

    def root(self, size: int | None = None) -> bytes:
        """Root of the tree, or of an earlier one."""
        return self.hashes([(0, self.size if size is None else size)])[0]

    def entries(self, first: int = 0) -> Iterator[list[tuple[int, Entry | Statement]]]:
        """Entries from an index on, with theirs, some at a time."""
        for at in range(first, self.size, _BATCH):
            removals = self._select(and_(_removals.c.index >= at, _removals.c.index < at + _BATCH))
            with self.database.reading() as connection:
                query = select(_statements).where(
                    _statements.c.index >= at, _statements.c.index < at + _BATCH
                )
                others = [_statement(row) for row in connection.execute(query)]
            yield sorted([*removals, *others], key=lambda indexed: indexed[0])

    def statement(self, kind: Kind, number: int) -> Statement | None:
        """What was said under a number."""
        query = select(_statements).where(_statements.c.kind == int(kind), _statements.c.number == number)
        with self.database.reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else _statement(row)[1]

    def last_number(self, kind: Kind) -> int:
        """The highest number of a kind; 0 for none."""
        query = select(func.max(_statements.c.number)).where(_statements.c.kind == int(kind))
        with self.database.reading() as connection:
            return int(connection.execute(query).scalar() or 0)

    def slots(self) -> Iterator[list[int]]:
        """Slots of all removals, some at a time."""
        for at in range(0, self.size, _BATCH):
            query = select(_removals.c.slot).where(_removals.c.index >= at, _removals.c.index < at + _BATCH)
            with self.database.reading() as connection:
                slots = list(connection.execute(query).scalars())
            yield slots

    def slots_used(self) -> int:
        """One more than the highest slot."""
        with self.database.reading() as connection:
            highest = connection.execute(select(func.max(_removals.c.slot))).scalar()
        return 0 if highest is None else highest + 1

    def of_slot(self, slot: int) -> tuple[int, Entry] | None:
        """The removal of a slot, with its index."""
        return next(iter(self._select(_removals.c.slot == slot)), None)

    def forget(self, before_day: int) -> None:
        """Erase salts and heads of earlier removals: to who has no receipt, their leaves are noise.

        The file is purged each time, not only of what was erased just now: a crash may have come between.
        """
        old = and_(_removals.c.day < before_day, _removals.c.salt.is_not(None))
        with self.database.writing() as connection:
            connection.execute(update(_removals).where(old).values(salt=None, heads=None))
        self.database.purge()

    def _select(self, where: ColumnElement[bool]) -> list[tuple[int, Entry]]:
        """Entries with their leaf hashes."""
        leaf = and_(_nodes.c.level == 0, _nodes.c.position == _removals.c.index)
        query: Select[tuple[object, ...]] = select(_removals, _nodes.c.hash).join(_nodes, leaf)
        with self.database.reading() as connection:
            return [_entry(row) for row in connection.execute(query.where(where).order_by(_removals.c.index))]

    def _cover_hashes(self, leaves: Range) -> list[bytes]:
        nodes = complete_subtrees(leaves)
        if not nodes:
            return []
        with self.database.reading() as connection:
            hashes = _node_hashes(connection, nodes)
        if len(hashes) != len(nodes):
            raise VaultDamaged(f"{self.database.name} lacks a part of its tree", "restore it from the mirror")
        return [hashes[node] for node in nodes]


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _node_hashes(connection: Connection, nodes: Sequence[Node]) -> dict[Node, bytes]:
    wanted = [and_(_nodes.c.level == level, _nodes.c.position == position) for level, position in nodes]
    rows = connection.execute(select(_nodes).where(or_(*wanted)))
    return {(row.level, row.position): bytes(row.hash) for row in rows}


def grown(peaks: list[tuple[Node, bytes]], index: int, leaf: bytes) -> list[tuple[Node, bytes]]:
    """Add a leaf to the row of peaks; the new complete subtrees."""
    node, value = (0, index), leaf
    new = [(node, value)]
    while peaks and peaks[-1][0][0] == node[0]:
        value = node_hash(peaks.pop()[1], value)
        node = (node[0] + 1, node[1] >> 1)
        new.append((node, value))
    peaks.append((node, value))
    return new


def _node_row(node: Node, value: bytes) -> dict[str, object]:
    return {"level": node[0], "position": node[1], "hash": value}


def _fields(entry: Entry | Statement) -> dict[str, object]:
    if isinstance(entry, Statement):
        fields = {"kind": int(entry.kind), "number": entry.number, "digest": entry.digest}
        return {**fields, "mark": entry.mark}
    return {
        "slot": entry.slot,
        "day": entry.day,
        "salt": entry.salt,
        "heads": entry.heads,
        "mark": entry.mark,
    }


def _entry(row: Row[tuple[object, ...]]) -> tuple[int, Entry]:
    entry = Entry(row.slot, row.day, row.salt, row.heads, bytes(row.hash), bytes(row.mark))
    return row.index, entry  # type: ignore[return-value]  # `index` is also a method of tuples


def _statement(row: Row[tuple[object, ...]]) -> tuple[int, Statement]:
    statement = Statement(Kind(row.kind), row.number, bytes(row.digest), bytes(row.mark))
    return row.index, statement  # type: ignore[return-value]  # `index` is also a method of tuples
