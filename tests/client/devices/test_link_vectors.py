"""Messages of two devices that were written once must be read forever, and say the same."""

import json
from pathlib import Path

import pytest

from antefix.errors import DeviceListRefused, KeyRefused
from antefix.keys import DeviceChange, DeviceKeys, DeviceList
from antefix_client.devices import link_request
from antefix_client.devices.welcome import Welcome
from tests.vectors import make_links
from tests.vectors.make_links import LAPTOP, PHONE, TABLET

FILE = json.loads((Path(__file__).parents[2] / "vectors" / "links.json").read_text())
CHANGES = [bytes.fromhex(change) for change in FILE["changes"]]


def key_of(epoch: int) -> bytes:
    return bytes.fromhex(FILE["user keys"][str(epoch)])


def test_the_script_still_makes_these_vectors() -> None:
    """What is random in them is the encryption alone."""
    made = make_links.vectors()
    assert {name: made[name] for name in make_links.known()} == make_links.known()
    assert {name: FILE[name] for name in make_links.known()} == make_links.known()
    for name in ("request", "first list"):
        assert made[name] == FILE[name]
    assert made["changes"][:2] == FILE["changes"][:2]
    assert len(made["welcome"]) == len(FILE["welcome"])
    assert len(made["changes"][2]) == len(FILE["changes"][2])


def test_the_request_and_the_welcome_link_the_laptop() -> None:
    request = bytes.fromhex(FILE["request"])
    assert len(request) == 1256
    assert link_request.from_bytes(request, device=FILE["ids"]["laptop"]) == LAPTOP.public
    found = Welcome.from_bytes(bytes.fromhex(FILE["welcome"]), sender=bytes.fromhex(FILE["ids"]["phone"]))
    of = found.devices
    said = (of.tenant.hex(), of.user.hex(), found.prefix.hex(), found.fingerprint.hex(), found.base)
    assert said == tuple(FILE[name] for name in ("tenant", "user", "prefix", "fingerprint", "base"))
    assert list(of.writers) == [PHONE.id, LAPTOP.id]
    key = LAPTOP.open_user_key(found.sealed_key, tenant=of.tenant, user=of.user, epoch=of.epoch)
    assert (key.epoch, bytes(key.secret.data)) == (1, key_of(1))


def test_the_changes_follow_each_other() -> None:
    devices = DeviceList.trust_initial(bytes.fromhex(FILE["first list"]), by=PHONE.id)
    found = []
    for content in CHANGES:
        found.append(DeviceChange.following(content, devices))
        devices = found[-1].devices
    assert [one.left for one in found] == [None, None, LAPTOP.id]
    assert list(devices.writers) == [PHONE.id, TABLET.id]
    for device in (PHONE, TABLET):
        key = found[-1].key_for(DeviceKeys(bytes.fromhex(FILE["seeds"][name_of(device)])))
        assert (key.epoch, bytes(key.secret.data)) == (2, key_of(2))
    with pytest.raises(KeyRefused):
        found[-1].key_for(LAPTOP)
    with pytest.raises(DeviceListRefused):
        DeviceChange.following(CHANGES[0], devices)


def name_of(device: DeviceKeys) -> str:
    return next(str(name) for name, id in FILE["ids"].items() if id == device.id.hex())
