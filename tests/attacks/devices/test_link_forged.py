"""Who carries the messages of two devices changes them, swaps them or keeps them: refused, nothing changed.

So are records that are not of a listed device of this user.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from antefix.errors import RecordError, RecordMismatch, RecordRefused
from antefix.keys import DeviceKeys, DevicePublic, UserKey
from antefix.records import RecordVersion, seal
from antefix_client import PersonalModel
from antefix_client.devices.link_request import to_bytes
from antefix_client.devices.welcome import _LABEL, Welcome
from antefix_client.errors import BaseChanged, LinkRefused
from tests.client.people import KEY
from tests.client.two_devices import device, learned, link, record, snapshot, value
from tests.support import tiny_models
from tests.support.records import some_bytes

ROGUE = DeviceKeys(some_bytes("rogue", 64))


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[PersonalModel]:
    with device(tmp_path / "phone") as made:
        made.load_base()
        learned(made, 1.0)
        yield made


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[PersonalModel]:
    """Not linked yet."""
    with device(tmp_path / "laptop") as made:
        yield made


def welcome_of(phone: PersonalModel, laptop: PersonalModel) -> bytes:
    return phone.admit(laptop.link_request(), device=laptop.device)


def not_admitted(phone: PersonalModel, request: bytes, fingerprint: str) -> None:
    folder = phone.status().folder
    before = snapshot(folder)
    with pytest.raises(LinkRefused, match="the link is refused: ") as caught:
        phone.admit(request, device=fingerprint)
    assert caught.value.hint
    assert snapshot(folder) == before


def not_joined(laptop: PersonalModel, welcome: bytes, fingerprint: str, said: str = "") -> None:
    folder = laptop.status().folder
    before = snapshot(folder)
    with pytest.raises(LinkRefused, match=f"the link is refused: .*{said}") as caught:
        laptop.join(welcome, device=fingerprint)
    assert caught.value.hint
    assert snapshot(folder) == before


def not_received(model: PersonalModel, content: bytes, error: type[Exception], said: str) -> None:
    folder = model.status().folder
    before = snapshot(folder)
    with pytest.raises(error, match=said):
        model.receive(content)
    assert snapshot(folder) == before


def flipped(content: bytes) -> Iterator[bytes]:
    """One bit of every seventh byte, and of the last."""
    for at in (*range(0, len(content), 7), len(content) - 1):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        yield bytes(changed)


def cut(content: bytes) -> list[bytes]:
    return [b"", content[:8], content[:100], content[:1200], content[:-1], content + b"\0", content * 2]


def test_a_request_with_other_keys_is_refused(phone: PersonalModel, laptop: PersonalModel) -> None:
    """The whole request, one of its two keys, or the fingerprint that was compared."""
    honest = laptop.session.profile.keys.device.public
    for forged in (
        ROGUE.public,
        DevicePublic(ROGUE.public.kem_bytes, honest.signing_bytes),
        DevicePublic(honest.kem_bytes, ROGUE.public.signing_bytes),
    ):
        not_admitted(phone, to_bytes(forged), laptop.device)
    not_admitted(phone, laptop.link_request(), ROGUE.public.fingerprint)
    not_admitted(phone, laptop.link_request(), phone.device)


def test_no_flipped_bit_and_no_cut_of_a_request_passes(phone: PersonalModel, laptop: PersonalModel) -> None:
    request = laptop.link_request()
    for forged in (*flipped(request), *cut(request)):
        not_admitted(phone, forged, laptop.device)


def test_keys_that_are_none_are_refused_even_by_their_own_fingerprint(phone: PersonalModel) -> None:
    """A point of small order would make the shared secret known to everyone."""
    honest = ROGUE.public
    for kem in (b"\xff" * 1216, honest.kem_bytes[:1184] + bytes(32)):
        forged = DevicePublic(kem, honest.signing_bytes)
        not_admitted(phone, to_bytes(forged), forged.fingerprint)


@pytest.mark.slow
def test_no_flipped_bit_and_no_cut_of_a_welcome_passes(phone: PersonalModel, laptop: PersonalModel) -> None:
    welcome = welcome_of(phone, laptop)
    for forged in (*flipped(welcome), *cut(welcome)):
        not_joined(laptop, forged, phone.device)
    laptop.join(welcome, device=phone.device)  # control: the honest one passes


def test_a_welcome_by_another_device_than_the_compared_one_is_refused(
    phone: PersonalModel, laptop: PersonalModel, tmp_path: Path
) -> None:
    """Somebody admits the laptop as a device of his own, and would read all that it learns from then on."""
    with device(tmp_path / "mallory") as mallory:
        learned(mallory, 7.0)
        his = welcome_of(mallory, laptop)
        not_joined(laptop, his, phone.device, "from device .*, you compared")
        not_joined(laptop, welcome_of(phone, laptop), mallory.device, "from device .*, you compared")
        sender = phone.session.profile.keys.device.id
        not_joined(laptop, his[:8] + sender + his[24:], phone.device, "changed on its way")


def test_a_welcome_for_another_device_is_refused(
    phone: PersonalModel, laptop: PersonalModel, tmp_path: Path
) -> None:
    with device(tmp_path / "tablet") as tablet:
        welcome = welcome_of(phone, tablet)
        not_joined(laptop, welcome, phone.device, "is for device .*, this is another")


def test_a_welcome_of_another_user_is_no_good_after_joining(
    phone: PersonalModel, laptop: PersonalModel, tmp_path: Path
) -> None:
    with device(tmp_path / "before") as before:
        old = welcome_of(before, laptop)
        laptop.join(welcome_of(phone, laptop), device=phone.device)
        not_joined(laptop, old, before.device, "linked with other devices already")
        laptop.receive(record(phone))
        not_joined(laptop, old, before.device, "has versions of its own")
        assert value(laptop) == 1.0


def test_what_the_compared_device_would_not_write_is_refused(
    phone: PersonalModel, laptop: PersonalModel
) -> None:
    """Parts of honest messages, put together anew and signed by a stolen key of the compared device."""
    keys = phone.session.profile.keys
    honest = Welcome.from_bytes(welcome_of(phone, laptop), sender=keys.device.id)
    keys, other = phone.session.profile.keys, UserKey.generate()
    place = {"tenant": honest.devices.tenant, "user": honest.devices.user}
    forged = {
        "list without this device": replace(
            honest, devices=honest.devices.removing(honest.receiver, signer=keys.device)
        ),
        "list changed after signing": replace(
            honest, devices=replace(honest.devices, devices=(*honest.devices.devices, ROGUE.public))
        ),
        "list without the sender": replace(
            honest, devices=honest.devices.removing(keys.device.id, signer=keys.device)
        ),
        "list signed by another": replace(honest, devices=honest.devices._signed(ROGUE)),
        "key for another device": replace(honest, sealed_key=other.seal_for(ROGUE.public, **place)),
        "key of another epoch": replace(
            honest, sealed_key=other.rotated().seal_for(laptop.session.profile.keys.device.public, **place)
        ),
    }
    for welcome in forged.values():
        not_joined(laptop, welcome.to_bytes(keys.device), phone.device)
    content = bytearray(honest.to_bytes(keys.device)[:-64])
    content[40:56] = some_bytes("another tenant", 16)
    two_users = bytes(content) + keys.device.sign(_LABEL + bytes(content))
    not_joined(laptop, two_users, phone.device, "of two users")


def test_records_of_others_are_refused(phone: PersonalModel, laptop: PersonalModel, tmp_path: Path) -> None:
    before_linking = record(phone)
    laptop.load_base()  # or the first record would pin it, and change the card
    not_received(laptop, before_linking, RecordMismatch, "user of the record is")
    link(phone, laptop)
    laptop.receive(before_linking)
    with device(tmp_path / "stranger") as stranger, device(tmp_path / "third") as third:
        learned(stranger, 5.0)
        not_received(laptop, record(stranger), RecordMismatch, "user of the record is")
        link(laptop, third)
        learned(third, 5.0)  # the phone has never heard of it
        not_received(
            phone, record(third), RecordMismatch, "writer of the record is .*, expected one of 2 devices"
        )
    for junk in (b"", b"junk", b"\0" * 5000):
        not_received(laptop, junk, RecordError, "of the record is")


def test_a_record_on_another_base_is_refused(
    phone: PersonalModel, laptop: PersonalModel, tmp_path: Path
) -> None:
    link(phone, laptop)
    learned(laptop, 2.0)
    phone.change_base(tiny_models.base("qwen2"))
    phone.load_base()
    not_received(phone, record(laptop), BaseChanged, "the record is for base .*, this profile is for")
    with PersonalModel.create(tmp_path / "other", unlock=KEY, base=tiny_models.base("qwen2")) as other:
        other.load_base()
        not_received(other, record(laptop), BaseChanged, "the record is for base")


def test_no_flipped_bit_of_a_record_passes(phone: PersonalModel, laptop: PersonalModel) -> None:
    link(phone, laptop)
    laptop.receive(record(phone))
    learned(phone, 2.0)
    content, before = record(phone), snapshot(laptop.status().folder)
    for forged in flipped(content):
        with pytest.raises((RecordError, BaseChanged)):
            laptop.receive(forged)
    assert snapshot(laptop.status().folder) == before
    assert not laptop.receive(content).beside


def test_what_is_no_prefix_never_comes_into_use(phone: PersonalModel, laptop: PersonalModel) -> None:
    """Sealed and signed by a listed device, which somebody has got into."""
    link(phone, laptop)
    laptop.receive(record(phone))
    profile = phone.session.profile
    (version,) = profile.history.versions
    with profile.prefixes.open(version) as opened:
        edition = RecordVersion(opened.edition.address, 2, opened.digest)
    keys = profile.keys
    forged = seal(b"not a prefix", edition, key=keys.user_key, device=keys.device)
    not_received(laptop, forged, RecordRefused, "does not open here")
    assert value(laptop) == 1.0


def test_an_old_record_brings_nothing_back(phone: PersonalModel, laptop: PersonalModel) -> None:
    """Whoever stores records shows an older one again."""
    link(phone, laptop)
    shown = []
    for number in range(2, 9):
        shown.append(record(phone))
        laptop.receive(shown[-1])
        learned(phone, float(number))
    newest = laptop.versions()[-1]
    for old in shown[-4:]:
        laptop.receive(old)
    assert laptop.versions()[-1] == newest
    assert value(laptop) == 7.0
