"""After removals nothing of the removed is left: in files, in backups, or in the memory of the server.

Every scan has its control: the same scan finds the same needles before the removal.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from antefix.errors import AntefixError
from antefix.receipts import verify_receipt
from antefix.records import digest_of
from antefix_server.storage.database import Database
from antefix_server.storage.secure_malloc import FORGETFUL
from antefix_server.vault import Vault
from antefix_server.vault.envelope import UserEnvelope as ShredOwner
from antefix_server.vault.key_file import KeyFile
from antefix_server.vault.record_store import RecordStore
from tests.server.needles import Needles, windows
from tests.support.records import some_bytes
from tests.support.vaults import Person, new_vault


class Server:
    """The process under scan."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        self.process, self.folder = process, folder
        self.tenant = bytes.fromhex(json.loads(self._line())["tenant"])

    def call(self, kind: str, **arguments: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"call": kind, **arguments}).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self._line())

    def put(self, person: Person, payload: bytes) -> None:
        record = person.next(payload)
        path = self.folder / "upload"
        path.write_bytes(record)
        self.call("put", file=str(path), replaces=str(person.version))
        path.unlink()
        person.record, person.version = record, person.version + 1

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server has died"
        return line


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.vault_process", str(folder / "vault")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | FORGETFUL,
        )
        with process:
            yield Server(process, folder)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0


def scan(folder: Path, users: int, removed: int) -> None:
    (folder / "mirror").mkdir()
    new_vault(folder / "vault", mirror=folder / "mirror" / "log.db").close()
    backups = folder / "backups"
    with serving(folder) as server, Vault.open(folder / "vault", read_only=True) as reader:
        people: list[Person] = []
        stored: dict[bytes, list[bytes]] = {}
        for number in range(users):
            person = Person.with_id(server.tenant, bytes.fromhex(server.call("enrol")), f"user {number}")
            people.append(person)
            stored[person.user] = []
            for version in range(3):
                server.put(person, some_bytes(f"{number} {version}", 4000 + number * 97 % 9000))
                stored[person.user] += [*sent(person.record), *lying(reader, person)]
            server.call("get", user=person.user.hex(), prefix=person.prefix.hex())
        server.call("backup", keys=str(backups / "keys"), records=str(backups / "records"))
        (backups / "keys").rename(folder / "keys-elsewhere")  # short-lived, sealed, in another place
        gone, kept = people[:removed], people[removed:]
        shred = [shred_key(reader, person) for person in gone]
        # HMACs under the shred key name rows; once it is gone they are noise, which SQLite's caches may keep.
        tags = {tag for person in gone for tag in names(reader, person)}
        live = Needles([*shred, *(one for person in gone for one in stored[person.user])])
        ids = Needles(one for person in gone for one in (person.user, person.prefix))
        assert len(live.in_files([folder / "vault"])) > 1  # control: keys and rows are found
        control = live.in_memory(server.process.pid) | ids.in_memory(server.process.pid)
        assert len(control) > removed  # control: what was just served is in memory
        sealed = live.in_files([backups])["records"]
        for person in gone:
            receipt = server.call("remove", user=person.user.hex())
            assert person.user.hex() not in receipt
        busy(server, kept)
        everywhere = [folder / "vault", folder / "mirror", folder]
        files = live.in_files([folder / "vault", folder / "mirror"])
        assert files == {}
        assert ids.in_files(everywhere) == {}
        # What is in the backup is sealed under keys that are gone; the keys themselves are nowhere.
        assert live.in_files([backups])["records"] == sealed
        assert Needles(shred).in_files(everywhere) == {}
        assert ids.in_memory(server.process.pid) == set()
        assert live.in_memory(server.process.pid) <= tags
    opened = opened_with_every_key(folder, backups / "records")
    assert opened == len(kept)


def sent(record: bytes) -> Iterator[bytes]:
    """Of a version as the device sent it: wrapped key, signature, body, digest."""
    yield from windows(record[186:290])
    yield from windows(record[290:])
    yield digest_of(record)


def lying(reader: Vault, person: Person) -> Iterator[bytes]:
    """Of the same version as it lies in the database."""
    with reader.owner(person.user) as owner, reader.shelf.database.reading() as connection:
        yield owner.tag
        row = reader.shelf.find(connection, owner.place(person.prefix))
        assert row is not None
        yield row.place
        yield from windows(row.head)
        for piece in reader.shelf.content(connection, row.id):
            yield from windows(piece)


def names(reader: Vault, person: Person) -> tuple[bytes, bytes]:
    with reader.owner(person.user) as owner:
        return owner.tag, owner.place(person.prefix)


def shred_key(reader: Vault, person: Person) -> bytes:
    with reader.owner(person.user) as owner:
        return bytes(owner.key.data)


def busy(server: Server, people: list[Person]) -> None:
    """What a server does next, so that memory it has freed is used again."""
    for person in people:
        server.put(person, some_bytes(f"again {person.owner.name}", 13_000))
        server.call("get", user=person.user.hex(), prefix=person.prefix.hex())


def opened_with_every_key(folder: Path, backup: Path) -> int:
    """How many records of a backup open under any key that is left in the system."""
    shelf = RecordStore(Database.of_backup(backup))
    file = KeyFile(folder / "vault" / "keys", read_only=True)
    opened = 0
    rows = [row for batch in shelf.rows() for row in batch]
    for _, user, key in file.living():
        with ShredOwner(file.identity.tenant, user, key) as owner:
            for row in rows:
                try:
                    owner.open_head(row.head)
                except AntefixError:
                    continue
                opened += 1
    shelf.database.close()
    file.close()
    return opened


def test_the_scanner_finds_every_form() -> None:
    secret = some_bytes("secret", 48)
    needles = Needles([secret])
    for form in (secret, secret.hex().encode(), json.dumps({"key": secret.hex().upper()}).encode()):
        assert needles.within(some_bytes("before", 1000) + form + some_bytes("after", 1000)) == {secret}
    import base64

    for skipped in range(3):
        assert needles.within(base64.b64encode(bytes(skipped) + secret)) == {secret}
    assert needles.within(some_bytes("other", 100_000)) == set()


@pytest.mark.slow
def test_nothing_of_eight_removed_users_is_left(tmp_path: Path) -> None:
    scan(tmp_path, 12, 8)


@pytest.mark.slow
def test_nothing_of_two_hundred_removed_users_is_left(tmp_path: Path) -> None:
    scan(tmp_path, 300, 200)


def test_a_receipt_is_all_that_is_left_for_the_user(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        ann = Person.enrolled(vault, "ann")
        ann.put(vault, b"one")
        text = vault.remove(ann.user).text()
        key = vault.log_key
    assert verify_receipt(text, key, user=ann.user).removal.user == ann.user
    with Vault.open(tmp_path / "vault") as again:
        assert again.shelf.count() == 0
