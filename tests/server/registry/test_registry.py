"""Users, invitations and devices."""

import time

import pytest

from antefix.errors import InvalidArgument
from antefix.keys import DeviceKeys
from antefix.receipts import verify_receipt
from antefix.wire import Invitation
from antefix_server.admin import operations
from antefix_server.errors import (
    DeviceUnknown,
    InvitationRefused,
    NameTaken,
    NameUnknown,
    TokenRefused,
    VaultDamaged,
)
from antefix_server.registry import Enrolled, Registry
from antefix_server.registry import registry as module
from antefix_server.storage.schema import facts
from antefix_server.vault import Vault, user_rows
from tests.support.records import some_bytes
from tests.support.vaults import Person, reopen

PHONE, LAPTOP = DeviceKeys(some_bytes("phone", 64)), DeviceKeys(some_bytes("laptop", 64))


@pytest.fixture
def registry(vault: Vault) -> Registry:
    return Registry(vault)


def enrol(registry: Registry, invitation: Invitation, device: DeviceKeys = PHONE) -> Enrolled:
    return registry.enrol(invitation, device.public, invitation.proof(device), "phone")


def rows(vault: Vault) -> int:
    with vault.shelf.database.reading() as connection:
        return len(connection.execute(facts.select()).all())


def test_a_user_comes_in_with_a_code_and_then_with_a_token(registry: Registry, vault: Vault) -> None:
    added = registry.add("Ann")
    code = added.invitation.text()
    assert len(code) == 14 * 5 - 1
    enrolled = enrol(registry, Invitation.parse(code.lower().replace("-", " ")))
    assert (enrolled.tenant, enrolled.user) == (vault.tenant, added.user.id)
    session = registry.authenticate(enrolled.token)
    assert (session.user, session.device) == (added.user.id, PHONE.id)
    (device,) = registry.devices("ann")
    assert (device.id, device.name, device.revoked) == (PHONE.id, "phone", False)
    assert registry.find("ANN") == added.user
    assert [user.name for user in registry.users()] == ["Ann"]


def test_everything_is_there_after_a_restart(registry: Registry, vault: Vault) -> None:
    enrolled = enrol(registry, registry.add("ann").invitation)
    registry.suspend("ann")
    reopen(vault)
    again = Registry(vault)
    assert again.find("ann").suspended
    again.suspend("ann", False)
    assert again.authenticate(enrolled.token).user == enrolled.user


def test_an_invitation_is_good_for_one_device(registry: Registry) -> None:
    invitation = registry.add("ann").invitation
    first = enrol(registry, invitation)
    second = enrol(registry, invitation)  # the same device, whose answer was lost
    with pytest.raises(TokenRefused):
        registry.authenticate(first.token)
    registry.authenticate(second.token)
    with pytest.raises(InvitationRefused):
        enrol(registry, invitation, LAPTOP)
    enrol(registry, registry.invite("ann"), LAPTOP)
    assert [one.id for one in registry.devices("ann")] == [PHONE.id, LAPTOP.id]


