"""Kills and power cuts while files are made: nothing lies about afterwards, and names are on the disk too."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from antefix_server.backups import Sources, backup_keys, backup_records, key_backup, operator_keys, restore
from antefix_server.backups import backup as backup_module
from antefix_server.errors import VaultBusy, VaultError
from antefix_server.vault import Vault
from antefix_server.vault.record_store import RecordStore
from antefix_server.vault.settings import Settings
from tests.server.backups.test_backups import CODE
from tests.support.vaults import Person

STEPS: dict[str, tuple[object, str, Callable[[Vault, Path], object]]] = {
    "keys": (key_backup, "write", backup_keys),
    "records": (RecordStore, "add_all", backup_records),
}


def new(folder: Path) -> Vault:
    settings = Settings(origin="test/removals", mirror=folder / "mirror.db")
    return Vault.create(folder / "vault", operator_keys(CODE).public, settings)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_backup_that_is_killed_leaves_nothing_for_long(step: str, tmp_path: Path) -> None:
    """Least of all, in the folder of the vault, a second log with the salts of whom it removed."""
    owner, name, backup = STEPS[step]
    target = tmp_path / "backups" / step
    with new(tmp_path) as vault:
        Person.enrolled(vault, "ann").put(vault, b"one")
        salt = vault.remove(vault.enrol()).removal.salt
    child = os.fork()
    if child == 0:
        try:
            with Vault.open(tmp_path / "vault") as dying:
                setattr(owner, name, lambda *_: os._exit(9))
                backup(dying, target)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert list(target.parent.iterdir())  # control: it left something
    with Vault.open(tmp_path / "vault") as again:
        files = [path for path in (tmp_path / "vault").rglob("*") if path.is_file()]
        holding = [path.name for path in files if salt in path.read_bytes()]
        assert [one for one in holding if not one.startswith("removals.db")] == []
        assert {path.parent for path in files} == {tmp_path / "vault"}
        backup(again, target)
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o600


def test_two_backups_to_one_file_do_not_mix(tmp_path: Path) -> None:
    with new(tmp_path) as vault, backup_module._beside(tmp_path / "keys") as half:
        half.write_bytes(b"half")
        with pytest.raises(VaultBusy, match="somebody else writes to"):
            backup_keys(vault, tmp_path / "keys")
        assert half.read_bytes() == b"half"


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE records SET owner = 'text'",
        f"UPDATE records SET place = {2**50}",
        "UPDATE records SET head = 2.5",
        "UPDATE pieces SET content = 1000000000000",
        f"UPDATE belongs SET tenant = {2**50}",
        "DROP TABLE pieces",
        "ALTER TABLE records RENAME TO real; CREATE VIEW records AS SELECT * FROM real",
    ],
)
def test_a_backup_that_somebody_made_up_is_refused(change: str, tmp_path: Path) -> None:
    with new(tmp_path) as vault:
        Person.enrolled(vault, "ann").put(vault, b"one")
        sources = Sources(tmp_path / "records", tmp_path / "keys", tmp_path / "mirror.db")
        backup_records(vault, sources.records)
        backup_keys(vault, sources.keys)
    with closing(sqlite3.connect(sources.records)) as forging:
        forging.executescript(change)
    with pytest.raises(VaultError, match="records"):
        restore(tmp_path / "restored", sources, CODE, Settings(origin="test/removals"))
    assert not (tmp_path / "restored").exists()
    assert not (tmp_path / "restored.restoring").exists()


def test_names_outlive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is synced can still be lost with its name, if its folder is not."""
    renamed: set[tuple[int, int]] = set()
    fsync, real = os.fsync, {name: getattr(os, name) for name in ("replace", "rename")}

    def inode(path: Path | int) -> tuple[int, int]:
        found = os.stat(path)
        return found.st_dev, found.st_ino

    def synced(file: int) -> None:
        fsync(file)
        renamed.discard(inode(file))

    def moving(name: str) -> Callable[[Path, Path], None]:
        def move(old: Path, target: Path) -> None:
            real[name](old, target)
            renamed.add(inode(Path(target).parent))

        return move

    monkeypatch.setattr(os, "fsync", synced)
    for name in real:
        monkeypatch.setattr(os, name, moving(name))
    renamed.add(inode(tmp_path))  # the vault's folder is made in it
    with new(tmp_path) as vault:
        assert renamed == set()
        sources = Sources(tmp_path / "records", tmp_path / "keys", tmp_path / "mirror.db")
        backup_records(vault, sources.records)
        assert renamed == set()
        backup_keys(vault, sources.keys)
        assert renamed == set()
    restore(tmp_path / "restored", sources, CODE, Settings(origin="test/removals"))
    assert renamed == set()
