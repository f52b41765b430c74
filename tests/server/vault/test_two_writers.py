"""Two vaults, or one twice, on one PostgreSQL."""

import shutil
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from antefix_server.errors import VaultBusy, VaultDamaged
from antefix_server.storage.database import Database
from antefix_server.vault import Vault
from antefix_server.vault.record_store import RecordStore
from tests.support import postgres
from tests.support.vaults import Person, new_vault

pytestmark = pytest.mark.slow  # two processes on a PostgreSQL


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres.emptied(postgres_url)


def test_a_copy_of_the_folder_does_not_write_beside_it(url: str, tmp_path: Path) -> None:
    """Its key file is another file: who is removed from the one would live on in the other."""
    new_vault(tmp_path / "vault", url).close()
    shutil.copytree(tmp_path / "vault", tmp_path / "copy")
    with Vault.open(tmp_path / "vault") as vault:
        ann = Person.enrolled(vault, "ann")
        ann.put(vault, b"one")
        with pytest.raises(VaultBusy, match="is locked by somebody else"):
            Vault.open(tmp_path / "copy", wait_s=0.2)
        with Vault.open(tmp_path / "vault", read_only=True) as reader:
            assert ann.stored(reader) == ann.record
    Vault.open(tmp_path / "copy", wait_s=0.2).close()


def test_of_two_vaults_that_claim_a_database_at_once_one_has_it(url: str, tmp_path: Path) -> None:
    new_vault(tmp_path / "vault", url).close()
    shelves = [RecordStore(Database.of_url(url, wait_s=5.0)) for _ in range(2)]
    with shelves[0].database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM belongs")
    both, refused = threading.Barrier(2), []
    real = RecordStore._compare

    def slowly(self: RecordStore, *args: object) -> bool:
        found = real(self, *args)  # type: ignore[arg-type]
        with suppress(threading.BrokenBarrierError):
            both.wait(1)  # both have looked before either writes, if nothing keeps the second from it
        return found

    def claim(shelf: RecordStore, tenant: bytes) -> None:
        try:
            shelf.claim(tenant)
        except VaultDamaged:
            refused.append(tenant)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordStore, "_compare", slowly)
        claims = [
            threading.Thread(target=claim, args=(shelf, bytes([number]) * 16))
            for number, shelf in enumerate(shelves)
        ]
        for one in claims:
            one.start()
        for one in claims:
            one.join()
    assert len(refused) == 1
    for shelf in shelves:
        shelf.database.close()
