"""Two devices of one user: linked by two fingerprints; what both learned is kept, and one choice decides."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from antefix import Prefix
from antefix.errors import InvalidArgument, RecordMismatch
from antefix_client import PersonalModel
from antefix_client.errors import BaseChanged, LinkRefused, ProfileFull
from tests.client.people import KEY, NOTES, opened, reopened
from tests.client.two_devices import device, learned, link, record, snapshot, value
from tests.support import tiny_models
from tests.support.full_disk import full_disk


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[PersonalModel]:
    """The old device, with a version."""
    with device(tmp_path / "phone") as made:
        made.load_base()
        learned(made, 1.0)
        yield made


@pytest.fixture
def laptop(phone: PersonalModel, tmp_path: Path) -> Iterator[PersonalModel]:
    """The new device, linked, with the phone's version."""
    with device(tmp_path / "laptop") as made:
        link(phone, made)
        made.receive(record(phone))
        yield made


def names(model: PersonalModel) -> list[tuple[int, str, bool]]:
    return [(one.number, one.how, one.beside) for one in model.versions()]


def conflict(phone: PersonalModel, laptop: PersonalModel) -> None:
    """Both learn from version 1, and each receives what the other made."""
    learned(phone, 2.0)
    learned(laptop, 3.0)
    ours, theirs = record(phone), record(laptop)
    assert laptop.receive(ours).beside
    assert phone.receive(theirs).beside


@pytest.mark.slow
def test_what_one_device_learned_the_other_uses(phone: PersonalModel, tmp_path: Path) -> None:
    phone.remember(NOTES)
    assert phone.learn(progress=False).version == 2
    with device(tmp_path / "laptop") as laptop:
        laptop.remember(["a text of the laptop"])
        link(phone, laptop)
        path = phone.export(tmp_path / "record", what="record")
        received = laptop.receive(path.read_bytes())
        assert (received.number, received.how, received.beside) == (2, "received", False)
        assert laptop.generate("Note 3:", max_new_tokens=8) == phone.generate("Note 3:", max_new_tokens=8)
        laptop.remember(NOTES[:12])
        laptop.learn(progress=False)
        learned(laptop, 0.25)
        assert phone.receive(record(laptop)).beside == (laptop.versions()[-1].number > 3)
        assert len(laptop.texts()) == 13  # texts stay where they are
        assert len(phone.texts()) == len(NOTES)


def test_a_linked_profile_opens_again(phone: PersonalModel, laptop: PersonalModel) -> None:
    fingerprint, manifest = laptop.device, laptop.session.profile.manifest
    ours = phone.session.profile.manifest
    assert (manifest.tenant, manifest.user, manifest.prefix) == (ours.tenant, ours.user, ours.prefix)
    assert manifest.fingerprint == ours.fingerprint
    with reopened(laptop) as again:
        assert again.device == fingerprint
        assert value(again) == 1.0
        learned(again, 2.0)
        with reopened(phone) as other:
            assert other.receive(record(again)).number == 2
            assert value(other) == 2.0


def test_versions_go_back_and_forth(phone: PersonalModel, laptop: PersonalModel) -> None:
    for step in range(2, 9):
        maker, reader = (phone, laptop) if step % 2 else (laptop, phone)
        learned(maker, float(step))
        received = reader.receive(record(maker))
        assert (received.number, received.beside) == (step, False)
        assert value(reader) == step
    assert phone.status().conflicts == laptop.status().conflicts == ()


def test_the_same_record_twice_changes_nothing(phone: PersonalModel, laptop: PersonalModel) -> None:
    before = snapshot(laptop.status().folder)
    assert laptop.receive(record(phone)) == laptop.versions()[0]
    assert phone.receive(record(phone)) == phone.versions()[0]
    conflict(phone, laptop)
    kept = laptop.versions()
    assert laptop.receive(record(phone)) == kept[-1]
    assert laptop.versions() == kept
    assert before["keys"] == snapshot(laptop.status().folder)["keys"]


def test_two_that_learned_from_the_same_version_keep_both(
    phone: PersonalModel, laptop: PersonalModel
) -> None:
    conflict(phone, laptop)
    for model, own in ((phone, 2.0), (laptop, 3.0)):
        assert names(model)[1:] == [(2, "learned", False), (2, "received", True)]
        beside = model.versions()[-1]
        assert model.status().conflicts == (beside.name,)
        assert model.status().version == 2
        assert value(model) == own  # nothing is merged: one's own stays until somebody chooses
        with reopened(model) as again:
            assert value(again) == own
            assert again.versions()[-1] == beside
            learned(again, own)  # and one can go on
            assert again.status().conflicts == (beside.name,)


