"""What happens between two steps of a writer: removals, interrupts, other devices."""

import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import event

from antefix.errors import RecordMismatch
from antefix_server.errors import RecordReplaced, UnknownUser, VersionConflict
from antefix_server.vault import Vault, writer
from antefix_server.vault.envelope import UserEnvelope
from antefix_server.vault.record_store import RecordStore
from tests.support.vaults import Person, new_vault


def rows(vault: Vault) -> list[int]:
    """Rows in both tables, uploads too."""
    with vault.shelf.database.reading() as connection:
        return [
            int(connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one())
            for name in ("records", "pieces")
        ]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["key_of", "begin_upload", "body"])
def test_a_removal_at_any_moment_of_an_upload_leaves_nothing(
    step: str, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = Person.enrolled(vault, "ann")
    record = ann.next(b"mine")
    removal = threading.Thread(target=vault.remove, args=(ann.user,))

    def removing(real: object) -> object:
        """After `real`, another thread removes the user, or waits until it may."""

        def call(*args: object) -> object:
            result = real(*args)  # type: ignore[operator]
            monkeypatch.undo()
            removal.start()
            removal.join(0.5)
            return result

        return call

    where, name = {
        "key_of": (vault._keys, "key_of"),
        "begin_upload": (vault.shelf, "begin_upload"),
        "body": (writer, "_Body"),
    }[step]
    monkeypatch.setattr(where, name, removing(getattr(where, name)))
    with suppress(UnknownUser, RecordReplaced):  # or it was stored just before
        vault.put_stream([record])
    removal.join()
    assert rows(vault) == [0, 0]


def test_an_interrupt_after_the_commit_loses_neither_version(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the connection breaks between a COMMIT and its answer."""
    ann = Person.enrolled(vault, "ann")
    ann.put(vault, b"one")
    second, settle = ann.next(b"two"), writer.Writer._settle

    def interrupted(self: writer.Writer, *args: object) -> None:
        settle(self, *args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(writer.Writer, "_settle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vault.put_stream([second], replaces=1)
    assert ann.stored(vault) == second


@pytest.mark.parametrize("streamed", [False, True])
def test_a_version_under_an_older_user_key_does_not_follow(streamed: bool, vault: Vault) -> None:
    """One device changed the key to lock out another; a third has not heard and writes under the old one."""
    ann = Person.enrolled(vault, "ann")
    ann.put(vault, b"one")
    unaware = ann.next(b"two")
    again = ann.rotated()
    vault.put(again, replaces=1)
    with pytest.raises(VersionConflict, match="version 2 in epoch 1 does not follow version 1 in epoch 2"):
        vault.put_stream([unaware], replaces=1) if streamed else vault.put(unaware, replaces=1)
    assert ann.stored(vault) == again


def test_a_stream_is_not_taken_that_no_device_would_open(vault: Vault) -> None:
    """Its header's four bytes could say 4 GiB; a record has 64 MiB at most (see the record format)."""
    ann = Person.enrolled(vault, "ann")
    header = bytearray(ann.next(b"mine")[:354])
    header[162:166] = struct.pack(">I", 64 * 2**20 + 1)

    def sent() -> Iterator[bytes]:
        yield bytes(header)
        raise AssertionError("it goes on reading")

    with pytest.raises(RecordMismatch, match="body of the record is 67,108,865 bytes, expected 67,108,864"):
        vault.put_stream(sent())
    assert rows(vault) == [0, 0]


def test_a_user_with_more_records_than_a_statement_has_values_can_be_removed(tmp_path: Path) -> None:
    """SQLite takes 32,766 values (as it is built by default) and PostgreSQL 65,535; here it is 600."""
    with new_vault(tmp_path / "vault") as vault:
        event.listen(vault.shelf.database.engine, "connect", lambda raw, _: raw.setlimit(9, 600))
        vault.shelf.database.engine.dispose()
        ann = Person.enrolled(vault, "ann")
        with vault.owner(ann.user) as owner:
            fill(vault.shelf, owner, 1300)
        vault.remove(ann.user)
        assert rows(vault) == [0, 0]


def fill(shelf: RecordStore, owner: UserEnvelope, count: int) -> None:
    """Rows of one user, faster than with records."""
    places = [owner.place(number.to_bytes(16, "big")) for number in range(count)]
    with shelf.database.writing() as connection:
        for at in range(0, count, 100):
            shelf.add_all(
                connection, [(place, owner.tag, b"head", [b"piece"]) for place in places[at : at + 100]]
            )
