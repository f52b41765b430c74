"""Backups restore the living, and nobody else."""

import shutil
import time
from pathlib import Path

import pytest

from antefix.errors import KeyRefused
from antefix.keys import DeviceChange, DeviceKeys, DeviceList, RecoveryCode
from antefix.receipts import verify_receipt
from antefix_server.backups import Sources, backup_keys, backup_records, operator_keys, restore
from antefix_server.errors import RestoreRefused, TokenRefused, UnknownUser, VaultDamaged, VaultUnavailable
from antefix_server.registry import Registry
from antefix_server.registry.nodes import Node
from antefix_server.vault import Vault, user_rows
from antefix_server.vault.settings import Settings
from antefix_server.vault.user_rows import Kind
from tests.support import postgres
from tests.support.records import some_bytes
from tests.support.server.hosted_server import Host
from tests.support.vaults import Person

CODE = RecoveryCode.parse(RecoveryCode.generate().text())


@pytest.fixture
def vault(database: str | None, tmp_path: Path) -> Vault:
    """A vault whose operator has `CODE`; tests close and lose it."""
    settings = Settings(origin="test/removals", url=database, mirror=tmp_path / "mirror.db")
    return Vault.create(tmp_path / "vault", operator_keys(CODE).public, settings)


def backed_up(vault: Vault) -> Sources:
    folder = vault.folder.parent / "backups"
    backup_records(vault, folder / "records")
    backup_keys(vault, folder / "keys")
    return Sources(folder / "records", folder / "keys", vault.settings.mirror)


def lose(vault: Vault) -> Settings:
    """The whole disk with the vault is gone; the mirror and the backups are elsewhere."""
    vault.close()
    shutil.rmtree(vault.folder)
    if vault.settings.url is not None:
        postgres.emptied(vault.settings.url)
    return Settings(origin="test/removals", url=vault.settings.url)


@pytest.mark.slow
def test_after_the_loss_of_the_disk_the_living_are_back_and_the_removed_are_not(vault: Vault) -> None:
    people = [Person.enrolled(vault, f"user {n}") for n in range(12)]
    for person in people:
        person.put(vault, some_bytes(person.owner.name, 3000))
    large = people[3].next(some_bytes("large", 2_500_000))
    vault.put_stream([large], replaces=1)
    people[3].record, people[3].version = large, 2
    before = vault.remove(people[0].user)
    sources = backed_up(vault)
    after = [vault.remove(person.user) for person in people[1:3]]
    late = Person.enrolled(vault, "late")
    late.put(vault, b"x")
    key = vault.log_key
    settings = lose(vault)
    assert restore(vault.folder, sources, CODE, settings) == 9
    with Vault.open(vault.folder) as again:
        for person in people[3:]:
            assert person.stored(again) == person.record
            person.put(again, b"next")
        for person in [*people[:3], late]:
            with pytest.raises(UnknownUser):
                person.stored(again)
        assert again._shelf.count() == 9
        for person, receipt in zip(people[:3], [before, *after], strict=True):
            repeated = verify_receipt(again.remove(person.user).text(), key, user=person.user)
            assert repeated.removal == receipt.removal
        new = Person.enrolled(again, "new")
        new.put(again, b"new")
    with Vault.open(vault.folder) as again:
        assert new.stored(again) == new.record


def test_the_backup_of_the_records_has_nothing_of_anybody(vault: Vault, tmp_path: Path) -> None:
    ann = Person.enrolled(vault, "ann")
    record = ann.put(vault, some_bytes("payload", 3000))
    backup_records(vault, tmp_path / "records")
    content = (tmp_path / "records").read_bytes()
    for needle in (ann.user, ann.prefix, record[400:432], record[-32:], ann.owner.device.id):
        assert needle not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mirror.db",
        "mirror.db-shm",
        "mirror.db-wal",
        "records",
        "vault",
    ]
    vault.close()


