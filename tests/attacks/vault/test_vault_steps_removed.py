"""Each step of removal and storage is taken out in turn: some test must notice."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import mutation

REMOVAL, SCAN = "tests/server/vault/test_removal.py", "tests/server/vault/test_scan.py"
VAULT, BACKUPS = "tests/server/vault/test_vault.py", "tests/server/backups/test_backups.py"
SAID = 'b"statement" + struct.pack(">QBQ", index, entry.kind, entry.number) + entry.leaf'
STATEMENTS, RELEASES = "tests/server/removal_log/test_statements.py", "tests/server/releases/test_releases.py"
LOG, RACES = "tests/attacks/vault/test_removal_log.py", "tests/server/vault/test_races.py"
HALF, REGISTRY = "tests/attacks/vault/test_half_made.py", "tests/server/registry/test_registry.py"
SLOTS = "RemovalLog.slots_in(self.folder / LOG, wait_s)"
APPENDS = "for copy in self._copies:\n            copy.append"
FACTS = 'connection.execute(delete(facts).where(facts.c.owner.in_(_many("owners"))), {"owners": some})'
PURGES = f"{FACTS}\n        self.database.purge()"
STEPS = {
    "1, the log": ("vault/removal.py", "self._log.append(new)  # 1", "self._log.append([])", REMOVAL),
    "1, the mirror": ("removal_log/log.py", APPENDS, APPENDS.replace("_copies", "_copies[1:]"), BACKUPS),
    "2, the key": ("vault/removal.py", "self._keys.begin_erase(self._pending)  # 2", "pass", REMOVAL),
    "3, the rows": ("vault/removal.py", "self._shelf.drop_owners(tags)  # 3", "pass", REMOVAL),
    "3, the bytes": ("vault/record_store.py", PURGES, PURGES.replace("self.database.purge()", "pass"), SCAN),
    "3, what else is known": ("vault/record_store.py", FACTS, "pass", REGISTRY),
    "3, zeros": ("storage/database.py", '"secure_delete=ON"', '"secure_delete=OFF"', SCAN),
    "4, the slot": ("vault/removal.py", "self._keys.zeroize(self._pending)  # 4", "pass", REMOVAL),
    "a start finishes": ("vault/vault.py", "        self._remover.replay()\n", "", REMOVAL),
    "a lost slot": ("vault/removal.py", "self._keys.reserve(self._log.slots_used())", "pass", REMOVAL),
    "a restore replays": ("backups/backup.py", "Remover(keys, target, log).replay()", "pass", BACKUPS),
    "keys live seven days": ("backups/backup.py", "if not -1 < age <= KEYS_KEPT_DAYS:", "if False:", BACKUPS),
    "compare and swap": ("vault/writer.py", "if replaces != now:", "if False:", VAULT),
    "the version before": ("vault/writer.py", "if new <= now + 1 and names", "if False and names", VAULT),
    "the sweep": ("vault/vault.py", "        self._shelf.sweep()\n", "", VAULT),
    "catching up": ("vault/removal.py", "        self._pending += self._log.sync_mirror()\n", "", LOG),
    "catching up, release": ("vault/vault.py", "            self._remover.sync_mirror()\n", "", STATEMENTS),
    "marks of releases": ("removal_log/log.py", SAID, "entry.leaf", STATEMENTS),
    "a leap": ("backups/backup.py", "log.skip_to_fresh()", "pass", STATEMENTS),
    "releases are in the log": ("releases/store.py", "log.append([statement])", "pass", RELEASES),
    "marks": ("removal_log/log.py", "if longer is mirror and any(", "if False and any(", LOG),
    "a reader's log": ("vault/vault.py", f"self._keys.exclude({SLOTS})", "pass", LOG),
    "epochs": ("vault/writer.py", "or cover.epoch < current.epoch or", "or", RACES),
    "half-made files": ("vault/vault.py", "with scratch(self.folder / UNFINISHED):", "if True:", HALF),
    "old salts": ("vault/vault.py", "        self._log.forget(_today())\n", "", REMOVAL),
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
def runner(repository: Path) -> Iterator[mutation.MutationRunner]:
    with mutation.mutation_runner(repository) as runner:
        yield runner


# Tests that are slow too, but for the long ones.
WORDS = ("-m", "", "-k", "not postgresql and not hundred")


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_taken_out_is_missed(
    step: str, repository: Path, tmp_path: Path, runner: mutation.MutationRunner
) -> None:
    name, old, new, tests = STEPS[step]
    assert runner.detects(copied(repository, tmp_path, name, old, new), *WORDS, tests)


@pytest.mark.slow
@pytest.mark.parametrize("tests", [REMOVAL, SCAN, VAULT, BACKUPS])
def test_nothing_is_missed_where_nothing_is_taken_out(
    tests: str, repository: Path, tmp_path: Path, runner: mutation.MutationRunner
) -> None:
    server = copied(repository, tmp_path, "vault/vault.py", "class Vault:", "class Vault:  # as it was")
    assert not runner.detects(server, *WORDS, tests)
