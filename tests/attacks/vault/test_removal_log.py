"""The removal log and its mirror: out of step, forged, of another vault; and old keys given to readers."""

import os
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from antefix.errors import InvalidArgument
from antefix.receipts import Removal, verify_receipt
from antefix_server.errors import RecordAbsent, UnknownUser, VaultBusy, VaultDamaged, VaultUnavailable
from antefix_server.removal_log.log_file import Entry, LogFile
from antefix_server.storage.database import Database
from antefix_server.vault import Vault
from antefix_server.vault import vault as module
from antefix_server.vault.settings import Settings
from tests.support.vaults import Person, new_vault


def test_a_failure_between_the_copies_does_not_give_them_two_histories(tmp_path: Path) -> None:
    new_vault(tmp_path / "vault", mirror=tmp_path / "mirror.db").close()
    with Vault.open(tmp_path / "vault", wait_s=0.1) as vault:
        ann, bob, eve = (Person.enrolled(vault, name) for name in ("ann", "bob", "eve"))
        ann.put(vault, b"one")
        with closing(sqlite3.connect(tmp_path / "vault" / "removals.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(VaultBusy, match=r"removals\.db is locked"):
                vault.remove(ann.user)  # the mirror has it by now
            with pytest.raises(VaultBusy, match=r"removals\.db is locked"):
                vault.remove(bob.user)
            other.execute("ROLLBACK")
        verify_receipt(vault.remove(eve.user).text(), vault.log_key, user=eve.user)
        with pytest.raises(UnknownUser):
            ann.stored(vault)
        assert vault.shelf.count() == 0
        for person in (ann, bob):
            verify_receipt(vault.remove(person.user).text(), vault.log_key, user=person.user)
        assert vault.checkpoint().size == 3
    with Vault.open(tmp_path / "vault") as vault:
        assert vault.checkpoint().size == 3


def test_the_mirror_of_another_vault_removes_nobody(tmp_path: Path) -> None:
    """A log without removals is the beginning of every other: by its history it would fit."""
    for name in ("a", "b"):
        new_vault(tmp_path / name, mirror=tmp_path / f"{name}.db").close()
    with Vault.open(tmp_path / "a") as vault:
        vault.remove_many(vault.enrol_many(3))
    with Vault.open(tmp_path / "b") as vault:
        users = vault.enrol_many(3)
    mirror = (tmp_path / "b.db").read_bytes()
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    with pytest.raises(VaultDamaged, match="has entries that this vault did not write"):
        Vault.open(tmp_path / "b")
    (tmp_path / "b.db").write_bytes(mirror)
    with Vault.open(tmp_path / "b") as vault:
        for user in users:
            with pytest.raises(RecordAbsent):  # living, with nothing stored
                vault.head(user, bytes(16))


@pytest.mark.parametrize("removals", [0, 2])
def test_who_writes_to_the_mirror_gets_no_signature_for_it(removals: int, tmp_path: Path) -> None:
    """Else the next start would take it over, and the log sign a receipt of a removal that never was."""
    mirror = tmp_path / "mirror.db"
    with new_vault(tmp_path / "vault", mirror=mirror) as vault:
        vault.remove_many(vault.enrol_many(removals))
        victim = vault.enrol()
        tenant = vault.tenant
    forged = Removal.of(tenant=tenant, user=victim, heads=bytes(32), day=20_000)
    slot = removals + 5  # the victim's, or as here any other
    log = LogFile(mirror, wait_s=1.0)
    marks = [entry.mark for batch in log.entries() for _, entry in batch]
    log.append([Entry(slot, forged.day, forged.salt, forged.heads, forged.leaf, *marks[:1])])
    log.database.close()
    with pytest.raises(VaultDamaged, match="has entries that this vault did not write"):
        Vault.open(tmp_path / "vault")


def test_a_mirror_whose_folder_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    new_vault(tmp_path / "vault", mirror=tmp_path / "disk" / "mirror.db").close()
    shutil.rmtree(tmp_path / "disk")
    with pytest.raises(VaultUnavailable, match=r"mirror\.db: No such file"):
        Vault.open(tmp_path / "vault")


def test_a_mirror_is_the_same_file_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new_vault(tmp_path / "vault", mirror=Path("mirror.db")).close()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with Vault.open(tmp_path / "vault") as vault:
        vault.remove(vault.enrol())
    assert list((tmp_path / "elsewhere").iterdir()) == []
    log = LogFile(tmp_path / "mirror.db", wait_s=1.0)
    assert log.size == 1
    log.database.close()


def test_old_salts_are_gone_though_a_kill_came_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the commit that erases them and the checkpoint that takes them out of the file."""
    with new_vault(tmp_path / "vault", mirror=tmp_path / "mirror.db") as vault:
        removal = vault.remove(vault.enrol()).removal
    monkeypatch.setattr(module, "_today", partial(int, removal.day + 9))
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Database, "purge", lambda _: os._exit(9))
        try:
            Vault.open(tmp_path / "vault")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with Vault.open(tmp_path / "vault"):
        for path in (tmp_path / "vault" / "removals.db", tmp_path / "mirror.db"):
            left = [one for one in path.parent.glob(f"{path.name}*") if removal.salt in one.read_bytes()]
            assert left == []


def test_an_old_key_file_brings_nobody_back_for_a_reader(tmp_path: Path) -> None:
    """A reader cannot finish a removal; it can know of it."""
    with new_vault(tmp_path / "vault") as vault:
        ann, bob = Person.enrolled(vault, "ann"), Person.enrolled(vault, "bob")
        ann.put(vault, b"one")
        bob.put(vault, b"two")
    shutil.copytree(tmp_path / "vault", tmp_path / "old")
    with Vault.open(tmp_path / "vault") as vault:
        vault.remove(ann.user)
    for part in ("keys", "records.db"):
        shutil.copy(tmp_path / "old" / part, tmp_path / "vault" / part)
    with Vault.open(tmp_path / "vault", read_only=True) as reader:
        with pytest.raises(UnknownUser):
            ann.stored(reader)
        assert bob.stored(reader) == bob.record


@pytest.mark.parametrize(
    "url", ["postgresql://user:geheim", "postgresql://geheim:x", "postgresql://u:p@h:geheim/d"]
)
def test_a_password_in_a_wrong_url_is_not_repeated(url: str, tmp_path: Path) -> None:
    assert "geheim" not in repr(Settings(url=url))
    with pytest.raises(InvalidArgument) as caught:
        new_vault(tmp_path / "vault", url)
    assert "geheim" not in str(caught.value)
