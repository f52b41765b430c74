"""Grants by others, for others, for another time or version, or changed on the way: none opens a record."""

import json
import time
from typing import Any

import pytest

from antefix.errors import GrantRefused, RecordMismatch, RecordRefused
from antefix.grants import Epoch, EpochKey, Grant, issue_grant, open_granted
from antefix.keys import DeviceKeys, UserKey
from antefix.records import digest_of, rewrap
from antefix.wire import Signed
from tests.support.records import Owner, address_of, some_bytes

ANN, BOB = Owner.named("ann"), Owner.named("bob")
TENANT = ANN.address.tenant
RECORD = ANN.seal(b"ann's prefix")
NOW = int(time.time())
KEY, _ = EpochKey.generate(NOW + 3600)
OTHER, _ = EpochKey.generate(NOW + 3600)
EPOCH = KEY.statement(TENANT)


def grant(owner: Owner = ANN, record: bytes = RECORD, epoch: Epoch = EPOCH, seconds: int = 600) -> Signed:
    return issue_grant(
        record,
        owner.address,
        key=owner.key,
        writers=owner.writers,
        device=owner.device,
        epoch=epoch,
        seconds=seconds,
    )


SIGNED = grant()


def opened(
    signed: Signed = SIGNED, record: bytes = RECORD, device: DeviceKeys = ANN.device, **asked: Any
) -> bytes:
    expected: dict[str, Any] = {
        "tenant": TENANT,
        "user": ANN.address.user,
        "base": ANN.address.base,
        "epoch": KEY,
        "now": NOW,
    }
    found = Grant.from_device(device.public, signed)
    with open_granted(found, record, **{**expected, **asked}) as content:
        return bytes(content.payload)


def changed(**fields: Any) -> Signed:
    """Other terms, signed by the device all the same, as if it had been tricked."""
    body = Grant.model_validate({**json.loads(SIGNED.body), **fields}).to_bytes()
    return Signed(body=body.decode(), signature=ANN.device.sign(Grant.label + body).hex())


def test_a_grant_opens_its_record_and_the_server_needs_no_user_key() -> None:
    assert opened() == b"ann's prefix"
    assert ANN.key.secret.data.hex() not in SIGNED.body


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"tenant": some_bytes("another tenant", 16)}, "tenant is"),
        ({"user": BOB.address.user}, "user is"),
        ({"base": some_bytes("another base", 32)}, "base is"),
        ({"epoch": OTHER}, "epoch is"),
        ({"now": NOW + 600}, "it holds from"),
        ({"now": NOW - 400}, "it holds from"),
    ],
)
def test_other_expectations_are_refused(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(GrantRefused, match=why):
        opened(**asked)


def test_clocks_may_differ_a_little() -> None:
    assert opened(now=NOW - 200)


def test_a_grant_signed_by_another_device_is_refused() -> None:
    with pytest.raises(GrantRefused, match="not signed by the device"):
        opened(device=BOB.device)
    body = Grant.model_validate({**json.loads(SIGNED.body), "device": BOB.device.id.hex()}).to_bytes()
    with pytest.raises(GrantRefused, match="it is of device"):
        opened(Signed(body=body.decode(), signature=ANN.device.sign(Grant.label + body).hex()))


@pytest.mark.parametrize("field", ["id", "prefix", "version", "record", "writer", "since", "until", "shape"])
def test_what_was_sealed_opens_under_its_own_terms_alone(field: str) -> None:
    was = json.loads(SIGNED.body)[field]
    now = was + 1 if isinstance(was, int) else was[:-1] + ("0" if was[-1] != "0" else "1")
    with pytest.raises((GrantRefused, RecordMismatch)):
        opened(changed(**{field: now}))


@pytest.mark.parametrize("at", [0, 1000, 2271, 2272, -1])
def test_a_changed_sealed_key_opens_nothing(at: int) -> None:
    sealed = list(json.loads(SIGNED.body)["sealed"])
    sealed[at] = "0" if sealed[at] != "0" else "1"
    with pytest.raises(GrantRefused, match="does not open"):
        opened(changed(sealed="".join(sealed)))


def test_every_changed_byte_of_the_grant_is_refused() -> None:
    body = SIGNED.body.encode()
    for at in range(0, len(body), 7):
        damaged = bytearray(body)
        damaged[at] ^= 1
        with pytest.raises(GrantRefused):
            opened(Signed(body=damaged.decode(), signature=SIGNED.signature))


def test_a_grant_of_one_version_opens_no_other() -> None:
    second = ANN.seal(b"ann's next prefix", 2, digest_of(RECORD))
    with pytest.raises(GrantRefused, match="it is for version 1, stored is 2"):
        opened(record=second)
    with pytest.raises(RecordMismatch, match="version of the record is 1"):
        opened(grant(record=second))
    again = ANN.seal(b"another first prefix")
    with pytest.raises(RecordMismatch, match="digest of the record"):
        opened(record=again)


def test_another_users_record_is_refused() -> None:
    with pytest.raises(RecordMismatch, match="user of the record"):
        opened(record=BOB.seal(b"bob's prefix"))


def test_a_record_that_was_signed_by_a_stranger_is_refused() -> None:
    stranger = Owner("ann", ANN.address, ANN.key, BOB.device)
    record = stranger.seal(b"x")
    with pytest.raises(RecordMismatch, match="writer"):
        opened(changed(record=digest_of(record).hex()), record=record)
    with pytest.raises(RecordRefused):
        opened(changed(record=digest_of(record).hex(), writer=BOB.device.id.hex()), record=record)


def test_a_damaged_body_is_refused_as_records_are() -> None:
    with pytest.raises((RecordMismatch, RecordRefused)):
        opened(record=RECORD[:-1] + bytes([RECORD[-1] ^ 1]))


def test_a_record_under_a_new_user_key_keeps_its_grant() -> None:
    """The body and its data key stay, so what was granted stays granted until it ends."""
    new = UserKey.generate().rotated()
    record = rewrap(RECORD, ANN.address, old=ANN.key, new=new, device=ANN.device, writers=ANN.writers)
    assert opened(record=record) == b"ann's prefix"


def test_nothing_is_granted_to_another_server_or_after_the_end() -> None:
    with pytest.raises(GrantRefused, match="the epoch is of tenant"):
        grant(epoch=KEY.statement(some_bytes("another tenant", 16)))
    over, _ = EpochKey.generate(NOW - 10)
    with pytest.raises(GrantRefused, match="the epoch ended"):
        grant(epoch=over.statement(TENANT))
    with pytest.raises(GrantRefused, match="the server's key is none"):
        grant(epoch=EPOCH.model_copy(update={"key": "ff" * 1216}))


def test_a_grant_ends_with_its_epoch() -> None:
    found = Grant.from_device(ANN.device.public, grant(seconds=10**6))
    assert found.until == KEY.until


def test_nobody_grants_what_does_not_open() -> None:
    with pytest.raises(RecordMismatch):
        grant(record=BOB.seal(b"bob's prefix"))
    assert address_of("ann") == ANN.address
