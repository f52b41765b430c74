"""Releases in the removal log: leaves like the others, and never taken for a removal."""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antefix.crypto.merkle import verify_consistency, verify_inclusion
from antefix.keys import RecoveryCode
from antefix.receipts import verify_receipt
from antefix_server.backups import Sources, backup_keys, backup_records, operator_keys, restore
from antefix_server.errors import UnknownUser, VaultBusy, VaultDamaged
from antefix_server.removal_log.log import RemovalLog
from antefix_server.removal_log.log_file import LogFile
from antefix_server.removal_log.statement import Kind, Statement
from antefix_server.vault import Vault
from antefix_server.vault.settings import Settings
from tests.support.vaults import Person, new_vault, reopen

CODE = RecoveryCode.generate()
OLD_FORM = """
CREATE TABLE nodes (level INTEGER NOT NULL, position INTEGER NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (level, position)) WITHOUT ROWID;
CREATE TABLE removals ("index" INTEGER NOT NULL PRIMARY KEY, slot INTEGER NOT NULL, day INTEGER NOT NULL,
    salt BLOB, heads BLOB, mark BLOB NOT NULL, UNIQUE (slot));
"""


def said(number: int, kind: Kind = Kind.ANNOUNCEMENT) -> Statement:
    return Statement(kind, number, bytes([number]) * 32)


def say(vault: Vault, *statements: Statement) -> None:
    with vault.log() as log:
        log.append(statements)


def test_removals_and_statements_share_one_tree(vault: Vault) -> None:
    people = [Person.enrolled(vault, name) for name in ("ann", "bob", "eve")]
    trees = []
    for number, person in enumerate(people, 1):
        person.put(vault, b"one")
        say(vault, said(number), said(number, Kind.RELEASE))
        trees.append(vault.checkpoint())
        receipt = vault.remove(person.user)
        verify_receipt(receipt.text(), vault.log_key, user=person.user)
        assert receipt.index == 3 * number - 1
    last = vault.checkpoint()
    assert last.size == 9
    for tree in trees:
        assert verify_consistency(tree.size, tree.root, last.size, last.root, vault.consistency(tree.size))
    with vault.log() as log:
        assert log.removals == 3
        assert [slot for slots in log.slots() for slot in slots] == [0, 1, 2]
        assert log.next_number(Kind.ANNOUNCEMENT) == 4
        found = log.statement(Kind.ANNOUNCEMENT, 2)
        assert found is not None
        proof = log._here.hashes([(2, 3), (0, 2), (4, 8), (8, 9)])
        assert verify_inclusion(found.leaf, 3, 9, proof, last.root)
        assert log.statement(Kind.RELEASE, 4) is None


def test_a_statement_removes_nobody(vault: Vault) -> None:
    """Not at once, not at a start, not for a reader; numbers are near slots on purpose."""
    ann = Person.enrolled(vault, "ann")
    ann.put(vault, b"one")
    for number in range(1, 4):
        say(vault, said(number), said(number, Kind.RELEASE))
    reopen(vault)
    assert ann.stored(vault) == ann.record
    vault.close()
    if vault.settings.url is None:
        assert list(RemovalLog.slots_in(vault.folder / "removals.db", 1.0)) == [[]]
    with Vault.open(vault.folder, read_only=True) as reader:
        assert ann.stored(reader) == ann.record
    Vault.__init__(vault, vault.folder)


