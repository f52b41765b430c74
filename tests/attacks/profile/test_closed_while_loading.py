"""A base that is still loading when the profile is destroyed, closed, or changed: it brings nothing back."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from antefix import FrozenBase
from antefix_client import PersonalModel
from antefix_client.errors import ProfileAbsent, ProfileClosed, ProfileFull, ProfileUnwritable, UnlockRefused
from antefix_client.profile import profile as profile_module
from antefix_client.profile.safe_files import secure_delete
from tests.client.people import KEY, NOTES, opened
from tests.support import tiny_models
from tests.support.full_disk import full_disk
from tests.support.records import some_bytes

OTHER = some_bytes("another key", 32)


@contextmanager
def loading(
    model: PersonalModel, call: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[BaseException]]:
    """In another thread `call` loads the base, until the block has ended."""
    begun, go_on, failed = threading.Event(), threading.Event(), list[BaseException]()

    def load(name: str, **_: object) -> FrozenBase:
        found = tiny_models.base(
            "qwen2" if name == "other" else "llama"
        )  # a second load may be of another one
        if not begun.is_set():
            begun.set()
            assert go_on.wait(20)
        return found

    def work() -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    monkeypatch.setattr(FrozenBase, "load", load)
    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(20)
    try:
        yield failed
    finally:
        go_on.set()
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def model(tmp_path: Path) -> Iterator[PersonalModel]:
    """A profile whose base is loaded by its name."""
    with PersonalModel.create(tmp_path / "profile", unlock=KEY, base="some name") as made:
        made.remember(NOTES)
        yield made


def calls(model: PersonalModel) -> list[Callable[[], object]]:
    return [
        lambda: model.generate("Note", max_new_tokens=2),
        lambda: model.learn(progress=False),
        lambda: model.score(NOTES[:2]),
        model.load_base,
    ]


@pytest.mark.parametrize("which", range(4))
def test_what_was_forgotten_stays_away(
    which: int, model: PersonalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loading(model, calls(model)[which], monkeypatch) as failed:
        model.forget()
        assert not (tmp_path / "profile").exists()
    assert [type(error) for error in failed] == [ProfileClosed]
    assert not (tmp_path / "profile").exists()
    with pytest.raises(ProfileAbsent):
        opened(tmp_path / "profile")


def test_a_closed_profile_is_not_written_to(
    model: PersonalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next opener changed what unlocks it: the old slot must not come back."""
    with loading(model, calls(model)[0], monkeypatch) as failed:
        model.close()
        with opened(tmp_path / "profile") as next_one:
            next_one.change_unlock(OTHER)
    assert [type(error) for error in failed] == [ProfileClosed]
    with pytest.raises(UnlockRefused):
        opened(tmp_path / "profile")
    PersonalModel.open(tmp_path / "profile", unlock=OTHER).close()


def test_every_writer_of_a_closed_profile_says_so(model: PersonalModel) -> None:
    profile = model.session.profile
    keys = profile.keys
    model.close()
    for call in (
        lambda: profile.pin_base("00" * 32),
        lambda: profile.change_base("name"),
        lambda: profile.texts.add([]),
        lambda: profile.texts.remove([1]),
        lambda: profile.replace_keys(keys),
        lambda: profile.change_unlock(OTHER),
        lambda: profile.sealed.write("state", b""),
        lambda: profile.sealed.delete("state"),
        profile.forget,
    ):
        with pytest.raises(ProfileClosed):
            call()


def test_nothing_of_a_model_that_was_dropped_is_in_memory(
    model: PersonalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loading(model, calls(model)[0], monkeypatch):
        model.close()
    assert model.runtime.loaded_base is None
    assert model.runtime._in_use is None


def test_a_base_that_was_changed_while_the_old_one_loaded(
    model: PersonalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new name must not be pinned to the old base's fingerprint: the profile would never open one."""
    with loading(model, model.load_base, monkeypatch) as failed:
        model.change_base("other")
    assert failed == []
    assert model.base is tiny_models.base("qwen2")
    card = json.loads((tmp_path / "profile" / "profile.json").read_text())
    assert (card["base"], card["fingerprint"]) == ("other", tiny_models.base("qwen2").fingerprint)


def test_the_unlock_can_be_changed_while_the_base_loads(
    model: PersonalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loading(model, model.load_base, monkeypatch):
        model.change_unlock(OTHER)
    model.close()
    PersonalModel.open(tmp_path / "profile", unlock=OTHER).close()


def test_a_change_that_was_refused_does_not_come_later(model: PersonalModel, tmp_path: Path) -> None:
    """On a full disk the unlock stayed; the next write of the card must not change it after all."""
    changes: list[Callable[[], object]] = [
        lambda: model.change_unlock(OTHER),
        lambda: model.change_base("another"),
        lambda: model.session.profile.pin_base("00" * 32),
    ]
    with full_disk(16):
        for call in changes:
            with pytest.raises(ProfileFull):
                call()
    assert (model.status().base, model.status().fingerprint) == ("some name", None)
    model.session.profile.pin_base("11" * 32)
    model.close()
    opened(tmp_path / "profile").close()


def test_whoever_is_asked_for_a_new_passphrase_holds_nobody_up(model: PersonalModel) -> None:
    found: list[int] = []

    def unlock() -> bytes:
        thread = threading.Thread(target=lambda: found.append(model.status().texts), daemon=True)
        thread.start()
        thread.join(10)
        return OTHER

    model.change_unlock(unlock)
    assert found == [len(NOTES)]


def test_what_could_not_be_destroyed_whole_does_not_come_back(
    model: PersonalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> None:
        if path.name == "texts":
            raise ProfileUnwritable("an error of the disk")
        secure_delete(path)

    monkeypatch.setattr(profile_module, "secure_delete", failing)
    with pytest.raises(ProfileUnwritable):
        model.forget()
    for call in (model.status, lambda: model.change_base("another"), lambda: model.remember(["more"])):
        with pytest.raises(ProfileClosed):
            call()
    assert not (tmp_path / "profile" / "profile.json").exists()
