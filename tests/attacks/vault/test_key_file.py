"""The key file under a full disk, after it was closed, in a fork, and exchanged under readers."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from antefix_server.errors import RecordAbsent, VaultBusy, VaultFull, VaultUnavailable
from antefix_server.vault import Vault
from antefix_server.vault.key_file import Identity
from tests.support.vaults import OPERATOR, Person, new_vault


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As a disk that gets full in the middle of a write: a part of it is taken."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def living(vault: Vault, user: bytes) -> bool:
    with pytest.raises(RecordAbsent):  # enrolled, with nothing stored
        vault.head(user, bytes(16))
    return True


@pytest.mark.parametrize("room", [0, 10, 64, 64 * 3 + 10])
def test_a_disk_that_takes_a_part_of_new_slots_gives_no_ids(room: int, tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        first = vault.enrol()
        keys = tmp_path / "vault" / "keys"
        size = keys.stat().st_size
        with no_file_above(size + room), pytest.raises(VaultFull, match=r"no space left for .*keys"):
            vault.enrol_many(10)
        assert keys.stat().st_size == size
        later = vault.enrol_many(10)
    with Vault.open(tmp_path / "vault") as vault:
        assert all(living(vault, user) for user in [first, *later])


def test_a_closed_vault_does_not_touch_the_next_one(tmp_path: Path) -> None:
    """The number of a closed file is given to the next that is opened: the same key file, perhaps."""
    old = new_vault(tmp_path / "vault")
    old.close()
    with Vault.open(tmp_path / "vault") as new:
        user = new.enrol()
        for call in (old.enrol, lambda: old.head(user, bytes(16)), lambda: old.remove(user)):
            with pytest.raises(VaultUnavailable, match="keys"):
                call()
        old.close()
        assert living(new, user)


def test_a_child_that_inherits_the_vault_does_not_write(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        ann = Person.enrolled(vault, "ann")
        ann.put(vault, b"one")
        child = os.fork()
        if child == 0:
            refused = 0
            for call in (vault.enrol, lambda: vault.remove(ann.user), lambda: ann.put(vault, b"two")):
                try:
                    call()
                except VaultBusy:
                    refused += 1
            os._exit(refused)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 3
        assert ann.stored(vault) == ann.record


def test_nothing_is_stored_under_keys_that_are_gone(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        ann = Person.enrolled(vault, "ann")
        ann.put(vault, b"one")
        (tmp_path / "vault" / "keys").rename(tmp_path / "gone")
        with pytest.raises(VaultUnavailable, match="keys"):
            ann.put(vault, b"two")
        with pytest.raises(VaultUnavailable, match="keys"):
            vault.put_stream([ann.next(b"two")], replaces=1)
        (tmp_path / "gone").rename(tmp_path / "vault" / "keys")
        assert ann.stored(vault) == ann.record


def test_a_reader_does_not_go_on_with_keys_that_were_exchanged(tmp_path: Path) -> None:
    """As after a restore into the same place: who is removed there must not be read here."""
    with new_vault(tmp_path / "vault") as vault:
        ann = Person.enrolled(vault, "ann")
        ann.put(vault, b"one")
    with Vault.open(tmp_path / "vault", read_only=True) as reader:
        assert ann.stored(reader) == ann.record
        shutil.copytree(tmp_path / "vault", tmp_path / "restored")
        (tmp_path / "vault").rename(tmp_path / "lost")
        (tmp_path / "restored").rename(tmp_path / "vault")
        with Vault.open(tmp_path / "vault") as restored:
            restored.remove(ann.user)
        with pytest.raises(VaultUnavailable, match="was exchanged while in use"):
            ann.stored(reader)


def test_what_the_vault_is_shows_no_key() -> None:
    identity = Identity.fresh(bytes(16), OPERATOR.public)
    assert "id_key" not in repr(identity)
    assert "log_seed" not in repr(identity)