@pytest.mark.parametrize("chosen", ["own", "other"])
@pytest.mark.parametrize("by", ["name", "version"])
def test_a_choice_on_one_device_holds_on_both(
    chosen: str, by: str, phone: PersonalModel, laptop: PersonalModel
) -> None:
    conflict(phone, laptop)
    own, beside = laptop.versions()[-2:]
    with pytest.raises(InvalidArgument, match=f"2 versions .* choose one of {own.name}, {beside.name}"):
        laptop.roll_back(2)
    choice, wanted = (own, 3.0) if chosen == "own" else (beside, 2.0)
    made = laptop.roll_back(choice.name if by == "name" else choice)
    assert (made.number, made.how, made.of, made.beside) == (3, "rolled back", 2, False)
    assert value(laptop) == wanted
    assert laptop.status().conflicts == ()
    assert phone.receive(record(laptop)).beside is False
    assert value(phone) == wanted
    assert phone.status().conflicts == ()
    learned(phone, 4.0)
    assert not laptop.receive(record(phone)).beside
    assert laptop.roll_back().of == 3  # an old conflict is no conflict any more
    assert not phone.receive(record(laptop)).beside


def test_opposite_choices_are_a_conflict_again(phone: PersonalModel, laptop: PersonalModel) -> None:
    conflict(phone, laptop)
    phone.roll_back(phone.versions()[-1])
    laptop.roll_back(laptop.versions()[-1])
    assert (value(phone), value(laptop)) == (3.0, 2.0)
    assert phone.receive(record(laptop)).beside
    assert laptop.receive(record(phone)).beside
    laptop.roll_back(laptop.versions()[-1])
    assert not phone.receive(record(laptop)).beside
    assert value(phone) == value(laptop) == 3.0


def test_a_choice_follows_the_newest_of_the_other_device(phone: PersonalModel, laptop: PersonalModel) -> None:
    conflict(phone, laptop)
    older = laptop.versions()[-1]
    learned(phone, 4.0)
    assert laptop.receive(record(phone)).beside
    assert len(laptop.status().conflicts) == 2
    assert laptop.roll_back(older).number == 4
    assert not phone.receive(record(laptop)).beside
    assert value(phone) == 2.0


def test_after_a_gap_only_what_was_made_elsewhere_is_passed_over(
    phone: PersonalModel, laptop: PersonalModel
) -> None:
    records = [(learned(phone, float(number)), record(phone))[1] for number in range(2, 7)]
    third, last = records[1], records[4]
    assert not laptop.receive(third).beside  # version 2 never came
    assert value(laptop) == 3.0
    learned(laptop, 9.0)
    received = laptop.receive(last)
    assert (received.number, received.beside) == (6, True)
    assert value(laptop) == 9.0


def test_records_in_the_wrong_order_are_no_conflict(phone: PersonalModel, laptop: PersonalModel) -> None:
    learned(laptop, 2.0)
    phone.receive(record(laptop))
    third, fourth, fifth = [(learned(phone, float(number)), record(phone))[1] for number in (3, 4, 5)]
    assert laptop.receive(fourth).beside  # 2 was made here, and who knows from what 3 was made
    assert not laptop.receive(third).beside
    assert value(laptop) == 4.0
    assert laptop.status().conflicts == ()
    with reopened(laptop) as again:
        assert [one.number for one in again.versions()] == [1, 2, 3, 4]
        assert {path.name for path in (again.status().folder / "versions").iterdir()} == {
            one.file for one in again.versions()
        }
        sixth = (learned(phone, 6.0), record(phone))[1]
        assert not again.receive(sixth).beside
        late = again.receive(fifth)
        assert (late.number, late.beside) == (5, False)
        assert value(again) == 6.0


def test_older_than_all_that_is_kept_is_refused(phone: PersonalModel, laptop: PersonalModel) -> None:
    old = (learned(phone, 2.0), record(phone))[1]
    for number in range(2, 8):
        learned(laptop, float(number))
    before = snapshot(laptop.status().folder)
    with pytest.raises(RecordMismatch, match="is version 2, the oldest that is kept here is 3"):
        laptop.receive(old)
    assert snapshot(laptop.status().folder) == before


def test_versions_beside_do_not_grow_without_end_and_push_out_nothing_local(
    phone: PersonalModel, laptop: PersonalModel
) -> None:
    learned(laptop, 100.0)
    own = laptop.versions()
    for number in range(2, 12):
        learned(phone, float(number))
        laptop.receive(record(phone))
    assert laptop.versions()[:2] == own
    assert [one.number for one in laptop.versions() if one.beside] == [7, 8, 9, 10, 11]
    assert value(laptop) == 100.0
    assert len(list((laptop.status().folder / "versions").iterdir())) == 7


def test_only_a_fresh_profile_on_the_same_base_joins(phone: PersonalModel, tmp_path: Path) -> None:
    with device(tmp_path / "used") as used:
        learned(used, 5.0)
        welcome = phone.admit(used.link_request(), device=used.device)
        before = snapshot(tmp_path / "used")
        with pytest.raises(LinkRefused, match="has versions of its own; link a new profile"):
            used.join(welcome, device=phone.device)
        assert snapshot(tmp_path / "used") == before
        assert value(used) == 5.0
    with PersonalModel.create(tmp_path / "other", unlock=KEY, base=tiny_models.base("qwen2")) as other:
        other.load_base()
        welcome = phone.admit(other.link_request(), device=other.device)
        with pytest.raises(BaseChanged, match="the other device uses base 'tiny-llama' with fingerprint"):
            other.join(welcome, device=phone.device)


