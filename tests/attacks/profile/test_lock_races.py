"""Two who make a profile in one folder, and one who makes it while another destroys it: never two owners."""

from pathlib import Path

import pytest

from antefix.common.file_lock import try_lock
from antefix_client import PersonalModel
from antefix_client.errors import ProfileExists, ProfileInUse
from antefix_client.profile import profile, safe_files
from antefix_client.profile.lock import Lock
from tests.client.people import KEY, opened
from tests.support import tiny_models
from tests.support.records import some_bytes


def made(folder: Path, key: bytes = KEY) -> PersonalModel:
    return PersonalModel.create(folder, unlock=key, base=tiny_models.base("llama"))


def test_the_slower_of_two_creators_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster one was done between the look into the folder and the lock."""

    def late(path: Path) -> Lock:
        monkeypatch.undo()
        with made(tmp_path / "profile") as faster:
            faster.remember(["of the faster one"])
        return Lock(path)

    monkeypatch.setattr(profile, "Lock", late)
    with pytest.raises(ProfileExists):
        made(tmp_path / "profile", some_bytes("of the slower one", 32))
    with opened(tmp_path / "profile") as model:
        assert len(model.texts()) == 1


def test_who_waits_for_a_profile_that_is_destroyed_does_not_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "profile"
    model, others = made(folder), list[PersonalModel]()
    close = profile.Profile.close

    def closing(self: profile.Profile) -> None:
        close(self)
        monkeypatch.undo()
        others.append(made(folder))

    monkeypatch.setattr(profile.Profile, "close", closing)
    model.forget()
    (other,) = others
    with pytest.raises(ProfileInUse):
        opened(folder)
    other.remember(["mine"])
    other.close()


def test_a_lock_that_was_deleted_while_it_was_waited_for_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, path = Lock(tmp_path / "lock"), tmp_path / "lock"

    def after_the_others_deletion(handle: int) -> bool:
        monkeypatch.undo()
        first.delete()
        first.release()
        return try_lock(handle)

    monkeypatch.setattr(safe_files, "try_lock", after_the_others_deletion)
    second = Lock(path)
    with pytest.raises(ProfileInUse):
        Lock(path)
    second.release()
