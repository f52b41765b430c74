"""A `state` that is missing, or of a version before, as from a backup: no version is lost for it."""

import shutil
from pathlib import Path

import pytest

from antefix.errors import RecordMismatch
from antefix_client import PersonalModel
from antefix_client.inference.export import export_content
from tests.attacks.profile.test_removed_texts_learned import remember_learn_and_remove
from tests.client.people import KEY, opened
from tests.client.two_devices import learned, value
from tests.support import tiny_models
from tests.support.records import some_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three versions; beside the folder the state as it was after each."""
    folder = tmp_path / "profile"
    with PersonalModel.create(folder, unlock=KEY, base=tiny_models.base("llama")) as model:
        for number in (1, 2, 3):
            learned(model, float(number))
            shutil.copy(folder / "state", tmp_path / f"state {number}")
    return folder


def test_without_it_the_records_say_what_there_is(folder: Path) -> None:
    (folder / "state").unlink()
    with opened(folder) as model:
        assert [(one.number, one.how) for one in model.versions()] == [(n, "found") for n in (1, 2, 3)]
        assert model.status().damaged == ("state",)
        assert model.status().learn_due  # whether texts were removed is lost with it
        assert value(model) == 3.0


def test_records_newer_than_an_older_one_are_taken_in(folder: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "state 1", folder / "state")
    with opened(folder) as model:
        assert [(one.number, one.how) for one in model.versions()] == [
            (1, "learned"),
            (2, "found"),
            (3, "found"),
        ]
        assert value(model) == 3.0
        assert learned(model, 4.0).number == 4
    with opened(folder) as model:
        assert [one.number for one in model.versions()] == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [4, 99, 10**9])
def test_what_does_not_open_is_named_and_neither_used_nor_deleted(number: int, folder: Path) -> None:
    """A record of somebody else, put there under a newer number."""
    place = folder / "versions" / f"{number:08d}.record"
    for content in (some_bytes("noise", 500), (folder / "versions" / "00000003.record").read_bytes()):
        place.write_bytes(content)
        with opened(folder) as model:
            assert value(model) == 3.0
            assert (place.name in model.status().damaged) == (number < 10**9)
            assert [one.number for one in model.versions()] == [1, 2, 3]
        assert place.read_bytes() == content


def test_the_first_version_of_a_profile_that_was_cut_off_is_found(folder: Path) -> None:
    """Killed between the record and the state."""
    for old in ("00000002.record", "00000003.record"):
        (folder / "versions" / old).unlink()
    (folder / "state").unlink()
    with opened(folder) as model:
        assert value(model) == 1.0


@pytest.mark.slow
def test_what_was_dropped_does_not_come_back_from_its_file(tmp_path: Path) -> None:
    with PersonalModel.create(tmp_path / "profile", unlock=KEY, base=tiny_models.base("llama")) as model:
        remember_learn_and_remove(model)
        old = export_content(model.runtime, "record")
        model.learn(progress=False)
        model.remove_texts(list(model.texts())[1:])
        with pytest.raises(Exception, match="were dropped"):
            model.learn(progress=False)
    (tmp_path / "profile" / "versions" / "00000001.record").write_bytes(old)
    with opened(tmp_path / "profile") as model:
        assert model.versions() == []
        with pytest.raises(RecordMismatch):
            model.receive(old)


def test_a_record_of_another_user_is_not_taken_in(folder: Path, tmp_path: Path) -> None:
    """It has the right number and name, and nothing here opens it."""
    with PersonalModel.create(tmp_path / "other", unlock=KEY, base=tiny_models.base("llama")) as other:
        for number in range(4):
            learned(other, float(number))
    shutil.copy(tmp_path / "other/versions/00000004.record", folder / "versions")
    with opened(folder) as model:
        assert value(model) == 3.0
        assert model.status().damaged == ("00000004.record",)
