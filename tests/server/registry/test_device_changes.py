"""Changes of a user's devices on the server: in order, handed on; who was removed is let in no more."""

import httpx
import pytest

from antefix.keys import DeviceChange, DeviceKeys, DeviceList, UserKey
from antefix_server.registry import Node, Registry, Session
from antefix_server.registry.retired_nodes import Retired
from antefix_server.vault import Vault
from tests.server.gateway.test_gateway import LAPTOP, PHONE, asked, http, joined
from tests.support.records import some_bytes
from tests.support.vaults import Person

__all__ = ["http"]
TABLET = DeviceKeys(some_bytes("tablet", 64))


def enrolled(http: httpx.Client, vault: Vault, device: DeviceKeys) -> dict[str, str]:
    """Headers of one more device of ann."""
    invitation = Registry(vault).invite("ann")
    said = http.post("/v1/enrol", json=asked(invitation, device)).json()
    return {"Authorization": f"Bearer {said['token']}"}


def two(vault: Vault, person: Person) -> DeviceChange:
    """The phone has admitted the laptop."""
    first = DeviceList.first(tenant=vault.tenant, user=person.user, device=PHONE)
    return DeviceChange.adding(first, LAPTOP.public, signer=PHONE)


def without(change: DeviceChange, device: DeviceKeys, signer: DeviceKeys) -> DeviceChange:
    key = UserKey.generate().rotated()
    return DeviceChange.removing(change.devices, device.id, key=key, signer=signer)


def put(http: httpx.Client, headers: dict[str, str], change: DeviceChange) -> int:
    return http.put("/v1/devices", content=change.content, headers=headers).status_code


def test_a_change_is_handed_on_and_ends_a_session(http: httpx.Client, vault: Vault) -> None:
    person, phone = joined(http, vault)
    laptop = enrolled(http, vault, LAPTOP)
    admitted = two(vault, person)
    removed = without(admitted, LAPTOP, PHONE)
    assert http.get("/v1/devices/2", headers=phone).status_code == 404
    assert put(http, phone, admitted) == 200
    assert http.get("/v1/devices/2", headers=laptop).content == admitted.content
    assert put(http, phone, admitted) == 409
    assert put(http, phone, removed) == 200
    assert http.get("/v1/devices/3", headers=phone).content == removed.content
    assert http.get("/v1/devices/3", headers=laptop).status_code == 401
    assert [one.revoked for one in Registry(vault).devices("ann")] == [False, True]


def test_a_device_that_another_one_removes_leaves_flower_too(http: httpx.Client, vault: Vault) -> None:
    person, phone = joined(http, vault)
    enrolled(http, vault, LAPTOP)
    Registry(vault).nodes.keep(Session(person.user, LAPTOP.id), Node(1, LAPTOP.id, b"a key"))
    admitted = two(vault, person)
    assert put(http, phone, admitted) == 200
    assert Retired(vault.folder).nodes() == []
    assert put(http, phone, without(admitted, LAPTOP, PHONE)) == 200
    assert Retired(vault.folder).nodes() == [1]


def test_a_change_by_another_than_who_sends_it_is_refused(http: httpx.Client, vault: Vault) -> None:
    person, phone = joined(http, vault)
    laptop = enrolled(http, vault, LAPTOP)
    admitted = two(vault, person)
    assert put(http, laptop, admitted) == 400
    assert http.put("/v1/devices", content=admitted.content).status_code == 401
    assert http.put("/v1/devices", content=b"junk", headers=phone).status_code == 400
    assert http.put("/v1/devices", content=bytes(2**19), headers=phone).status_code == 413
    assert http.get("/v1/devices/2", headers=phone).status_code == 404


def test_what_does_not_follow_is_refused_and_revokes_nobody(http: httpx.Client, vault: Vault) -> None:
    person, phone = joined(http, vault)
    laptop = enrolled(http, vault, LAPTOP)
    admitted = two(vault, person)
    assert put(http, phone, admitted) == 200
    mine = DeviceList.first(tenant=vault.tenant, user=person.user, device=LAPTOP)
    forged = DeviceChange.adding(mine, PHONE.public, signer=LAPTOP)
    assert put(http, laptop, without(forged, PHONE, LAPTOP)) == 400
    other = DeviceList.first(tenant=vault.tenant, user=bytes(16), device=PHONE)
    assert put(http, phone, DeviceChange.adding(other, LAPTOP.public, signer=PHONE)) == 400
    assert not any(one.revoked for one in Registry(vault).devices("ann"))


@pytest.mark.parametrize("stored", [False, True])
def test_a_device_that_is_on_no_list_throws_nobody_out(
    stored: bool, http: httpx.Client, vault: Vault
) -> None:
    """It was invited and never linked; its own first list, or one after a gap, is its word alone."""
    person, phone = joined(http, vault)
    stranger = enrolled(http, vault, TABLET)
    if stored:
        assert put(http, phone, two(vault, person)) == 200
    mine = DeviceList.first(tenant=vault.tenant, user=person.user, device=TABLET)
    forged = DeviceChange.adding(mine, PHONE.public, signer=TABLET)
    for name in ("one", "two"):
        more = DeviceKeys(some_bytes(name, 64)).public
        forged = DeviceChange.adding(forged.devices, more, signer=TABLET)
    assert put(http, stranger, without(forged, PHONE, TABLET)) == (400 if stored else 200)
    assert not any(one.revoked for one in Registry(vault).devices("ann"))


def test_with_the_user_its_changes_are_gone(http: httpx.Client, vault: Vault) -> None:
    person, phone = joined(http, vault)
    assert put(http, phone, two(vault, person)) == 200
    Registry(vault).remove("ann")
    with vault.shelf.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM facts").scalar_one() == 0
