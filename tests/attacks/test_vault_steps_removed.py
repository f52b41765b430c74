"""Each step of removal and storage is taken out in turn: some test must notice."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import mutants

REMOVAL, SCAN = "tests/server/test_removal.py", "tests/server/test_scan.py"
VAULT, BACKUPS = "tests/server/test_vault.py", "tests/server/test_backups.py"
SAID = 'b"statement" + struct.pack(">QBQ", index, entry.kind, entry.number) + entry.leaf'
STATEMENTS, RELEASES = "tests/server/test_statements.py", "tests/server/test_releases.py"
LOG, RACES = "tests/attacks/test_removal_log.py", "tests/server/test_races.py"
HALF = "tests/attacks/test_half_made.py"
SLOTS = "RemovalLog.slots_in(self.folder / LOG, wait_s)"
APPENDS = "for copy in self._copies:\n            copy.append"
FACTS = 'connection.execute(delete(facts).where(facts.c.owner.in_(_many("owners"))), {"owners": some})'
PURGES = f"{FACTS}\n        self.database.purge()"
STEPS = {
    "1, the log": ("_removal.py", "self._log.append(new)  # 1", "self._log.append([])", REMOVAL),
    "1, the mirror": ("_log.py", APPENDS, APPENDS.replace("_copies", "_copies[1:]"), BACKUPS),
    "2, the key": ("_removal.py", "self._keys.doom(self._pending)  # 2", "pass", REMOVAL),
    "3, the rows": ("_removal.py", "self._shelf.drop_owners(tags)  # 3", "pass", REMOVAL),
    "3, the bytes": ("_shelf.py", PURGES, PURGES.replace("self.database.purge()", "pass"), SCAN),
    "3, what else is known": ("_shelf.py", FACTS, "pass", "tests/server/test_registry.py"),
    "3, zeros": ("_engine.py", '"secure_delete=ON"', '"secure_delete=OFF"', SCAN),
    "4, the slot": ("_removal.py", "self._keys.erase(self._pending)  # 4", "pass", REMOVAL),
    "a start finishes": ("vault.py", "        self._remover.replay()\n", "", REMOVAL),
    "a lost slot": ("_removal.py", "self._keys.reserve(self._log.slots_used())", "pass", REMOVAL),
    "a restore replays": ("backups.py", "Remover(keys, target, log).replay()", "pass", BACKUPS),
    "keys live seven days": ("backups.py", "if not -1 < age <= KEYS_KEPT_DAYS:", "if False:", BACKUPS),
    "compare and swap": ("_writing.py", "if replaces != now:", "if False:", VAULT),
    "the version before": ("_writing.py", "if new <= now + 1 and names", "if False and names", VAULT),
    "the sweep": ("vault.py", "        self._shelf.sweep()\n", "", VAULT),
    "catching up": ("_removal.py", "        self._pending += self._log.catch_up()\n", "", LOG),
    "catching up before a release": ("vault.py", "            self._remover.catch_up()\n", "", STATEMENTS),
    "marks of releases": ("_log.py", SAID, "entry.leaf", STATEMENTS),
    "a leap": ("backups.py", "log.leap()", "pass", STATEMENTS),
    "releases are in the log": ("_store.py", "log.append([statement])", "pass", RELEASES),
    "marks": ("_log.py", "if longer is mirror and any(", "if False and any(", LOG),
    "a reader's log": ("vault.py", f"self._keys.hide({SLOTS})", "pass", LOG),
    "epochs": ("_writing.py", "or cover.epoch < current.epoch or", "or", RACES),
    "half-made files": ("vault.py", "with scratch(self.folder / UNFINISHED):", "if True:", HALF),
    "old salts": ("vault.py", "        self._log.forget(_today())\n", "", REMOVAL),
}  # fmt: skip


def copied(repository: Path, folder: Path, name: str, old: str, new: str) -> Path:
    """Copy the package with one step changed."""
    shutil.copytree(repository / "server", folder / "server")
    path = folder / "server" / "antefix_server" / name
    text = path.read_text()
    assert text.count(old) == 1, f"no such line any more: {old}"
    path.write_text(text.replace(old, new))
    return folder / "server"


@pytest.fixture(scope="module")
def noticing(repository: Path) -> Iterator[mutants.Noticing]:
    with mutants.noticing(repository) as made:
        yield made


# Tests that are slow too, but for the long ones.
WORDS = ("-m", "", "-k", "not postgresql and not hundred")


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_taken_out_is_missed(
    step: str, repository: Path, tmp_path: Path, noticing: mutants.Noticing
) -> None:
    name, old, new, tests = STEPS[step]
    assert noticing.noticed(copied(repository, tmp_path, name, old, new), *WORDS, tests)


@pytest.mark.slow
@pytest.mark.parametrize("tests", [REMOVAL, SCAN, VAULT, BACKUPS])
def test_nothing_is_missed_where_nothing_is_taken_out(
    tests: str, repository: Path, tmp_path: Path, noticing: mutants.Noticing
) -> None:
    server = copied(repository, tmp_path, "vault.py", "class Vault:", "class Vault:  # as it was")
    assert not noticing.noticed(server, *WORDS, tests)