def test_what_is_no_invitation_is_refused_alike(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    good = registry.add("ann").invitation
    other = Invitation.fresh(bytes(16))
    bad = [
        (Invitation.fresh(good.server), Invitation.fresh(good.server).proof(PHONE)),  # never given
        (other, other.proof(PHONE)),  # of another server
        (good, good.proof(LAPTOP)),  # of another device
        (good, bytes(64)),
    ]
    said = set()
    for invitation, proof in bad:
        with pytest.raises(InvitationRefused) as caught:
            registry.enrol(invitation, PHONE.public, proof)
        said.add(str(caught.value))
    late = time.time() + module.INVITED_S + 1
    monkeypatch.setattr(time, "time", lambda: late)
    with pytest.raises(InvitationRefused) as caught:
        enrol(registry, good)
    assert said | {str(caught.value)} == said
    assert good.text() not in str(caught.value)


def test_a_revoked_device_does_not_come_back(registry: Registry) -> None:
    invitation = registry.add("ann").invitation
    enrolled = enrol(registry, invitation)
    laptop = enrol(registry, registry.invite("ann"), LAPTOP)
    assert registry.revoke("ann", PHONE.id).revoked
    with pytest.raises(TokenRefused):
        registry.authenticate(enrolled.token)
    for way_in in (invitation, registry.invite("ann")):
        with pytest.raises(InvitationRefused):
            enrol(registry, way_in)
    registry.authenticate(laptop.token)
    with pytest.raises(DeviceUnknown):
        registry.revoke("ann", bytes(16))


def test_who_is_suspended_is_not_let_in(registry: Registry) -> None:
    enrolled = enrol(registry, registry.add("ann").invitation)
    registry.suspend("ann")
    with pytest.raises(TokenRefused):
        registry.authenticate(enrolled.token)
    registry.suspend("ann", False)
    registry.authenticate(enrolled.token)


def test_a_removal_leaves_nothing_and_the_name_is_free(registry: Registry, vault: Vault) -> None:
    enrolled = enrol(registry, registry.add("ann").invitation)
    invitation = registry.invite("ann")
    bob = enrol(registry, registry.add("bob").invitation, LAPTOP)
    person = Person.with_id(vault.tenant, enrolled.user, "ann")
    person.put(vault, b"mine")
    receipt = registry.remove("ann")
    verify_receipt(receipt.text(), vault.log_key, user=enrolled.user)
    assert rows(vault) == 3  # bob, his invitation, his device
    with pytest.raises(TokenRefused):
        registry.authenticate(enrolled.token)
    with pytest.raises(InvitationRefused):
        enrol(registry, invitation)
    for call in (registry.find, registry.remove, registry.suspend, registry.invite, registry.devices):
        with pytest.raises(NameUnknown):
            call("ann")
    assert registry.authenticate(bob.token).user == bob.user
    assert registry.add("ann").user.id != enrolled.user


@pytest.mark.parametrize("value", ["1000000000000", "'text'", "x'00'"])
def test_a_users_row_of_any_content_does_not_stop_its_removal(
    value: str, registry: Registry, vault: Vault
) -> None:
    enrolled = enrol(registry, registry.add("ann").invitation)
    with vault.shelf.database.writing() as connection:
        said = value if vault.shelf.database.is_file else "'other bytes'"  # PostgreSQL takes nothing else
        connection.exec_driver_sql(f"UPDATE facts SET sealed = {said}")
    with pytest.raises(VaultDamaged):
        registry.find("ann")
    receipt = operations.remove(operations.Site(vault), "ann")["receipt"]
    verify_receipt(receipt, vault.log_key, user=enrolled.user)
    assert rows(vault) == 0


def test_a_name_is_taken_however_it_is_written(registry: Registry) -> None:
    registry.add("Ann Straße")
    for name in (
        "ann straße",
        "ANN STRASSE",
        "\N{FULLWIDTH LATIN CAPITAL LETTER A}nn stra\N{LATIN SMALL LETTER SHARP S}e",
    ):
        with pytest.raises(NameTaken):
            registry.add(name)


@pytest.mark.parametrize(
    "name", ["", " ", "a\n", "a\0b", " ann", "\u202eann", "a" * 201, "a" * 10**7, None, 7, b"ann", "\ud800"]
)
def test_what_is_no_name_is_refused(name: object, registry: Registry) -> None:
    with pytest.raises(InvalidArgument):
        registry.add(name)  # type: ignore[arg-type]
    assert list(registry.users()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "'; DROP TABLE facts; --", "Ann 🙂", "a%b_c", "ан"])
def test_a_name_is_only_a_name(name: str, registry: Registry) -> None:
    assert registry.find(registry.add(name).user.name).name == name
    registry.remove(name)


@pytest.mark.parametrize("token", ["", "a", "\u00e9" * 64, "A" * 64, "A" * 63, "=" * 64, "A" * 10**6])
def test_no_text_is_a_token(token: str, registry: Registry) -> None:
    registry.add("ann")
    with pytest.raises(TokenRefused):
        registry.authenticate(token)


def test_users_are_listed_once_each(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_rows, "_BATCH", 3)
    names = [f"user {number}" for number in range(8)]
    for name in names:
        registry.add(name)
    assert [user.name for user in registry.users()] == names
