"""Removal: what is gone, what is proved, and that no step of it can be lost."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from antefix.crypto.merkle import verify_consistency
from antefix.errors import InvalidArgument
from antefix.receipts import heads_digest, verify_receipt
from antefix.records import digest_of
from antefix_server.errors import RecordAbsent, RemovalUnfinished, UnknownUser, VaultBusy, VaultDamaged
from antefix_server.removal_log.log_file import LogFile
from antefix_server.vault import Vault
from antefix_server.vault import vault as module
from antefix_server.vault.key_file import KeyFile
from antefix_server.vault.record_store import RecordStore
from tests.support.records import some_bytes
from tests.support.vaults import Person, new_vault, reopen

pytestmark = pytest.mark.slow


def test_a_receipt_names_the_records_and_is_in_the_log(vault: Vault) -> None:
    ann, bob = Person.enrolled(vault, "ann"), Person.enrolled(vault, "bob")
    ann.put(vault, b"one")
    record = ann.put(vault, b"two")
    kept = bob.put(vault, b"mine")
    receipt = verify_receipt(vault.remove(ann.user).text(), vault.log_key, user=ann.user)
    assert receipt.removal.heads == heads_digest([(ann.prefix, 2, digest_of(record))])
    with pytest.raises(UnknownUser):
        ann.stored(vault)
    with pytest.raises(UnknownUser):
        ann.put(vault, b"three")
    assert bob.stored(vault) == kept
    assert vault._shelf.count() == 1


def test_the_same_call_gives_the_same_receipt_for_eight_days(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = Person.enrolled(vault, "ann")
    first = vault.remove(ann.user)
    vault.remove(Person.enrolled(vault, "bob").user)
    again = vault.remove(ann.user)
    assert (again.removal, again.index) == (first.removal, 0)
    assert again.checkpoint.size == 2
    verify_receipt(again.text(), vault.log_key, user=ann.user)
    day = first.removal.day
    for later, known in ((8, True), (9, False)):
        today = day + later
        monkeypatch.setattr(module, "_today", partial(int, today))
        reopen(vault)
        if known:
            assert vault.remove(ann.user).removal == first.removal
        else:
            with pytest.raises(UnknownUser):
                vault.remove(ann.user)
    for path in (vault.folder / "removals.db", vault.folder.parent / "mirror.db"):
        files = [one.read_bytes() for one in path.parent.glob(f"{path.name}*")]
        assert not any(first.removal.salt in content for content in files)
    assert vault.checkpoint().size == 2


def test_many_at_once_have_a_receipt_each(vault: Vault) -> None:
    users = vault.enrol_many(70)
    for user, receipt in zip(users[:50], vault.remove_many(users[:50]), strict=True):
        verify_receipt(receipt.text(), vault.log_key, user=user)
    with pytest.raises(UnknownUser):
        vault.remove_many([users[60], some_bytes("nobody", 16)])
    assert vault.checkpoint().size == 50  # then nobody is removed
    twice = vault.remove_many([users[60], users[60]])
    assert twice[0] == twice[1]


def test_the_log_only_grows(vault: Vault) -> None:
    trees = []
    for _ in range(9):
        vault.remove(vault.enrol())
        trees.append(vault.checkpoint())
        trees[-1].verify(vault.log_key)
    last = trees[-1]
    for tree in trees:
        assert verify_consistency(tree.size, tree.root, last.size, last.root, vault.consistency(tree.size))
    with pytest.raises(InvalidArgument, match="the log has 9 leaves"):
        vault.consistency(10)


def test_a_person_who_comes_back_is_another_user(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    old = ann.put(vault, b"one")
    vault.remove(ann.user)
    again = Person.enrolled(vault, "ann")
    assert again.user != ann.user
    with pytest.raises(UnknownUser):
        vault.put(old)


def test_an_old_key_file_brings_nobody_back(vault: Vault) -> None:
    ann, bob = Person.enrolled(vault, "ann"), Person.enrolled(vault, "bob")
    ann.put(vault, b"one")
    kept = bob.put(vault, b"mine")
    keys = (vault.folder / "keys").read_bytes()
    rows = {path: path.read_bytes() for path in vault.folder.glob("records.db*")}
    vault.remove(ann.user)
    vault.close()
    (vault.folder / "keys").write_bytes(keys)
    for path, content in rows.items():
        path.write_bytes(content)
    reopen(vault)
    with pytest.raises(UnknownUser):
        ann.stored(vault)
    assert bob.stored(vault) == kept
    assert vault._shelf.count() == 1
    assert (vault.folder / "keys").read_bytes() != keys


def test_a_slot_that_a_lost_key_file_gave_away_is_not_given_again(vault: Vault) -> None:
    keys = (vault.folder / "keys").read_bytes()
    users = vault.enrol_many(3)
    vault.remove(users[2])
    vault.close()
    (vault.folder / "keys").write_bytes(keys)
    reopen(vault)
    new = vault.enrol_many(3)
    reopen(vault)
    for user in new:
        with pytest.raises(RecordAbsent):  # living, with nothing stored
            vault.get(user, bytes(16))


def test_a_damaged_record_stops_no_removal(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    ann.put(vault, b"one")
    with vault._shelf.database.writing() as connection:
        connection.exec_driver_sql("UPDATE records SET head = owner")
    with pytest.raises(VaultDamaged, match=f"a record of user {ann.user.hex()} is damaged"):
        ann.stored(vault)
    receipt = verify_receipt(vault.remove(ann.user).text(), vault.log_key)
    assert receipt.removal.heads == bytes(32)


def test_a_reader_in_the_way_leaves_a_removal_to_finish(tmp_path: Path) -> None:
    new_vault(tmp_path / "vault").close()
    with Vault.open(tmp_path / "vault", wait_s=0.1) as vault:
        ann = Person.enrolled(vault, "ann")
        ann.put(vault, b"one")
        with vault._shelf.database.reading() as slow:
            slow.exec_driver_sql("SELECT count(*) FROM records").scalar()
            with pytest.raises(
                RemovalUnfinished, match="1 removals are recorded and their keys destroyed, but"
            ):
                vault.remove(ann.user)
            with pytest.raises(UnknownUser):
                ann.stored(vault)
        verify_receipt(vault.remove(ann.user).text(), vault.log_key, user=ann.user)
        assert vault._remover._pending == []


def test_a_log_that_was_lost_comes_from_the_mirror(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    receipt = vault.remove(ann.user)
    root = vault.checkpoint().root
    for lost in (vault.folder / "removals.db", vault.folder.parent / "mirror.db"):
        vault.close()
        lost.unlink()
        reopen(vault)
        assert vault.checkpoint().root == root
        assert vault.remove(ann.user).removal == receipt.removal


def test_a_mirror_with_another_history_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with new_vault(tmp_path / name, mirror=tmp_path / f"{name}.db") as vault:
            vault.remove(vault.enrol())
    (tmp_path / "a.db").rename(tmp_path / "b.db")
    with pytest.raises(VaultDamaged, match="have different histories"):
        Vault.open(tmp_path / "b")


STEPS: dict[str, tuple[type, str]] = {
    "the log": (LogFile, "append"),
    "the key": (KeyFile, "begin_erase"),
    "the rows": (RecordStore, "drop_owners"),
    "the end": (KeyFile, "zeroize"),
}


def doomed(vault: Vault) -> list[int]:
    """Slots of removed users that are not zero yet."""
    return [slot for slots in vault._log.slots() for slot in vault._keys.still_set(slots)]


def killed_at(step: tuple[type, str], after: bool, call: int) -> None:
    """Let this process die by SIGKILL just before or after a step, at its n-th call."""
    owner, name = step
    real: Callable[..., object] = getattr(owner, name)
    calls = iter(range(100))

    def dies(*args: object, **keywords: object) -> object:
        last = next(calls) == call
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **keywords)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dies)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("call", [0, 1])
def test_killed_at_any_step_a_removal_happens_whole_or_not_at_all(
    step: str, after: bool, call: int, database: str | None, tmp_path: Path
) -> None:
    vault = new_vault(tmp_path / "vault", database, tmp_path / "mirror.db")
    ann, bob = Person.enrolled(vault, "ann"), Person.enrolled(vault, "bob")
    ann.put(vault, b"one")
    kept = bob.put(vault, b"mine")
    vault.close()
    child = os.fork()
    if child == 0:
        try:
            with Vault.open(tmp_path / "vault") as dying:
                killed_at(STEPS[step], after, call)
                dying.remove(ann.user)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    called_twice = STEPS[step][0] is LogFile  # once on the mirror, once here
    assert os.WIFSIGNALED(status) == (call == 0 or called_twice)
    recorded = not (step == "the log" and not after and call == 0)
    with Vault.open(tmp_path / "vault") as again:
        assert bob.stored(again) == kept
        if recorded:
            with pytest.raises(UnknownUser):
                ann.stored(again)
            assert again._shelf.count() == 1
            assert doomed(again) == []
        else:
            assert ann.stored(again) == ann.record
        verify_receipt(again.remove(ann.user).text(), again.log_key, user=ann.user)


def test_the_lock_is_let_go_by_who_is_killed(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault, pytest.raises(VaultBusy):
        Vault.open(vault.folder)
    Vault.open(tmp_path / "vault").close()
