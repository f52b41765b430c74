"""Removing a linked device: the others go on under a new user key, with a server and without."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from antefix.errors import DeviceListRefused, RecordMismatch
from antefix.records import read_header
from antefix_client import PersonalModel
from antefix_client.devices import device_changes
from antefix_client.errors import DeviceRefused, DeviceRemoved, LinkRefused
from antefix_client.membership import Membership, SyncResult
from antefix_client.profile.profile import Profile
from antefix_client.profile.version_history import VersionHistory
from tests.client.people import opened, reopened
from tests.client.test_membership import joined
from tests.client.two_devices import device, follow, learned, link, made_by, record, removed, value
from tests.support.server.gateway import Server, server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("server") / "data") as made:
        yield made


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[PersonalModel]]:
    """A phone with three versions, one of them the laptop's, a laptop and a tablet, which it admitted."""
    with (
        device(tmp_path / "phone") as phone,
        device(tmp_path / "laptop") as laptop,
        device(tmp_path / "tablet") as tablet,
    ):
        learned(phone, 1.0)
        link(phone, laptop)
        link(phone, tablet)
        laptop.load_base()
        tablet.load_base()
        follow(laptop, made_by(phone)[-1])
        laptop.receive(record(phone))
        learned(laptop, 2.0)
        phone.receive(record(laptop))
        learned(phone, 3.0)
        tablet.receive(record(phone))
        yield [phone, laptop, tablet]


def all_open(model: PersonalModel) -> bool:
    profile = model.session.profile
    for version in model.versions():
        profile.prefixes.open(version).wipe()
        assert read_header(profile.history.record(version)).epoch == profile.keys.user_key.epoch
    return bool(model.versions())


def test_the_others_go_on_and_the_removed_one_does_not(three: list[PersonalModel]) -> None:
    phone, laptop, tablet = three
    before = phone.versions()
    bodies = [phone.session.profile.history.record(one)[354:] for one in before]
    change = removed(phone, laptop)
    assert phone.devices() == [phone.device, tablet.device]
    assert phone.versions() == before
    assert [phone.session.profile.history.record(one)[354:] for one in before] == bodies
    assert all_open(phone)
    follow(tablet, change)
    assert all_open(tablet)
    learned(tablet, 4.0)
    assert phone.receive(record(tablet)).number == 4
    with pytest.raises(DeviceRemoved, match=f"removed by device {phone.device}"):
        follow(laptop, change)
    with pytest.raises(RecordMismatch, match="epoch of the record is 2, expected 1"):
        laptop.receive(record(phone))
    learned(laptop, 9.0)
    with pytest.raises(RecordMismatch, match="epoch of the record is 1, expected 2"):
        phone.receive(record(laptop))
    with reopened(phone) as again:
        assert value(again) == 4.0
        assert all_open(again)
        with pytest.raises(LinkRefused, match="cannot remove itself"):
            again.remove_device(again.device)
        with pytest.raises(LinkRefused, match="is not linked"):
            again.remove_device("1" * 32)


def test_a_device_that_was_admitted_after_a_removal_reads_all(
    three: list[PersonalModel], tmp_path: Path
) -> None:
    phone, laptop, _ = three
    phone.remove_device(laptop.device)
    with device(tmp_path / "watch") as watch:
        link(phone, watch)
        watch.receive(record(phone))
        assert value(watch) == 3.0
        assert len(watch.devices()) == 3


def test_changes_are_taken_in_their_order_and_only_once(three: list[PersonalModel]) -> None:
    phone, laptop, tablet = three
    before = tablet.devices()
    first = removed(phone, laptop)
    second = removed(phone, tablet)
    with pytest.raises(DeviceListRefused, match="version is 5, expected 4"):
        follow(tablet, second)
    assert tablet.devices() == before
    follow(tablet, first)
    follow(tablet, first)  # known already
    with pytest.raises(DeviceRemoved):
        follow(tablet, second)
    assert phone.devices() == [phone.device]


