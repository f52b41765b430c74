"""The vault itself; the package says what it promises."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from antefix.errors import InvalidArgument
from antefix.keys import DevicePublic
from antefix.receipts import Checkpoint, LogKey, Receipt
from antefix_server.removal_log.log import RemovalLog
from antefix_server.storage import migrate
from antefix_server.storage.database import Database
from antefix_server.storage.staging import scratch
from antefix_server.vault import creation, reader
from antefix_server.vault.envelope import RecordMeta, UserEnvelope
from antefix_server.vault.key_file import Identity, KeyFile
from antefix_server.vault.record_store import RecordStore
from antefix_server.vault.removal import Remover
from antefix_server.vault.settings import KEYS, LOG, RECORDS, UNFINISHED, Settings
from antefix_server.vault.writer import Writer

__all__ = ["RecordMeta", "Vault"]

_DAY_S = 86_400
_MOST_AT_ONCE = 1_000_000


class Vault:
    """An open vault; close it, or use it in a `with` block.

    Attributes:
        folder: where it is.
        settings: where its parts are.
    """

    def __init__(self, folder: Path, *, wait_s: float = 5.0, read_only: bool = False) -> None:
        """Use `open`."""
        self.folder, self.settings = folder, Settings.read(folder)
        self._writes, self._lock = not read_only, threading.RLock()
        with ExitStack() as opened:
            self._keys = KeyFile(folder / KEYS, read_only=read_only)
            opened.callback(self._keys.close)
            self._open(wait_s, opened)
            self._close = opened.pop_all().close

    @classmethod
    def create(cls, folder: Path, operator: DevicePublic, settings: Settings | None = None) -> Self:
        """Make a vault and open it.

        Args:
            folder: new or empty.
            operator: public keys that backups of the keys are sealed to.
            settings: PostgreSQL and mirror, if any.

        Raises:
            VaultUnavailable: the folder has something in it, or cannot be made.
            InvalidArgument: what no log or no database can be called; nothing is left behind.
        """
        with creation.created(folder, operator, settings or Settings()):
            return cls(folder)

    @classmethod
    def open(cls, folder: Path, *, wait_s: float = 5.0, read_only: bool = False) -> Self:
        """Open a vault, and finish what a crash cut off.

        Args:
            folder: as given to `create`.
            wait_s: how long to wait for somebody who has locked a database.
            read_only: leave writing to another process.

        Raises:
            VaultBusy: another process writes.
            VaultUnavailable, VaultDamaged: a part of it is not there, or not of this vault.
        """
        return cls(folder, wait_s=wait_s, read_only=read_only)

    @property
    def tenant(self) -> bytes:
        """Id of this vault, 16 bytes: the `tenant` of every record in it."""
        return self._keys.identity.tenant

    @property
    def shelf(self) -> RecordStore:
        """The stored rows, for a backup of them."""
        return self._shelf

    @property
    def identity(self) -> Identity:
        """Keys of the vault itself. Private."""
        return self._keys.identity

    @property
    def log_key(self) -> LogKey:
        """What receipts are verified with; publish it where users trust it."""
        signing = self._keys.identity.signing  # of the log itself a reader knows nothing
        return LogKey(self.settings.origin, signing.public_key().public_bytes_raw())

    def enrol(self) -> bytes:
        """Id of a new user, 16 random bytes."""
        return self.enrol_many(1)[0]

    def enrol_many(self, count: int) -> list[bytes]:
        """Ids of many, a million at most, for the price of one."""
        if type(count) is not int or not 0 <= count <= _MOST_AT_ONCE:
            raise InvalidArgument(f"{count!r} users at once", f"enrol 0 to {_MOST_AT_ONCE:,}")
        with self.writing():
            return self._keys.enrol(count)

    def put(self, record: bytes, *, replaces: int = 0) -> RecordMeta:
        """Store a record: a newer version, or the same one under a newer user key.

        Args:
            record: as sealed; its cover says whose it is.
            replaces: version that the caller knows to be stored; 0 for none.

        Raises:
            RecordMismatch: not a record, or not of this vault.
            UnknownUser: its user was never enrolled, or is removed.
            VersionConflict: another version is stored, or this one does not follow it.
        """
        return self.put_many([(record, replaces)])[0]

    def put_many(self, records: Iterable[tuple[bytes, int]]) -> list[RecordMeta]:
        """Store many records, each with the version it replaces, in one transaction: all or none."""
        with self.writing():
            return self._writer.put_all(list(records))

    def put_stream(self, chunks: Iterable[bytes], *, replaces: int = 0) -> RecordMeta:
        """Store a large record as it comes in; others write between its pieces.

        Raises:
            As `put`; also RecordReplaced: its user was removed meanwhile.
        """
        self._require_writer()
        return self._writer.put_stream(iter(chunks), replaces)

    def head(self, user: bytes, prefix: bytes) -> RecordMeta:
        """What is stored, without its content.

        Raises:
            UnknownUser, RecordAbsent: nothing is.
        """
        with self.owner(user) as owner:
            return self._find(owner, prefix)[1]

    def heads(self, user: bytes) -> list[RecordMeta]:
        """What is stored of a user, without content.

        Raises:
            UnknownUser.
        """
        with self.owner(user) as owner, self._shelf.database.reading() as connection:
            return reader.heads(self._shelf, connection, owner)

    def get(self, user: bytes, prefix: bytes) -> bytes:
        """A record as it was put.

        Raises:
            UnknownUser, RecordAbsent: nothing is stored.
            VaultDamaged: what is stored was changed.
        """
        with self.owner(user) as owner, self._shelf.database.reading() as connection:
            return reader.record(self._shelf, connection, owner, _sized("prefix", prefix))

    def stream(self, user: bytes, prefix: bytes) -> Iterator[bytes]:
        """A record piece by piece, each read in its own short transaction.

        Raises:
            As `get`; also RecordReplaced, between two pieces: begin again.
        """
        with self.owner(user) as owner:
            row, head = self._find(owner, prefix)
            yield from owner.open(head, self._pieces(row))

    def remove(self, user: bytes) -> Receipt:
        """Remove a user (`docs/security/removal.md`). The same call within 8 days gives the same receipt.

        Raises:
            UnknownUser: never enrolled, or removed long ago.
            VaultBusy, VaultFull: not removed yet; where the mirror has it, the next removal or start does it.
            RemovalUnfinished: it is recorded and the key destroyed, but unreadable bytes are left to delete.
        """
        return self.remove_many([user])[0]

    def remove_many(self, users: Sequence[bytes]) -> list[Receipt]:
        """Remove many users, for the price of one."""
        for user in users:
            _sized("user", user)
        with self.writing():
            return self._remover.remove(users, _today())

    @contextmanager
    def log(self) -> Iterator[RemovalLog]:
        """The log, with both copies level, to append statements to; nobody else writes meanwhile."""
        with self.writing():
            self._remover.sync_mirror()
            yield self._log

    def checkpoint(self) -> Checkpoint:
        """The removal log's signed size and root, for witnesses and auditors."""
        with self.writing():
            return self._log.checkpoint()

    def consistency(self, first: int) -> list[bytes]:
        """Proof that the log only grew since it had `first` leaves (RFC 9162, 2.1.4)."""
        with self.writing():
            return self._log.consistency(first)

    @contextmanager
    def paused(self) -> Iterator[KeyFile]:
        """Nobody writes meanwhile; the keys, for a backup of them."""
        with self.writing():
            yield self._keys

    def close(self) -> None:
        """Close everything, and let the next writer in."""
        with self._lock:
            self._close()

    def __enter__(self) -> Self:
        """The vault itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _open(self, wait_s: float, opened: ExitStack) -> None:
        url = self.settings.url
        database = (
            Database.of_file(self.folder / RECORDS, wait_s=wait_s)
            if url is None
            else Database.of_url(url, wait_s=wait_s)
        )
        opened.callback(database.close)
        self._shelf = RecordStore(database)
        if not self._writes:
            self._keys.exclude(RemovalLog.slots_in(self.folder / LOG, wait_s))
            return
        signing = self._keys.identity.signing
        mirror, origin = self.settings.mirror, self.settings.origin
        self._log = RemovalLog(self.folder / LOG, mirror, origin, signing, wait_s)
        opened.callback(self._log.close)
        self._remover = Remover(self._keys, self._shelf, self._log)
        self._writer = Writer(self._keys, self._shelf, self._lock)
        opened.enter_context(database.held(self.tenant))
        migrate.upgrade(database)
        self._shelf.claim(self.tenant)
        self._remover.replay()
        self._log.forget(_today())
        self._shelf.sweep()
        with scratch(self.folder / UNFINISHED):
            pass  # what a backup left that a crash cut off is gone

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile."""
        self._require_writer()
        with self._lock:
            yield

    def owner(self, user: bytes) -> UserEnvelope:
        """A living user's key; use it in a `with` block.

        Raises:
            UnknownUser.
        """
        return UserEnvelope(self.tenant, user, self._keys.key_of(_sized("user", user)))

    def _require_writer(self) -> None:
        if not self._writes:
            raise InvalidArgument("this vault is open for reading", "open it without read_only")
        self._keys.require_writer()

    def _find(self, owner: UserEnvelope, prefix: bytes) -> tuple[int, RecordMeta]:
        """Row and head of a record."""
        with self._shelf.database.reading() as connection:
            return reader.find(self._shelf, connection, owner, _sized("prefix", prefix))

    def _pieces(self, row: int) -> Iterator[bytes]:
        for number in itertools.count():
            piece = self._shelf.piece(row, number)
            if piece is None:
                return
            yield piece


def _today() -> int:
    return int(time.time()) // _DAY_S


def _sized(what: str, value: object) -> bytes:
    """An id, and nothing that a name, a path or a statement could be."""
    if not isinstance(value, bytes) or len(value) != 16:
        had = f"{len(value):,} bytes" if isinstance(value, bytes) else f"a {type(value).__name__}"
        raise InvalidArgument(
            f"{what} id is {had}, expected 16 bytes", "use the id that was given, not a name"
        )
    return value
