"""Grants on a server: kept, opened, revoked; and gone with their device, user, version or epoch."""

from pathlib import Path

import pytest

from antefix.errors import GrantRefused, RecordMismatch
from antefix.grants import Grant
from antefix_server.errors import UnknownUser, VaultDamaged, VaultUnavailable
from antefix_server.grants import Grants, epochs
from antefix_server.grants.epochs import Epochs
from antefix_server.vault import Vault
from tests.support.records import some_bytes
from tests.support.server.hosted_server import Host
from tests.support.vaults import reopen


class Hosted(Host):
    """A server with one user, whose device has stored a record."""

    def __init__(self, vault: Vault) -> None:
        super().__init__(vault)
        self.ann = self.add("ann")
        self.store_bytes(b"ann's prefix")

    def store_bytes(self, payload: bytes) -> None:
        self.ann.person.put(self.vault, payload)

    def opened(self, grant: Grant) -> bytes:
        with self.grants.open(self.ann.user, grant.id, self.ann.person.owner.address.base) as content:
            return bytes(content.payload)


@pytest.fixture
def hosted(vault: Vault) -> Hosted:
    return Hosted(vault)


def test_a_granted_version_opens_until_it_is_revoked(hosted: Hosted) -> None:
    grant = hosted.grants.put(hosted.ann.session, hosted.signed(hosted.ann))
    assert [one.id for one in hosted.grants.of(hosted.ann.user)] == [grant.id]
    assert hosted.opened(grant) == b"ann's prefix"
    assert hosted.grants.revoke(hosted.ann.user, bytes.fromhex(grant.id))
    assert hosted.grants.of(hosted.ann.user) == []
    with pytest.raises(GrantRefused, match="does not hold any more"):
        hosted.opened(grant)
    assert not hosted.grants.revoke(hosted.ann.user, bytes(16))


def test_a_revoked_grant_cannot_be_sent_again(hosted: Hosted) -> None:
    signed = hosted.signed(hosted.ann)
    grant = hosted.grants.put(hosted.ann.session, signed)
    hosted.grants.revoke(hosted.ann.user, bytes.fromhex(grant.id))
    with pytest.raises(GrantRefused, match="revoked"):
        hosted.grants.put(hosted.ann.session, signed)
    again = hosted.grants.put(hosted.ann.session, hosted.signed(hosted.ann))
    assert hosted.opened(again) == b"ann's prefix"


@pytest.mark.parametrize("all_of_them", [True, False])
def test_one_that_was_replaced_does_not_come_back_after_a_revocation(
    hosted: Hosted, all_of_them: bool
) -> None:
    older = hosted.signed(hosted.ann)
    hosted.grants.put(hosted.ann.session, older)
    newer = hosted.grants.put(hosted.ann.session, hosted.signed(hosted.ann))
    if all_of_them:
        assert hosted.grants.revoke_all(hosted.ann.user) == 1
    else:
        assert hosted.grants.revoke(hosted.ann.user, bytes.fromhex(newer.id))
    with pytest.raises(GrantRefused, match="revoked"):
        hosted.grants.put(hosted.ann.session, older)
    assert hosted.grants.of(hosted.ann.user) == []


def test_the_newest_grant_of_a_prefix_counts(hosted: Hosted) -> None:
    first = hosted.grants.put(hosted.ann.session, hosted.signed(hosted.ann))
    second = hosted.grants.put(hosted.ann.session, hosted.signed(hosted.ann))
    assert [one.id for one in hosted.grants.of(hosted.ann.user)] == [second.id]
    with pytest.raises(GrantRefused):
        hosted.opened(first)


def test_a_grant_is_kept_and_its_key_too(hosted: Hosted) -> None:
    grant = hosted.grants.put(hosted.ann.session, hosted.signed(hosted.ann))
    reopen(hosted.vault)
    hosted.grants = Grants(hosted.vault, Epochs(hosted.vault.folder), hosted.clock)
    assert hosted.opened(grant) == b"ann's prefix"


def test_a_grant_ends(hosted: Hosted) -> None:
    grant = hosted.grants.put(hosted.ann.session, hosted.signed(hosted.ann, 60))
    hosted.clock.now += 61
    assert hosted.grants.of(hosted.ann.user) == []
    with pytest.raises(GrantRefused):
        hosted.opened(grant)