def test_a_lost_copy_comes_from_the_other(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    say(vault, said(1))
    receipt = vault.remove(ann.user)
    say(vault, said(2))
    root = vault.checkpoint().root
    for lost in (vault.folder / "removals.db", vault.folder.parent / "mirror.db"):
        vault.close()
        lost.unlink()
        reopen(vault)
        assert vault.checkpoint().root == root
        assert vault.remove(ann.user).removal == receipt.removal
        with vault.log() as log:
            assert log.next_number(Kind.ANNOUNCEMENT) == 3


def test_a_log_from_before_releases_is_read_and_goes_on(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault", mirror=tmp_path / "mirror.db") as vault:
        ann, bob = Person.enrolled(vault, "ann"), Person.enrolled(vault, "bob")
        bob.put(vault, b"one")
        receipt = vault.remove(ann.user)
        tree = vault.checkpoint()
    for path in (tmp_path / "vault" / "removals.db", tmp_path / "mirror.db"):
        as_it_was(path)
    with Vault.open(tmp_path / "vault", read_only=True) as reader:
        assert bob.stored(reader) == bob.record
        with pytest.raises(UnknownUser):
            ann.stored(reader)
    with Vault.open(tmp_path / "vault") as vault:
        assert vault.checkpoint() == tree
        assert vault.remove(ann.user).removal == receipt.removal
        say(vault, said(1))
        assert verify_consistency(1, tree.root, 2, vault.checkpoint().root, vault.consistency(1))


def as_it_was(path: Path) -> None:
    """Rewrite a log as the version before wrote it."""
    old = path.with_name("old form")
    with closing(sqlite3.connect(old)) as made:
        made.executescript(OLD_FORM)
        made.execute("ATTACH ? AS new", (str(path),))
        for table in ("nodes", "removals"):
            made.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table}")
        made.commit()
    shutil.move(old, path)


def test_a_mirror_that_alone_took_a_statement_gives_it_back(tmp_path: Path) -> None:
    new_vault(tmp_path / "vault", mirror=tmp_path / "mirror.db").close()
    with Vault.open(tmp_path / "vault", wait_s=0.1) as vault:
        ann = Person.enrolled(vault, "ann")
        with closing(sqlite3.connect(tmp_path / "vault" / "removals.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(VaultBusy):
                say(vault, said(1))
            other.execute("ROLLBACK")
        verify_receipt(vault.remove(ann.user).text(), vault.log_key, user=ann.user)
        with vault.log() as log:
            assert log.next_number(Kind.ANNOUNCEMENT) == 2
        assert vault.checkpoint().size == 2


def test_a_removal_that_the_mirror_alone_took_is_done_though_a_statement_comes_first(tmp_path: Path) -> None:
    new_vault(tmp_path / "vault", mirror=tmp_path / "mirror.db").close()
    with Vault.open(tmp_path / "vault", wait_s=0.1) as vault:
        ann, bob = Person.enrolled(vault, "ann"), Person.enrolled(vault, "bob")
        with closing(sqlite3.connect(tmp_path / "vault" / "removals.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(VaultBusy):
                vault.remove(ann.user)
            other.execute("ROLLBACK")
        say(vault, said(1))
        vault.remove(bob.user)
        with pytest.raises(UnknownUser):
            ann.stored(vault)


@pytest.mark.parametrize(
    "change", [{"number": 1_000}, {"kind": Kind.RELEASE}, {"number": 2, "digest": bytes(32)}]
)
def test_a_forged_statement_on_the_mirror_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault", mirror=tmp_path / "mirror.db") as vault:
        say(vault, said(1))
    log = LogFile(tmp_path / "mirror.db", wait_s=1.0)
    genuine = next(entry for batch in log.entries() for _, entry in batch)
    assert isinstance(genuine, Statement)
    log.append([replace(genuine, **change)])
    log.database.close()
    with pytest.raises(VaultDamaged, match="has entries that this vault did not write"):
        Vault.open(tmp_path / "vault")


@pytest.mark.parametrize("lost", [False, True])
def test_after_a_restore_no_number_comes_again(lost: bool, tmp_path: Path) -> None:
    made = Vault.create(
        tmp_path / "vault", operator_keys(CODE).public, Settings(mirror=tmp_path / "mirror.db")
    )
    with made as vault:
        vault.enrol()
        say(vault, said(1), said(1, Kind.RELEASE))
        backup_keys(vault, tmp_path / "keys")
        backup_records(vault, tmp_path / "records")
        say(vault, said(2), said(3))
    mirror = None if lost else tmp_path / "mirror.db"
    sources = Sources(tmp_path / "records", tmp_path / "keys", mirror, accept_lost_removals=lost)
    restore(tmp_path / "again", sources, CODE)
    with Vault.open(tmp_path / "again") as vault, vault.log() as log:
        assert (log.next_number(Kind.ANNOUNCEMENT) > 1_000_000) == lost
        assert log.next_number(Kind.ANNOUNCEMENT) >= 4
        assert (log.next_number(Kind.RELEASE) > 1_000_000) == lost