def test_a_lost_welcome_is_written_again_and_joining_twice_is_joining(
    phone: PersonalModel, tmp_path: Path
) -> None:
    with device(tmp_path / "laptop") as laptop:
        phone.admit(laptop.link_request(), device=laptop.device)
        keys = snapshot(phone.status().folder)["keys"]
        welcome = phone.admit(laptop.link_request(), device=laptop.device)
        assert snapshot(phone.status().folder)["keys"] == keys
        laptop.join(welcome, device=phone.device)
        laptop.receive(record(phone))
        before = snapshot(laptop.status().folder)
        laptop.join(welcome, device=phone.device)
        assert snapshot(laptop.status().folder) == before


def test_a_linked_device_links_no_second_time_and_admits_a_third(
    phone: PersonalModel, laptop: PersonalModel, tmp_path: Path
) -> None:
    with device(tmp_path / "tablet") as tablet:
        welcome = tablet.admit(laptop.link_request(), device=laptop.device)
        with pytest.raises(LinkRefused, match="has versions of its own"):
            laptop.join(welcome, device=tablet.device)
    with pytest.raises(LinkRefused, match="admitted by another device; admit it there"):
        laptop.admit(phone.link_request(), device=phone.device)
    with device(tmp_path / "watch") as watch:
        link(laptop, watch)
        watch.receive(record(laptop))
        assert value(watch) == 1.0
    with pytest.raises(LinkRefused, match="of this device itself"):
        laptop.admit(laptop.link_request(), device=laptop.device)


@pytest.mark.parametrize("new", [("keys",), ("profile.json",), ("keys", "profile.json"), ()])
def test_cut_off_between_keys_and_card_the_profile_opens(
    new: tuple[str, ...], phone: PersonalModel, tmp_path: Path
) -> None:
    """What `kill -9` leaves, file by file; a new card with old keys is what a backup of the keys leaves."""
    folder = tmp_path / "laptop"
    with device(folder) as laptop:
        laptop.remember(["a text"])
        welcome = phone.admit(laptop.link_request(), device=laptop.device)
        fingerprint = laptop.device
        laptop.close()
        shutil.copytree(folder, tmp_path / "cut off")
    with opened(folder) as laptop:
        laptop.join(welcome, device=phone.device)
    for name in new:
        shutil.copy(folder / name, tmp_path / "cut off" / name)
    with opened(tmp_path / "cut off") as cut:
        assert cut.device == fingerprint
        assert cut.status().texts == 1
        cut.join(welcome, device=phone.device)  # again, as one would
        assert value_of(cut, record(phone)) == 1.0
        learned(cut, 2.0)
        assert not phone.receive(record(cut)).beside
    with opened(tmp_path / "cut off") as again:
        assert value(again) == 2.0
        card = json.loads((tmp_path / "cut off" / "profile.json").read_text())
        assert card["user"] == again.session.profile.keys.ids["user"] or "profile.json" not in new


def value_of(model: PersonalModel, content: bytes) -> float:
    model.receive(content)
    return value(model)


def test_a_profile_of_before_is_a_users_first_device(tmp_path: Path) -> None:
    """Older files of keys do not hold the prefix's id."""
    source = Path(__file__).parents[2] / "vectors" / "profile"
    folder = Path(shutil.copytree(source, tmp_path / "old"))
    unlock = "the passphrase of the vector"
    with PersonalModel.open(folder, unlock=unlock) as old, device(tmp_path / "new") as new:
        link(old, new)
        assert new.receive(record(old)).number == 1
        assert isinstance(new.runtime.prefix, Prefix)
    with PersonalModel.open(folder, unlock=unlock) as old:
        assert len(old.session.profile.keys.devices.devices) == 2


def test_on_a_full_disk_nothing_is_linked_or_received(phone: PersonalModel, tmp_path: Path) -> None:
    with device(tmp_path / "laptop") as laptop:
        with full_disk(16), pytest.raises(ProfileFull):
            phone.admit(laptop.link_request(), device=laptop.device)
        assert len(phone.session.profile.keys.devices.devices) == 1
        welcome = phone.admit(laptop.link_request(), device=laptop.device)
        with full_disk(1000), pytest.raises(ProfileFull):
            laptop.join(welcome, device=phone.device)
        laptop.join(welcome, device=phone.device)
        with full_disk(16), pytest.raises(ProfileFull):
            laptop.receive(record(phone))
        assert laptop.versions() == []
        laptop.receive(record(phone))
        assert value(laptop) == 1.0


def test_the_fingerprint_may_be_typed_in_any_form(phone: PersonalModel, tmp_path: Path) -> None:
    with device(tmp_path / "laptop") as laptop:
        typed = laptop.device.upper().replace(" ", "")
        welcome = phone.admit(laptop.link_request(), device=typed)
        laptop.join(welcome, device=f" {phone.device}\n")
    for wrong in ("", "12", "zz" * 16, "1" * 33, "٣" * 32):
        with pytest.raises(InvalidArgument, match="a fingerprint has 32 digits"):
            phone.admit(b"", device=wrong)