@pytest.mark.parametrize("how", ["suspended", "removed", "device revoked", "replaced"])
def test_a_grant_goes_with_what_it_stands_on(hosted: Hosted, how: str) -> None:
    grant = hosted.grants.put(hosted.ann.session, hosted.signed(hosted.ann))
    if how == "suspended":
        hosted.registry.suspend("ann")
    elif how == "removed":
        hosted.registry.remove("ann")
    elif how == "device revoked":
        hosted.registry.revoke("ann", hosted.ann.session.device)
    else:
        hosted.store_bytes(b"the next version")
    with pytest.raises((GrantRefused, UnknownUser, RecordMismatch)):
        hosted.opened(grant)


def test_nothing_is_kept_of_another_user_or_of_what_is_not_stored(hosted: Hosted) -> None:
    bobs = hosted.add("bob").session
    with pytest.raises(GrantRefused, match="not signed by the device"):
        hosted.grants.put(bobs, hosted.signed(hosted.ann))
    old = hosted.signed(hosted.ann)
    hosted.store_bytes(b"the next version")
    with pytest.raises(GrantRefused, match="for version 1, stored is 2"):
        hosted.grants.put(hosted.ann.session, old)
    assert hosted.grants.of(hosted.ann.user) == []


def test_an_epoch_ends_and_its_key_is_zeroed(hosted: Hosted) -> None:
    grant = hosted.grants.put(hosted.ann.session, hosted.signed(hosted.ann, 10**6))
    (path,) = (hosted.vault.folder / "epochs").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    with path.open("rb") as held:
        hosted.clock.now = grant.until + 1
        assert hosted.epochs.destroy_over(hosted.clock.now) == 1
        assert not any(held.read())
    assert not path.exists()
    hosted.clock.now -= 10  # a clock that was put back brings nothing back
    with pytest.raises(GrantRefused):
        hosted.opened(grant)


def test_who_has_a_key_when_its_epoch_ends_opens_nothing_with_it(hosted: Hosted) -> None:
    hosted.grants.put(hosted.ann.session, hosted.signed(hosted.ann))
    key = hosted.epochs.current(hosted.clock.now)
    hosted.epochs.destroy_all()
    with pytest.raises(GrantRefused, match="its epoch is over"):
        key.open(bytes(1168), b"")


def test_a_disk_that_fails_keeps_no_key_alive(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    grant = hosted.grants.put(hosted.ann.session, hosted.signed(hosted.ann))
    key = hosted.epochs.current(hosted.clock.now)

    def fails(_: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(epochs, "_shred", fails)
        with pytest.raises(VaultUnavailable):
            hosted.epochs.destroy_all()
    with pytest.raises(GrantRefused, match="its epoch is over"):
        key.open(bytes(1168), b"")
    with pytest.raises(GrantRefused):
        hosted.opened(grant)
    assert hosted.epochs.destroy_all() == 1
    assert list((hosted.vault.folder / "epochs").iterdir()) == []


@pytest.mark.parametrize("name", ["0123.new", ".0123.key.a1b2c3"])
def test_what_a_crash_left_of_a_key_is_zeroed_and_gone(tmp_path: Path, name: str) -> None:
    (tmp_path / "epochs").mkdir()
    left = tmp_path / "epochs" / name
    left.write_bytes(b"ANTEFIXE" + some_bytes("half a key", 40))
    with left.open("rb") as held:
        Epochs(tmp_path)
        assert not any(held.read())
    assert not left.exists()


def test_epochs_overlap_so_that_a_grant_lasts(tmp_path: Path) -> None:
    mine = Epochs(tmp_path, seconds=100)
    first = mine.current(1000)
    assert mine.current(1049) is first
    second = mine.current(1051)
    assert second is not first
    assert second.until == 1151
    assert mine.find(first.id, 1099) is first
    assert mine.find(first.id, 1100) is None
    assert Epochs(tmp_path).find(second.id, 1100) is not None
    assert mine.destroy_all() == 1
    assert list((tmp_path / "epochs").iterdir()) == []


def test_a_file_that_is_no_key_is_told(tmp_path: Path) -> None:
    (tmp_path / "epochs").mkdir()
    (tmp_path / "epochs" / "x.key").write_bytes(bytes(64))
    with pytest.raises(VaultDamaged, match="is no epoch key"):
        Epochs(tmp_path)
