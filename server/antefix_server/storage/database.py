"""Opens databases so that what is deleted is gone, and what is committed stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Select, create_engine, event, make_url, text
from sqlalchemy.dialects.sqlite import dialect as _sqlite
from sqlalchemy.exc import ArgumentError

from antefix.common.files import sync_folder
from antefix.errors import InvalidArgument
from antefix_server.errors import VaultBusy, VaultUnavailable
from antefix_server.storage.os_errors import database, files

_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",  # a commit that was answered survives a power cut
    "secure_delete=ON",  # per connection, and off by default
    "temp_store=MEMORY",
    "foreign_keys=ON",
    "trusted_schema=OFF",
    "cell_size_check=ON",
)


# A machine that is gone without a word is noticed after a minute: by us, and by PostgreSQL, which else would
# keep the locks of a writer whose power was cut.
_KEEPALIVES = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_SERVER_KEEPALIVES = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"


class Made:
    """A query that is made once, and that SQLite is asked without SQLAlchemy in between.

    Making a statement, and what is done around it, takes longer than SQLite does to answer it.
    """

    def __init__(self, query: Select[Any]) -> None:
        """Take a query whose values are all `bindparam`s."""
        compiled = query.compile(dialect=_sqlite())
        self._query, self._text, self._names = query, compiled.string, tuple(compiled.positiontup or ())

    def rows(self, connection: Connection, **values: Any) -> list[Any]:
        """All rows, in the transaction that runs."""
        if connection.dialect.name != "sqlite":
            return list(connection.execute(self._query, values))
        raw: Any = connection.connection.driver_connection
        result: list[Any] = raw.execute(self._text, [values[name] for name in self._names]).fetchall()
        return result


class Database:
    """An engine and the two ways to use it.

    Attributes:
        name: for messages; no password in it.
    """

    def __init__(self, engine: Engine, name: str, path: Path | None = None) -> None:
        """Use `of_file` or `of_url`."""
        self.engine, self.name, self.path = engine, name, path
        self._file = None if path is None else _file_of(path)

    @classmethod
    def of_file(cls, path: Path, *, wait_s: float, create: bool = False) -> Database:
        """A SQLite file.

        Raises:
            VaultUnavailable: it is not there, and is not to be made.
        """
        with files(path):
            if create:
                path.touch(mode=0o600)
                sync_folder(path.parent)
            if not path.is_file():
                raise VaultUnavailable(
                    f"{path} is not there", "check the folder, or restore it from a backup"
                )
        url = URL.create("sqlite", database=str(path))
        # A statement that is kept keeps the values that were last bound to it.
        options = {"timeout": wait_s, "cached_statements": 0}
        engine = create_engine(url, connect_args=options, hide_parameters=True)
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        return cls(engine, str(path), path)

    @classmethod
    def of_backup(cls, path: Path) -> Database:
        """A SQLite file that nobody writes to, perhaps where nobody can.

        Raises:
            VaultUnavailable: it is not there.
        """
        if not path.is_file():
            raise VaultUnavailable(f"{path} is not there", "check the path of the backup")
        query = {"mode": "ro", "immutable": "1", "uri": "true"}
        url = URL.create("sqlite", database=path.absolute().as_uri(), query=query)
        return cls(create_engine(url, hide_parameters=True), str(path), path)

    @classmethod
    def of_reader(cls, path: Path, *, wait_s: float) -> Database:
        """A SQLite file that is only read; where nobody has it open, without SQLite's files beside it.

        On a full disk these could not be made, and reading must go on there.
        """
        if path.with_name(f"{path.name}-wal").exists():
            return cls.of_file(path, wait_s=wait_s)
        return cls.of_backup(path)

    @classmethod
    def of_url(cls, url: str, *, wait_s: float) -> Database:
        """PostgreSQL, by a URL that SQLAlchemy understands.

        Raises:
            InvalidArgument: another kind of URL; it is not repeated, there may be a password in it.
        """
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):  # a port that is none is a ValueError with what may be a password
            raise InvalidArgument("the database URL cannot be read", "postgresql://user@host/name") from None
        if parsed.get_backend_name() != "postgresql":
            raise InvalidArgument(
                f"the database URL is of {parsed.get_backend_name()}",
                "use postgresql://…, or none for SQLite",
            )
        parsed = parsed.set(drivername="postgresql+psycopg")
        options = f"-c lock_timeout={int(wait_s * 1000)} -c synchronous_commit=on {_SERVER_KEEPALIVES}"
        timeouts = {"connect_timeout": max(2, int(wait_s)), "options": options, **_KEEPALIVES}
        # Several statements of one transaction must see one moment, as they do in SQLite.
        engine = create_engine(
            parsed,
            connect_args=timeouts,
            hide_parameters=True,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
        )
        return cls(engine, parsed.render_as_string(hide_password=True))

    @property
    def is_file(self) -> bool:
        """Whether it is SQLite."""
        return self.path is not None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A short transaction that sees one moment."""
        with database(self.name), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[Connection]:
        """A transaction, durable once left; or, with less waiting, only after the next one or `purge`."""
        with database(self.name):
            self._require_there()
            with self.engine.connect() as plain, self._waiting(plain, durable):
                connection = plain.execution_options(antefix_writes=True)
                with connection.begin():
                    yield connection

    @contextmanager
    def held(self, who: bytes) -> Iterator[None]:
        """Be the only writer of a vault in PostgreSQL.

        In the folder the lock of the key file says so; a copy of the folder on another machine has a key file
        of its own, and a removal here would leave the key there.

        Raises:
            VaultBusy: another one is.
        """
        if self.is_file:
            yield
            return
        query, number = text("SELECT pg_advisory_lock(:number)"), int.from_bytes(who[:8], "big", signed=True)
        with database(self.name), self.engine.connect() as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(query, {"number": number})
            try:
                yield
            finally:
                connection.invalidate()  # closed, not given back to the pool with its lock

    def purge(self) -> None:
        """Bring what was deleted down to the disk: nothing of it is left in the file or its WAL.

        Raises:
            VaultBusy: a reader is in the way.
        """
        if not self.is_file:
            return  # PostgreSQL keeps dead rows; what they hold has no key any more
        with database(self.name), self.engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            busy, *_ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise VaultBusy(f"somebody reads {self.name} and holds up its checkpoint", "try again")

    def server_bytes(self) -> int:
        """What PostgreSQL takes on its disk for this database; 0 for SQLite, whose files are the caller's."""
        if self.is_file:
            return 0
        with self.reading() as connection:
            query = text("SELECT pg_database_size(current_database())")
            return int(connection.execute(query).scalar_one())

    def seal(self) -> None:
        """Close it as one file, complete without a WAL beside it."""
        with database(self.name), self.engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            raw.execute("PRAGMA journal_mode=DELETE").close()
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _waiting(self, connection: Connection, durable: bool) -> Iterator[None]:
        if durable or not self.is_file:
            yield
            return
        raw: Any = connection.connection.driver_connection
        raw.execute("PRAGMA synchronous=NORMAL").close()
        try:
            yield
        finally:
            raw.execute("PRAGMA synchronous=FULL").close()

    def _require_there(self) -> None:
        """SQLite would go on writing to a file that was deleted or exchanged, and lose it all."""
        if self.path is None:
            return
        try:
            there = _file_of(self.path) == self._file
        except OSError:
            there = False
        if not there:
            raise VaultUnavailable(f"{self.path} was deleted or exchanged while in use", "restart the server")


def _file_of(path: Path) -> tuple[int, int]:
    """Device and inode: the same number on another device is another file."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _configure(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says, not where the driver guesses
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("antefix_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
