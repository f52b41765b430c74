"""Tables of the records, in SQLite or PostgreSQL; the migrations make the same ones."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, MetaData, Table

from antefix_server.errors import VaultDamaged

metadata = MetaData()

_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by INTEGER alone

records = Table(
    "records",
    metadata,
    # Never used twice, so that a reader who goes on with a replaced record finds nothing, not another's.
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("place", LargeBinary, unique=True),  # NULL while an upload is under way
    Column("owner", LargeBinary, nullable=False, index=True),
    Column("head", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
"""`place` and `owner`: 16 bytes, HMAC of prefix and user under the shred key. `head`: sealed under it."""

pieces = Table(
    "pieces",
    metadata,
    Column("record", _Id, ForeignKey("records.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""The sealed record, cut; 1 MiB at most each."""

facts = Table(
    "facts",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("owner", LargeBinary, nullable=False, index=True),
    Column("kind", Integer, nullable=False),
    Column("mark", LargeBinary, nullable=False, unique=True),
    Column("hint", LargeBinary),
    Column("sealed", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
"""What is known of users besides their records (`_facts`), sealed under the shred key."""

belongs = Table("belongs", metadata, Column("tenant", LargeBinary, primary_key=True))
"""One row: the vault whose records these are."""


def blob(value: object) -> bytes:
    """What a column of bytes holds.

    SQLite keeps whatever is written into a column, and `bytes` makes of a number so many zeros.

    Raises:
        VaultDamaged: it holds something else.
    """
    if not isinstance(value, bytes | memoryview):
        raise VaultDamaged("a row of the database is damaged", "restore it from a backup")
    return bytes(value)
