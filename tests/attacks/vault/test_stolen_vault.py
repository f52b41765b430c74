"""A thief has the server's whole disk, or all but the key file: nobody's prefix, text or name is on it."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from antefix.crypto.aead import SecretBytes
from antefix.errors import RecordError
from antefix.keys import UserKey
from antefix.records import read_header
from antefix_server.backups import backup_keys, backup_records
from antefix_server.errors import VaultDamaged
from antefix_server.storage.database import Database
from antefix_server.vault import Vault
from antefix_server.vault.envelope import UserEnvelope as ShredOwner
from antefix_server.vault.record_store import RecordStore, Stored
from tests.server.needles import Needles
from tests.support.records import some_bytes
from tests.support.vaults import Person, new_vault

USERS = 12


@dataclass
class Loot:
    """A copied folder, and what its owner would not like to see in it."""

    folder: Path
    people: list[Person]

    @property
    def secrets(self) -> list[bytes]:
        keys = [bytes(person.owner.key.secret.data) for person in self.people]
        return keys + [payload(person.owner.name)[:32] for person in self.people]

    @property
    def names(self) -> list[bytes]:
        return [person.owner.name.encode() for person in self.people]

    @property
    def ids(self) -> list[bytes]:
        return [one for person in self.people for one in (person.user, person.prefix, person.owner.device.id)]


def payload(name: str) -> bytes:
    return name.encode() + some_bytes(f"payload of {name}", 3000)


@pytest.fixture(scope="module")
def loot(tmp_path_factory: pytest.TempPathFactory) -> Loot:
    """Taken while the server runs, with WAL, logs and backups."""
    home = tmp_path_factory.mktemp("server")
    with new_vault(home / "vault", mirror=home / "mirror.db") as vault:
        people = [Person.enrolled(vault, f"ann.{number}@example.org") for number in range(USERS)]
        for person in people:
            person.put(vault, payload(person.owner.name))
        backup_records(vault, home / "backups" / "records")
        backup_keys(vault, home / "backups" / "keys")
        for person in people[:3]:
            vault.remove(person.user)
        taken = tmp_path_factory.mktemp("thief") / "copy"
        shutil.copytree(home, taken)
    return Loot(taken, people)


def without_keys(loot: Loot) -> list[Path]:
    return [
        path for path in loot.folder.rglob("*") if path.is_file() and path != loot.folder / "vault" / "keys"
    ]


def records_with_keys(loot: Loot) -> Iterator[bytes]:
    with Vault.open(loot.folder / "vault", read_only=True) as vault:
        for person in loot.people[3:]:
            yield person.stored(vault)


def test_nothing_that_was_sealed_lies_open_anywhere(loot: Loot) -> None:
    assert Needles(loot.secrets).within(b"".join(loot.secrets)) == set(loot.secrets)  # control
    for path in [*without_keys(loot), loot.folder / "vault" / "keys"]:
        content = path.read_bytes()
        assert Needles(loot.secrets).within(content) == set(), path.name
        assert not any(name in content or name.hex().encode() in content for name in loot.names), path.name


def test_without_the_key_file_there_is_not_even_an_id(loot: Loot) -> None:
    covers = [read_header(record) for record in records_with_keys(loot)]
    needles = Needles([*loot.ids, *(cover.digest for cover in covers)])
    assert len(needles.within(b"".join(records_with_keys(loot)))) >= USERS  # control: ids stand on records
    for path in without_keys(loot):
        assert needles.within(path.read_bytes()) == set(), path.name


@pytest.mark.slow
def test_without_the_key_file_no_row_opens_under_anything_found(loot: Loot) -> None:
    shelf = RecordStore(Database.of_backup(loot.folder / "backups" / "records"))
    rows = [row for batch in shelf.rows() for row in batch]
    shelf.database.close()
    victim = loot.people[3]
    with Vault.open(loot.folder / "vault", read_only=True) as vault, vault.owner(victim.user) as owner:
        right = bytes(owner.key.data)  # control
    found = list(keys_in(without_keys(loot), step=64))
    assert len(found) > 500
    assert [opened(rows, victim, key) for key in (right, *found)] == [1] + [0] * len(found)


def opened(rows: list[Stored], victim: Person, key: bytes) -> int:
    """How many rows open for somebody whose ids the thief knows."""
    count = 0
    with ShredOwner(victim.owner.address.tenant, victim.user, SecretBytes(bytearray(key))) as owner:
        for row in rows:
            with suppress(VaultDamaged):
                owner.open_head(row.head)
                count += 1
    return count


def test_with_the_key_file_a_thief_has_what_the_devices_sent_and_cannot_open_it(loot: Loot) -> None:
    records = list(records_with_keys(loot))
    assert len(records) == USERS - 3
    for person, record in zip(loot.people[3:], records, strict=True):
        assert record == person.record
        person.owner.open(record).wipe()  # control: its owner can
    victim, record = loot.people[3], records[0]
    for key in keys_in([loot.folder / "vault" / "keys"], step=16):
        victim.owner.key, kept = UserKey(SecretBytes(bytearray(key)), 1), victim.owner.key
        with pytest.raises(RecordError):
            victim.owner.open(record)
        victim.owner.key = kept


def keys_in(paths: list[Path], step: int) -> Iterator[bytes]:
    """Everything in some files that could be a key."""
    for path in paths:
        content = path.read_bytes()
        for at in range(0, len(content) - 32, step):
            if any(content[at : at + 32]):
                yield content[at : at + 32]
