"""Who carries a change of devices alters it, and who was removed goes on as if it were not: both refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from antefix.errors import DeviceListRefused, KeyRefused, RecordMismatch, RecordRefused
from antefix.keys import DeviceChange, DeviceKeys, UserKey
from antefix.records import open_record, read_header
from antefix_client import PersonalModel
from tests.attacks.devices.test_link_forged import cut, flipped
from tests.client.two_devices import device, follow, learned, link, record, removed, snapshot
from tests.support.records import some_bytes

ROGUE = DeviceKeys(some_bytes("rogue", 64))


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[PersonalModel]]:
    with (
        device(tmp_path / "phone") as phone,
        device(tmp_path / "laptop") as laptop,
        device(tmp_path / "tablet") as tablet,
    ):
        learned(phone, 1.0)
        link(phone, laptop)
        link(phone, tablet)
        yield [phone, laptop, tablet]


def not_followed(model: PersonalModel, change: bytes) -> None:
    before = snapshot(model.status().folder)
    with pytest.raises(DeviceListRefused, match="the device list is refused"):
        follow(model, change)
    assert snapshot(model.status().folder) == before


@pytest.mark.slow
def test_no_flipped_bit_and_no_cut_of_a_change_passes(three: list[PersonalModel]) -> None:
    phone, laptop, tablet = three
    change = removed(phone, laptop)
    for forged in (*flipped(change), *cut(change)):
        not_followed(tablet, forged)
    follow(tablet, change)  # control: the honest one passes


def test_parts_of_honest_changes_put_together_are_refused(three: list[PersonalModel]) -> None:
    """Above all: the right list, and a user key that somebody else knows."""
    phone, laptop, tablet = three
    keys = tablet.session.profile.keys
    honest = DeviceChange.following(removed(phone, laptop), keys.devices)
    of = {"tenant": honest.devices.tenant, "user": honest.devices.user}
    known = UserKey.generate().rotated()
    sealed = tuple(known.seal_for(one, **of) for one in honest.devices.devices)
    left = honest.left or b""
    signers = (ROGUE, laptop.session.profile.keys.device)
    for signer in signers:
        not_followed(tablet, DeviceChange._signed(honest.devices, left, sealed, signer).content)
    phone_keys = phone.session.profile.keys.device
    forged = {
        "nobody left": DeviceChange._signed(honest.devices, bytes(16), (), phone_keys),
        "another left": DeviceChange._signed(honest.devices, ROGUE.id, honest.sealed, phone_keys),
        "who is there left": DeviceChange._signed(honest.devices, keys.device.id, honest.sealed, phone_keys),
        "keys missing": DeviceChange._signed(honest.devices, left, honest.sealed[:1], phone_keys),
        "keys of others": DeviceChange._signed(honest.devices, left, honest.sealed[::-1], phone_keys),
    }
    for change in forged.values():
        not_followed(tablet, change.content)


def test_a_stranger_and_the_removed_one_change_nothing(three: list[PersonalModel]) -> None:
    phone, laptop, tablet = three
    stolen = laptop.session.profile.keys
    follow(tablet, removed(phone, laptop))
    after = tablet.session.profile.keys.devices
    key = stolen.user_key.rotated().rotated()
    phone_id = phone.session.profile.keys.device.id
    for signer in (stolen.device, ROGUE):
        listed = replace(after, version=after.version + 1, epoch=3, previous=after.digest)
        listed = replace(listed, devices=(signer.public, tablet.session.profile.keys.device.public))
        listed = listed._signed(signer)
        of = {"tenant": after.tenant, "user": after.user}
        sealed = tuple(key.seal_for(one, **of) for one in listed.devices)
        not_followed(tablet, DeviceChange._signed(listed, phone_id, sealed, signer).content)


def test_the_removed_one_opens_nothing_that_is_sealed_afterwards(three: list[PersonalModel]) -> None:
    """It has the old user key, its own keys and the change; to say another epoch costs nothing."""
    phone, laptop, _ = three
    stolen = laptop.session.profile.keys
    content = removed(phone, laptop)
    learned(phone, 2.0)
    sealed = record(phone)
    cover = read_header(sealed)
    change = DeviceChange.trust_initial(content, by=phone.session.profile.keys.device.id)
    with pytest.raises(KeyRefused):
        change.key_for(stolen.device)
    of = change.devices
    for one in change.sealed:
        with pytest.raises(KeyRefused):
            stolen.device.open_user_key(one, tenant=of.tenant, user=of.user, epoch=of.epoch)
    writers = phone.session.profile.keys.devices.writers
    pretended = UserKey(stolen.user_key.secret, cover.epoch)
    with pytest.raises(RecordRefused):
        open_record(sealed, cover.edition.address, key=pretended, writers=writers)


def test_what_the_removed_one_writes_is_refused_even_under_the_new_key(three: list[PersonalModel]) -> None:
    phone, laptop, tablet = three
    follow(tablet, removed(phone, laptop))
    thief = laptop.session.profile
    thief.keys = replace(thief.keys, user_key=phone.session.profile.keys.user_key)
    learned(laptop, 9.0)
    for model in (phone, tablet):
        model.load_base()
        with pytest.raises(RecordMismatch, match=r"writer of the record is .*, expected one of 2 devices"):
            model.receive(record(laptop))
