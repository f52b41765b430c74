"""Full disk, locked database, database gone: a clear refusal, and nothing that was acknowledged is lost."""

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from antefix.receipts import verify_receipt
from antefix_server.errors import (
    RemovalUnfinished,
    UnknownUser,
    VaultBusy,
    VaultDamaged,
    VaultError,
    VaultFull,
    VaultUnavailable,
)
from antefix_server.vault import Vault
from tests.support.records import some_bytes
from tests.support.vaults import Person, new_vault


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 6 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a small file system needs root here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(vault: Vault, people: list[Person]) -> None:
    """Add users until something refuses."""
    for number in range(1000):
        person = Person.enrolled(vault, f"user {number % 9}")
        person.put(vault, some_bytes(f"{number}", 9000))
        people.append(person)


@pytest.mark.slow
def test_a_full_disk_refuses_writes_and_loses_nothing(small_disk: Path) -> None:
    vault = new_vault(small_disk / "vault")
    people: list[Person] = []
    with pytest.raises(VaultFull, match="no space left for"):
        fill(vault, people)
    assert len(people) > 20
    for _ in range(5):
        with suppress(VaultFull):
            people[0].put(vault, some_bytes("more", 200_000))
    assert [person.stored(vault) for person in people] == [person.record for person in people]
    vault.close()
    with Vault.open(small_disk / "vault", read_only=True) as reader:
        assert [person.stored(reader) for person in people] == [person.record for person in people]


@pytest.mark.slow
def test_on_a_full_disk_a_removal_is_refused_or_destroys_the_key(small_disk: Path) -> None:
    vault = new_vault(small_disk / "vault")
    people = []
    for number in range(60):
        people.append(Person.enrolled(vault, f"user {number % 9}"))
        people[-1].put(vault, some_bytes(f"{number}", 9000))
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    outcomes = set()
    for person in people[:20]:
        try:
            vault.remove(person.user)
            outcomes.add("removed")
        except RemovalUnfinished:
            outcomes.add("unfinished")
        except VaultFull:
            outcomes.add("refused")
            assert person.stored(vault) == person.record  # nothing has happened
            continue
        with pytest.raises(UnknownUser):
            person.stored(vault)
    assert outcomes
    filler.unlink()
    for person in people[:20]:
        verify_receipt(vault.remove(person.user).text(), vault.log_key, user=person.user)
    assert vault.shelf.count() == 40
    assert [person.stored(vault) for person in people[20:]] == [person.record for person in people[20:]]
    vault.close()


def test_a_database_that_reaches_its_limit_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """The same without a file system of its own: SQLite says that it is full."""
    vault = new_vault(tmp_path / "vault")
    ann = Person.enrolled(vault, "ann")
    ann.put(vault, b"one")
    with vault.shelf.database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 4}")
    with pytest.raises(VaultFull, match="nothing that was stored is lost"):
        fill(vault, [])
    assert ann.stored(vault) == ann.record
    vault.close()


def test_a_locked_database_is_waited_for_and_then_named(tmp_path: Path) -> None:
    new_vault(tmp_path / "vault").close()
    with Vault.open(tmp_path / "vault", wait_s=0.2) as vault:
        ann = Person.enrolled(vault, "ann")
        ann.put(vault, b"one")
        with closing(sqlite3.connect(tmp_path / "vault" / "records.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(VaultBusy, match=r"records\.db is locked by somebody else; try again"):
                ann.put(vault, b"two")
            assert ann.stored(vault) == ann.record  # readers do not wait
            other.execute("ROLLBACK")
        ann.put(vault, b"two")


@pytest.mark.parametrize("part", ["records.db", "keys"])
def test_a_file_that_is_deleted_or_exchanged_under_us_is_not_written_to(part: str, tmp_path: Path) -> None:
    vault = new_vault(tmp_path / "vault")
    ann = Person.enrolled(vault, "ann")
    ann.put(vault, b"one")
    path = tmp_path / "vault" / part
    shutil.copy(path, tmp_path / "copy")
    path.unlink()
    with pytest.raises(VaultUnavailable, match=part.replace(".", r"\.")):
        Person.enrolled(vault, "bob").put(vault, b"lost")
    shutil.copy(tmp_path / "copy", path)
    with pytest.raises(VaultUnavailable, match="exchanged"):
        Person.enrolled(vault, "bob").put(vault, b"lost")
    vault.close()


@pytest.mark.parametrize("part", ["records.db", "keys", "removals.db", "vault.json"])
def test_a_part_that_is_missing_is_named_and_not_made_anew(part: str, tmp_path: Path) -> None:
    new_vault(tmp_path / "vault").close()
    (tmp_path / "vault" / part).unlink()
    with pytest.raises(VaultUnavailable, match=part):
        Vault.open(tmp_path / "vault")
    assert not (tmp_path / "vault" / part).exists()


@pytest.mark.parametrize("part", ["records.db", "keys", "removals.db", "vault.json"])
def test_a_part_that_is_damaged_is_refused(part: str, tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        Person.enrolled(vault, "ann").put(vault, b"one")
    (tmp_path / "vault" / part).write_bytes(b"geheim" * 1000)
    with pytest.raises(VaultError) as caught:
        Vault.open(tmp_path / "vault")
    assert isinstance(caught.value, VaultDamaged | VaultUnavailable)
    assert "geheim" not in str(caught.value)


def test_a_flipped_bit_in_a_slot_is_damage_and_not_absence(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        ann, bob = Person.enrolled(vault, "ann"), Person.enrolled(vault, "bob")
        ann.put(vault, b"one")
        bob.put(vault, b"two")
    path = tmp_path / "vault" / "keys"
    content = bytearray(path.read_bytes())
    content[4096 + 5] ^= 1
    path.write_bytes(content)
    with Vault.open(tmp_path / "vault") as vault:
        with pytest.raises(VaultDamaged, match="slot 0 of"):
            ann.stored(vault)
        assert bob.stored(vault) == bob.record


def test_every_stored_byte_is_authenticated(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        ann, bob = Person.enrolled(vault, "ann"), Person.enrolled(vault, "bob")
        ann.put(vault, b"one")
        bob.put(vault, b"two")
        for change in (
            "UPDATE pieces SET content = CAST(substr(content, 1, length(content) - 1) || x'00' AS BLOB)",
            "UPDATE pieces SET content = (SELECT content FROM pieces AS p WHERE p.record != pieces.record)",
            "UPDATE records SET head = (SELECT head FROM records AS r WHERE r.id != records.id)",
            "UPDATE pieces SET content = 'text'",
            "UPDATE records SET head = 1000000000000",  # bytes that would not fit in memory
            "DELETE FROM pieces",
        ):
            with vault.shelf.database.writing() as connection:
                connection.exec_driver_sql(change)
            for person in (ann, bob):
                with pytest.raises(VaultDamaged, match="is damaged"):
                    person.stored(vault)


@pytest.mark.parametrize("value", ["1000000000000", "'text'", "x'00'"])
def test_a_row_of_any_content_does_not_stop_a_removal(value: str, tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        ann, bob = Person.enrolled(vault, "ann"), Person.enrolled(vault, "bob")
        ann.put(vault, b"one")
        with vault.shelf.database.writing() as connection:
            connection.exec_driver_sql(f"UPDATE records SET head = {value}")
        bob.put(vault, b"two")
        verify_receipt(vault.remove(ann.user).text(), vault.log_key, user=ann.user)
        assert bob.stored(vault) == bob.record
        with pytest.raises(UnknownUser):
            ann.stored(vault)
