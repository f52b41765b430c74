"""A server hands the device list around: it cannot add, drop, swap or bring back anything."""

from dataclasses import replace
from typing import Any

import pytest

from antefix.errors import DeviceListRefused, InvalidArgument
from antefix.keys import DeviceKeys, DeviceList
from tests.support.records import some_bytes

TENANT, USER = some_bytes("tenant", 16), some_bytes("user", 16)
PHONE, LAPTOP, ROGUE = (DeviceKeys(some_bytes(name, 64)) for name in ("phone", "laptop", "rogue"))
FIRST = DeviceList.first(tenant=TENANT, user=USER, device=PHONE)
SECOND = FIRST.adding(LAPTOP.public, signer=PHONE)


def test_honest_changes_are_followed() -> None:
    assert DeviceList.from_digest(FIRST.to_bytes(), digest=FIRST.digest) == FIRST
    assert FIRST.apply(SECOND.to_bytes()) == SECOND
    third = SECOND.removing(PHONE.id, signer=LAPTOP)
    assert SECOND.apply(third.to_bytes()) == third
    assert (third.version, third.epoch) == (3, 2)
    assert set(third.writers) == {LAPTOP.id}


WITH_ROGUE = replace(SECOND, devices=(PHONE.public, ROGUE.public))


def by_phone(**changes: Any) -> bytes:
    """A change that a device of the list signed, against the rules."""
    return replace(SECOND, **changes)._signed(PHONE).to_bytes()


FORGED = {
    "signed by a device that is not on it": SECOND._signed(ROGUE).to_bytes(),
    "signed by the device that it adds": WITH_ROGUE._signed(ROGUE).to_bytes(),
    "a device swapped under an honest signature": WITH_ROGUE.to_bytes(),
    "the list before": FIRST.to_bytes(),
    "a version left out": SECOND.removing(LAPTOP.id, signer=PHONE).to_bytes(),
    "another history": by_phone(previous=some_bytes("x", 32)),
    "another user": by_phone(user=some_bytes("x", 16)),
    "another tenant": by_phone(tenant=some_bytes("x", 16)),
    "an epoch skipped": by_phone(epoch=3),
    "a device gone in the same epoch": by_phone(devices=(LAPTOP.public,)),
    "a device twice": by_phone(devices=(PHONE.public, PHONE.public)),
    "nobody": by_phone(devices=()),
    "cut": SECOND.to_bytes()[:-1],
    "longer": SECOND.to_bytes() + b"\0",
    "empty": b"",
}


@pytest.mark.parametrize("attack", FORGED)
def test_a_forged_list_is_refused(attack: str) -> None:
    with pytest.raises(DeviceListRefused, match="the device list is refused"):
        FIRST.apply(FORGED[attack])


def test_no_flipped_bit_passes() -> None:
    content = SECOND.to_bytes()
    for at in range(0, len(content), 3):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        with pytest.raises(DeviceListRefused):
            FIRST.apply(bytes(changed))
        with pytest.raises(DeviceListRefused):
            DeviceList.from_digest(bytes(changed), digest=SECOND.digest)


def test_a_removed_device_cannot_change_the_list() -> None:
    third = SECOND.removing(LAPTOP.id, signer=PHONE)
    with pytest.raises(InvalidArgument, match="not on the list"):
        third.adding(ROGUE.public, signer=LAPTOP)
    forged = replace(third, version=4, previous=third.digest, devices=(PHONE.public, ROGUE.public))
    with pytest.raises(DeviceListRefused, match="not on the list before"):
        third.apply(forged._signed(LAPTOP).to_bytes())


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="is on the list"):
        SECOND.adding(LAPTOP.public, signer=PHONE)
    with pytest.raises(InvalidArgument, match="last one"):
        FIRST.removing(PHONE.id, signer=PHONE)
    with pytest.raises(InvalidArgument, match="not on the list"):
        FIRST.removing(ROGUE.id, signer=PHONE)
