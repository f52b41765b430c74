"""Puts records into the vault: compare-and-swap, many in one transaction, or one piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress

from antefix.errors import InvalidArgument, RecordMismatch
from antefix.records import RecordHeader, read_header
from antefix_server.errors import VaultError, VersionConflict
from antefix_server.vault.envelope import RecordMeta, UserEnvelope
from antefix_server.vault.key_file import KeyFile
from antefix_server.vault.record_store import RecordStore


class Writer:
    """Stores records for living users."""

    def __init__(self, keys: KeyFile, shelf: RecordStore, lock: AbstractContextManager[object]) -> None:
        """Use what the vault is made of; `lock` keeps other writers and removals away."""
        self._keys, self._shelf, self._lock = keys, shelf, lock

    def put_all(self, records: Sequence[tuple[bytes, int]]) -> list[RecordMeta]:
        """Store records, each with the version it replaces; all or none. The caller holds the lock."""
        covers = [self._admitted(read_header(record)) for record, _ in records]
        with ExitStack() as stack:
            owners = [stack.enter_context(self._owner(cover)) for cover in covers]
            places = [
                owner.place(cover.edition.address.prefix) for owner, cover in zip(owners, covers, strict=True)
            ]
            if len(set(places)) < len(places):
                raise InvalidArgument(
                    "two records of one prefix were put at once", "put them one after another"
                )
            new, heads, old = [], [RecordMeta.of(cover) for cover in covers], []
            with self._shelf.database.writing() as connection:
                stored = self._shelf.find_all(connection, places)
                for at, owner in enumerate(owners):
                    prior = stored.get(places[at])
                    _compare(
                        None if prior is None else owner.open_head(prior.head), covers[at], records[at][1]
                    )
                    old += [] if prior is None else [prior.id]
                    content = list(owner.seal(heads[at], [records[at][0]]))
                    new.append((places[at], owner.tag, owner.seal_head(heads[at]), content))
                if old:
                    self._shelf.drop(connection, old)
                if new:
                    self._shelf.add_all(connection, new)
            return heads

    def put_stream(self, chunks: Iterator[bytes], replaces: int) -> RecordMeta:
        """Store a record as it comes in. Takes the lock for each piece."""
        start = bytearray()
        while len(start) < RecordHeader.SIZE and (chunk := next(chunks, None)) is not None:
            start += chunk
        early = self._admitted(read_header(bytes(start), bytes(32)))
        with ExitStack() as stack:
            with self._lock:  # held once: a row begun after the user's removal would be nobody's to delete
                owner = stack.enter_context(self._owner(early))
                upload = self._shelf.begin_upload(owner.tag, owner.seal_head(RecordMeta.of(early)))
            body = _Body(bytes(start), chunks, early.size)
            try:
                for number, piece in enumerate(owner.seal(RecordMeta.of(early), body)):
                    with self._lock:
                        self._shelf.add_piece(upload, number, piece)
                return self._settle(owner, upload, read_header(bytes(start), body.digest()), replaces)
            except BaseException:
                with suppress(VaultError), self._lock:
                    self._shelf.drop_upload(upload)  # else the next start does
                raise

    def _settle(self, owner: UserEnvelope, upload: int, cover: RecordHeader, replaces: int) -> RecordMeta:
        head, place = RecordMeta.of(cover), owner.place(cover.edition.address.prefix)
        with self._lock, self._shelf.database.writing() as connection:
            prior = self._shelf.find(connection, place)
            _compare(None if prior is None else owner.open_head(prior.head), cover, replaces)
            if prior is not None:
                self._shelf.drop(connection, [prior.id])
            self._shelf.settle(connection, upload, place, owner.seal_head(head))
        return head

    def _admitted(self, cover: RecordHeader) -> RecordHeader:
        theirs, ours = cover.edition.address.tenant, self._keys.identity.tenant
        if theirs != ours:
            raise RecordMismatch(
                f"tenant of the record is {theirs.hex()}, expected {ours.hex()}", "seal it for this vault"
            )
        return cover

    def _owner(self, cover: RecordHeader) -> UserEnvelope:
        user = cover.edition.address.user
        return UserEnvelope(self._keys.identity.tenant, user, self._keys.key_of(user))


class _Body:
    """The chunks of an upload, counted and hashed as they pass."""

    def __init__(self, start: bytes, rest: Iterator[bytes], size: int) -> None:
        self._start, self._rest, self._size = start, rest, size
        self._hash = hashlib.sha256(start[RecordHeader.SIZE :])

    def __iter__(self) -> Iterator[bytes]:
        seen = len(self._start)
        yield self._start
        for chunk in self._rest:
            seen += len(chunk)
            if seen > self._size:
                break
            self._hash.update(chunk)
            yield chunk
        if seen != self._size:
            more = " or more" if seen > self._size else ""
            raise RecordMismatch(
                f"size of the record is {seen:,} bytes{more}, expected {self._size:,} as its header says",
                "send it again",
            )

    def digest(self) -> bytes:
        return self._hash.digest()


def _compare(stored: RecordMeta | None, cover: RecordHeader, replaces: int) -> None:
    """Refuse a record that is not the next of what is stored.

    A version may be skipped where the caller knows what is stored: after a restore, devices are ahead. An
    epoch never goes back, nor does a new version: who has not heard of a new user key would else hand the
    next version to the device that the key was changed for. (`digest` and `replaces` do not tell: a new user
    key changes neither.)
    """
    now, new, current = 0 if stored is None else stored.version, cover.edition.version, stored
    if replaces != now:
        raise VersionConflict(
            f"version {now} is stored, the record was to replace version {replaces} (0 is none)",
            "fetch the stored one, then decide",
        )
    if current is None:
        return
    if new < now or cover.epoch < current.epoch or (new == now and cover.epoch == current.epoch):
        raise VersionConflict(
            f"version {new} in epoch {cover.epoch} does not follow version {now} in epoch {current.epoch}",
            "fetch the stored one, then decide",
        )
    names = cover.digest if new == now else cover.edition.previous
    if new <= now + 1 and names != current.digest:
        raise VersionConflict(
            f"version {new} follows the record {names.hex()}, stored is {current.digest.hex()}",
            "two devices wrote at once: fetch the stored one, then decide",
        )
