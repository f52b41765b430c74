"""`antefix-server log verify`: each change of the log, its tree or its mirror is found."""

import sqlite3
from pathlib import Path

import pytest

from antefix.errors import ReceiptRefused
from antefix.receipts import Checkpoint
from antefix_server.admin import operations
from antefix_server.errors import VaultDamaged
from antefix_server.registry import Registry
from antefix_server.vault import Vault
from tests.support.vaults import new_vault, reopen


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    made = new_vault(tmp_path / "vault", None, tmp_path / "mirror.db")
    for number in range(5):
        Registry(made).add(f"user {number}")
        Registry(made).remove(f"user {number}")
    return made


def verified(vault: Vault, since: str | None = None) -> str:
    found = operations.verify_log(operations.Site(vault), since)
    text: str = found["checkpoint"]
    assert Checkpoint.parse(text).size == found["entries"]
    return text


def test_a_log_that_only_grew_is_in_order(vault: Vault) -> None:
    before = verified(vault)
    Registry(vault).add("one more")
    Registry(vault).remove("one more")
    after = verified(vault, before)
    assert Checkpoint.parse(after).size == 6
    vault.close()
    shorter(vault)
    with pytest.raises(VaultDamaged, match="has 5 entries, the checkpoint has 6"):
        verified(vault, after)
    vault.close()


def shorter(vault: Vault) -> None:
    """Both copies lose their last entry, tree and all."""
    for path in copies(vault):
        with sqlite3.connect(path) as database:
            database.execute('DELETE FROM removals WHERE "index" = 5')
            database.execute("DELETE FROM nodes WHERE (level, position) IN ((0, 5), (1, 2))")
        database.close()
    reopen_unchecked(vault)


def copies(vault: Vault) -> list[Path]:
    return [vault.folder / "removals.db", vault.folder.parent / "mirror.db"]


def reopen_unchecked(vault: Vault) -> None:
    Vault.__init__(vault, vault.folder)


@pytest.mark.parametrize("change", ["leaf", "mark", "node", "day"])
@pytest.mark.parametrize("copy", [0, 1])
def test_a_change_is_found(vault: Vault, change: str, copy: int) -> None:
    path = copies(vault)[copy]
    with sqlite3.connect(path) as database:
        database.execute(
            {
                "leaf": "UPDATE nodes SET hash = zeroblob(32) WHERE level = 0 AND position = 2",
                "node": "UPDATE nodes SET hash = zeroblob(32) WHERE level = 2 AND position = 0",
                "day": 'UPDATE removals SET day = day + 1 WHERE "index" = 2',
                "mark": 'UPDATE removals SET mark = zeroblob(16) WHERE "index" = 2',
            }[change]
        )
    database.close()
    with pytest.raises(VaultDamaged):
        verified(vault)
    vault.close()


def test_a_checkpoint_of_another_log_is_refused(vault: Vault, tmp_path: Path) -> None:
    with new_vault(tmp_path / "other") as other, pytest.raises(ReceiptRefused):
        verified(vault, other.checkpoint().text())
    vault.close()
    reopen(vault)
    vault.close()