@pytest.mark.parametrize("cut", ["save_pending", "_set_aside", "replace_keys", "first record", "_rewrap"])
def test_killed_at_any_moment_it_is_removed_or_not_and_every_version_opens(
    cut: str, three: list[PersonalModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each step; a removal that was noted is finished by the next opening."""
    phone, laptop, _ = three
    gone, folder = laptop.device, tmp_path / "copy"
    with monkeypatch.context() as broken:
        if cut == "replace_keys":
            broken.setattr(Profile, cut, killed)
        elif cut == "first record":
            broken.setattr(VersionHistory, "replace_record", once(VersionHistory.replace_record))
        else:
            broken.setattr(device_changes, cut, killed)
        with pytest.raises(KeyboardInterrupt):
            phone.remove_device(gone)
    shutil.copytree(tmp_path / "phone", folder, ignore=shutil.ignore_patterns("lock"))
    with opened(folder) as again:
        assert (gone in again.devices()) == (cut == "save_pending")
        assert value(again) == 3.0
        assert all_open(again)
        assert not (folder / device_changes.ROTATING).exists()


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def once(real: object) -> object:
    """The first call goes through, the second is killed."""
    calls = []

    def call(*given: object) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        real(*given)  # type: ignore[operator]

    return call


def on_server(there: Server, name: str, *models: PersonalModel) -> list[Membership]:
    """All of a user; the first one has admitted the others."""
    for model in models:
        model.load_base()
    found = [joined(model, there, name) for model in models]
    found[0].sync()
    for model in models[1:]:
        Membership(model).sync()  # before it is linked
        link(models[0], model)
        found[0].sync()
    for one in found:
        one.sync()
    return found


@pytest.fixture
def trio(tmp_path: Path, there: Server, request: pytest.FixtureRequest) -> Iterator[list[PersonalModel]]:
    with (
        device(tmp_path / "phone") as phone,
        device(tmp_path / "laptop") as laptop,
        device(tmp_path / "tablet") as tablet,
    ):
        on_server(there, request.node.name, phone, laptop, tablet)
        yield [phone, laptop, tablet]


def test_the_server_carries_the_list(trio: list[PersonalModel], there: Server) -> None:
    phone, laptop, tablet = trio
    assert sorted(laptop.devices()) == sorted(tablet.devices()) == sorted(phone.devices())  # carried by sync
    learned(tablet, 1.0)
    for model in (tablet, phone, laptop):
        Membership(model).sync()
    Membership(phone).remove_device(laptop.device)
    with pytest.raises(DeviceRefused):
        Membership(laptop).sync()  # the server lets it in no more
    assert Membership(tablet).sync() == SyncResult()
    assert tablet.devices() == [phone.device, tablet.device]
    learned(tablet, 2.0)
    assert Membership(tablet).sync().sent == 2
    assert Membership(phone).sync().received is not None
    assert (value(phone), value(tablet)) == (2.0, 2.0)
    profile = phone.session.profile
    stored = there.vault.get(profile.keys.devices.user, profile.keys.prefix)
    with pytest.raises(RecordMismatch, match="epoch of the record is 2, expected 1"):
        laptop.receive(stored)


def test_what_the_removed_one_left_on_the_server_is_passed_over(trio: list[PersonalModel]) -> None:
    phone, laptop, tablet = trio
    learned(phone, 1.0)
    for model in (phone, laptop, tablet):
        Membership(model).sync()
    learned(laptop, 7.0)
    assert Membership(laptop).sync().sent == 2
    phone.remove_device(laptop.device)  # without having heard of it
    assert Membership(phone).sync().sent == 4
    assert value(phone) == 1.0
    assert Membership(tablet).sync().received is not None
    assert value(tablet) == 1.0
    assert Membership(phone).sync() == SyncResult()


def test_what_another_one_sent_meanwhile_is_not_lost(trio: list[PersonalModel]) -> None:
    """It had not heard of the new user key: then both are there, and a person chooses."""
    phone, laptop, tablet = trio
    learned(phone, 1.0)
    for model in (phone, tablet):
        Membership(model).sync()
    learned(tablet, 7.0)
    assert Membership(tablet).sync().sent == 2
    phone.remove_device(laptop.device)
    assert Membership(phone).sync().sent == 4
    assert Membership(tablet).sync().conflict
    assert value(tablet) == 7.0
    assert all_open(tablet)
    tablet.roll_back("2")
    assert Membership(tablet).sync().sent == 5
    Membership(phone).sync()
    assert value(phone) == 7.0


def test_of_two_changes_at_once_one_is_there(trio: list[PersonalModel], tmp_path: Path) -> None:
    phone, laptop, tablet = trio
    phone.remove_device(laptop.device)
    tablet.remove_device(phone.device)
    Membership(phone).sync()
    with pytest.raises(DeviceListRefused):
        Membership(tablet).sync()
    assert len(phone.devices()) == 2