@pytest.mark.slow
def test_a_backup_goes_on_beside_writers(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that are replaced and removed while they are copied: what is restored is whole."""
    people = [Person.enrolled(vault, f"user {n}") for n in range(30)]
    for person in people:
        person.put(vault, some_bytes(person.owner.name, 2000))
    real = vault.shelf.single_pieces
    rounds = iter(range(3))

    def with_company(ids: list[int]) -> dict[int, bytes]:
        """Between the list of rows and their content, everything happens."""
        if next(rounds, None) is not None:
            for person in people[:10]:
                person.put(vault, b"newer")
            vault.remove_many([person.user for person in people[20:25]])
        return real(ids)

    monkeypatch.setattr(vault.shelf, "single_pieces", with_company)
    sources = backed_up(vault)
    settings = lose(vault)
    assert restore(vault.folder, sources, CODE, settings) == 25
    with Vault.open(vault.folder) as again:
        for person in people[:20] + people[25:]:
            assert person.stored(again) == person.record
        for person in people[20:25]:
            with pytest.raises(UnknownUser):
                person.stored(again)


def test_without_the_mirror_removals_could_be_lost_and_that_must_be_accepted(vault: Vault) -> None:
    ann, bob = Person.enrolled(vault, "ann"), Person.enrolled(vault, "bob")
    ann.put(vault, b"one")
    vault.remove(bob.user)
    sources = backed_up(vault)
    old_mirror = vault.folder.parent / "old.db"
    vault.remove(ann.user)
    settings = lose(vault)
    without = Sources(sources.records, sources.keys, None)
    with pytest.raises(RestoreRefused, match="without the mirror of the removal log"):
        restore(vault.folder, without, CODE, settings)
    accepted = Sources(sources.records, sources.keys, old_mirror, accept_lost_removals=True)
    assert restore(vault.folder, accepted, CODE, settings) == 1
    with Vault.open(vault.folder) as again:
        assert ann.stored(again) == ann.record  # as was accepted
        with pytest.raises(UnknownUser):
            bob.stored(again)
        assert again.checkpoint().size == 1


def test_a_mirror_older_than_the_keys_is_refused(vault: Vault, tmp_path: Path) -> None:
    vault.remove(vault.enrol())
    vault.close()
    shutil.copy(tmp_path / "mirror.db", tmp_path / "old.db")
    with Vault.open(vault.folder) as again:
        again.remove(again.enrol())
        sources = backed_up(again)
    settings = lose(again)
    with pytest.raises(
        RestoreRefused, match="the mirror has 1 entries, the backup of the keys is from after 2"
    ):
        restore(vault.folder, Sources(sources.records, sources.keys, tmp_path / "old.db"), CODE, settings)


@pytest.mark.parametrize(("days", "passes"), [(6.9, True), (7.1, False), (400, False), (-2, False)])
def test_a_backup_of_the_keys_lives_seven_days(
    vault: Vault, days: float, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = backed_up(vault)
    settings = lose(vault)
    now = time.time()
    monkeypatch.setattr("antefix_server.backups.backup.time.time", lambda: now + days * 86_400)
    if passes:
        assert restore(vault.folder, sources, CODE, settings) == 0
    else:
        with pytest.raises(RestoreRefused, match=r"days old, 7 are allowed"):
            restore(vault.folder, sources, CODE, settings)
    assert not vault.folder.with_name("vault.restoring").exists()


def test_what_is_damaged_or_not_ours_is_refused(vault: Vault, tmp_path: Path) -> None:
    Person.enrolled(vault, "ann").put(vault, b"one")
    sources = backed_up(vault)
    settings = lose(vault)
    good = sources.keys.read_bytes()
    with pytest.raises(KeyRefused):
        restore(vault.folder, sources, RecoveryCode.generate(), settings)
    for at in (20, 40, 100, 900, len(good) // 2, len(good) - 1):
        sources.keys.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises((KeyRefused, RestoreRefused)):
            restore(vault.folder, sources, CODE, settings)
    for cut in (0, 10, 1300, len(good) - 1, len(good) // 2):
        sources.keys.write_bytes(good[:cut])
        with pytest.raises(RestoreRefused):
            restore(vault.folder, sources, CODE, settings)
    sources.keys.write_bytes(good)
    with pytest.raises(VaultUnavailable, match="is not there"):
        restore(vault.folder, Sources(tmp_path / "none", sources.keys, sources.mirror), CODE, settings)
    sources.records.write_bytes(b"nothing")
    with pytest.raises(VaultDamaged):
        restore(vault.folder, sources, CODE, settings)
    assert not vault.folder.exists()


def test_a_folder_with_something_in_it_is_not_overwritten(vault: Vault) -> None:
    sources = backed_up(vault)
    with pytest.raises(RestoreRefused, match="is not empty"):
        restore(vault.folder, sources, CODE)
    vault.close()


def test_a_vault_is_restored_into_the_folder_one_is_in(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, folder = backed_up(vault), tmp_path / "new"
    settings = lose(vault)
    folder.mkdir()
    monkeypatch.chdir(folder)
    restore(Path(), sources, CODE, settings)
    Vault.open(folder).close()
    with pytest.raises(RestoreRefused, match="is not empty"):
        restore(Path("/"), sources, CODE)


def test_who_was_known_is_known_again_and_who_was_removed_is_not(vault: Vault) -> None:
    registry = Registry(vault)
    tokens = []
    for number in range(3):
        device = DeviceKeys(some_bytes(f"device {number}", 64))
        invitation = registry.add(f"user {number}").invitation
        tokens.append(registry.enrol(invitation, device.public, invitation.proof(device)).token)
    registry.suspend("user 1")
    sources = backed_up(vault)
    registry.remove("user 0")
    settings = lose(vault)
    restore(vault.folder, sources, CODE, settings)
    with Vault.open(vault.folder) as again:
        registry = Registry(again)
        assert [(user.name, user.suspended) for user in registry.users()] == [
            ("user 1", True),
            ("user 2", False),
        ]
        registry.authenticate(tokens[2])
        for token in tokens[:2]:
            with pytest.raises(TokenRefused):
                registry.authenticate(token)
        registry.add("user 0")


def test_every_kind_of_fact_comes_back(vault: Vault) -> None:
    """A kind that a restore does not know would make every backup with it worthless."""
    registry, phone = Registry(vault), DeviceKeys(some_bytes("phone", 64))
    invitation = registry.add("ann").invitation
    token = registry.enrol(invitation, phone.public, invitation.proof(phone)).token
    session = registry.authenticate(token)
    registry.nodes.keep(session, Node(2**63 + 5, session.device, b"a key"))
    first = DeviceList.first(tenant=vault.tenant, user=session.user, device=phone)
    change = DeviceChange.adding(first, DeviceKeys(some_bytes("laptop", 64)).public, signer=phone)
    registry.add_change(session, change.content)
    host = Host(vault)
    bob = host.add("bob")
    bob.person.put(vault, b"bob's prefix")
    grant = host.grant(bob)
    assert [one.id for one in host.grants.of(bob.user)] == [grant.id]
    host.grants.revoke_all(session.user)
    with vault.shelf.database.reading() as connection:
        kinds = {row.kind for row in user_rows.pages(connection, 0)}
    assert kinds == set(Kind)
    sources = backed_up(vault)
    settings = lose(vault)
    restore(vault.folder, sources, CODE, settings)
    with Vault.open(vault.folder) as again:
        registry = Registry(again)
        assert [one.node for one in registry.nodes.participants([2**63 + 5])] == [2**63 + 5]
        assert registry.change(registry.authenticate(token), 2) == change.content
        grants = Host(again).grants
        assert grants.of(bob.user) == []  # epoch keys are in no backup
        assert [grants.revocations(user) for user in (session.user, bob.user)] == [1, 0]
