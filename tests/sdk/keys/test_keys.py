"""User keys and device keys."""

import pytest

from antefix.errors import InvalidArgument, KeyRefused
from antefix.keys import DeviceKeys, DevicePublic, RecoveryCode, UserKey
from tests.support.records import some_bytes

TENANT, USER = some_bytes("tenant", 16), some_bytes("user", 16)
PHONE, LAPTOP = DeviceKeys(some_bytes("phone", 64)), DeviceKeys(some_bytes("laptop", 64))


def test_a_user_key_opens_on_its_device_alone() -> None:
    key = UserKey.generate()
    sealed = key.seal_for(PHONE.public, tenant=TENANT, user=USER)
    opened = PHONE.open_user_key(sealed, tenant=TENANT, user=USER, epoch=1)
    assert opened.secret.data == key.secret.data
    assert opened.epoch == 1
    with pytest.raises(KeyRefused):
        LAPTOP.open_user_key(sealed, tenant=TENANT, user=USER, epoch=1)
    for changed in ({"tenant": USER}, {"user": TENANT}, {"epoch": 2}):
        with pytest.raises(KeyRefused):
            PHONE.open_user_key(sealed, **{"tenant": TENANT, "user": USER, "epoch": 1, **changed})  # type: ignore[arg-type]


def test_no_damaged_sealed_key_opens() -> None:
    sealed = UserKey.generate().seal_for(PHONE.public, tenant=TENANT, user=USER)
    for at in range(0, len(sealed), 7):
        changed = bytearray(sealed)
        changed[at] ^= 1 << at % 8
        with pytest.raises(KeyRefused):
            PHONE.open_user_key(bytes(changed), tenant=TENANT, user=USER, epoch=1)
    for size in (0, 31, 1119, 1120, len(sealed) - 1):
        with pytest.raises(KeyRefused):
            PHONE.open_user_key(sealed[:size], tenant=TENANT, user=USER, epoch=1)
    with pytest.raises(KeyRefused):
        PHONE.open_user_key(sealed + b"\0", tenant=TENANT, user=USER, epoch=1)


def test_a_new_epoch_is_another_key() -> None:
    key = UserKey.generate()
    new = key.rotated()
    assert new.epoch == 2
    assert new.secret.data != key.secret.data
    memory = key.secret.data
    key.wipe()
    assert not any(memory)


def test_device_keys_come_from_their_seed() -> None:
    again = DeviceKeys(some_bytes("phone", 64))
    assert again.public == PHONE.public
    assert again.id == PHONE.id != LAPTOP.id
    PHONE.public.signing.verify(again.sign(b"x"), b"x")
    assert len(DeviceKeys.new_seed().data) == 64
    assert PHONE.public.fingerprint.replace(" ", "") == PHONE.id.hex()


def test_another_key_of_either_kind_is_another_device() -> None:
    mixed = DevicePublic(PHONE.public.kem_bytes, LAPTOP.public.signing_bytes)
    assert mixed.id not in (PHONE.id, LAPTOP.id)


def test_keys_of_another_size_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="63 bytes, expected 64"):
        DeviceKeys(bytes(63))
    with pytest.raises(InvalidArgument, match=r"\(1215, 32\) bytes"):
        DevicePublic(bytes(1215), bytes(32))
    with pytest.raises(InvalidArgument, match="tenant and user have 3 and 16"):
        UserKey.generate().seal_for(PHONE.public, tenant=b"abc", user=USER)


def test_a_public_key_that_is_none_is_refused() -> None:
    good = DeviceKeys(some_bytes("device", 64)).public
    none = DevicePublic(b"\xff" * 1216, good.signing_bytes)
    with pytest.raises(InvalidArgument, match="a public key that is none"):
        UserKey.generate().seal_for(none, tenant=bytes(16), user=bytes(16))


def test_nothing_secret_is_shown() -> None:
    key = UserKey.generate()
    shown = repr(key) + repr(key.secret) + repr(PHONE)
    assert key.secret.data.hex() not in shown
    assert some_bytes("phone", 64).hex()[:16] not in shown


def test_a_recovery_code_survives_paper() -> None:
    code = RecoveryCode.generate()
    keys = code.keys(tenant=TENANT, user=USER)
    typed = code.text().lower().replace("-", " ").replace("0", "o").replace("1", "l")
    again = RecoveryCode.parse(typed).keys(tenant=TENANT, user=USER)
    assert again.id == keys.id
    assert RecoveryCode.parse(code.text()).keys(tenant=USER, user=USER).id != keys.id
    assert len(code.text().split("-")) == 14
    assert code.text() not in repr(code)


def test_a_recovery_code_opens_the_user_key_of_any_epoch() -> None:
    code, key = RecoveryCode.generate(), UserKey.generate().rotated()
    public = code.keys(tenant=TENANT, user=USER).public  # kept in the device list; the code is not needed
    sealed = key.seal_for(public, tenant=TENANT, user=USER)
    lost = RecoveryCode.parse(code.text()).keys(tenant=TENANT, user=USER)
    assert lost.open_user_key(sealed, tenant=TENANT, user=USER, epoch=2).secret.data == key.secret.data


def test_a_mistyped_recovery_code_is_noticed_and_not_repeated() -> None:
    text = RecoveryCode.generate().text()
    for at in range(0, len(text), 3):
        if text[at] == "-":
            continue
        wrong = text[:at] + ("2" if text[at] != "2" else "3") + text[at + 1 :]
        with pytest.raises(InvalidArgument, match="typing error") as caught:
            RecoveryCode.parse(wrong)
        assert wrong[:9] not in str(caught.value)
    for other in ("", text[:-1], text + "0", text.replace(text[0], "U"), "é" * 56):
        with pytest.raises(InvalidArgument, match="56 letters"):
            RecoveryCode.parse(other)
