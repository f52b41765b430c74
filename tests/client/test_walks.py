"""How far a reader walks from an operation to what it writes.

A *room* is a folder of a package, or a public module at a package's root; what the SDK exports at its top
(`train`, `score`, `Prefix` …) is one room, `antefix`. Counted are the rooms that the client itself calls:
what training does inside is the SDK's affair. The *path* is the modules on the stack when the bytes go out.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import pytest

import antefix
from antefix_client import PersonalModel
from antefix_client.learning.checkpoint import SealedCheckpoint
from antefix_client.profile.profile import Profile
from antefix_client.profile.session import ProfileSession
from tests.client.people import NOTES

OURS = ("antefix.", "antefix_client")
WRITES = {"pwrite", "replace"}


@dataclass
class Walk:
    """Rooms that the client called, and the modules on the way to each write."""

    rooms: set[str] = field(default_factory=set)
    paths: list[list[str]] = field(default_factory=list)

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take one event of `sys.setprofile`."""
        if event == "c_call" and argument.__module__ == "posix" and argument.__name__ in WRITES:
            self.paths.append(list(dict.fromkeys(callers(frame)))[::-1])
        named = frame.f_code.co_name != "<module>" and frame.f_code.co_filename != "<string>"
        if event == "call" and named and module_of(frame).startswith(OURS):
            caller = next(iter(callers(frame.f_back)), "antefix_client")
            if caller.startswith("antefix_client"):
                self.rooms.add(room_of(module_of(frame)))


def module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def callers(frame: FrameType | None) -> Iterator[str]:
    """Name our modules on the stack, the innermost first."""
    while frame is not None:
        if module_of(frame).startswith(OURS):
            yield module_of(frame)
        frame = frame.f_back


def room_of(module: str) -> str:
    package, _, rest = module.partition(".")
    if package == "antefix" and rest in antefix._HOMES.values():
        return package
    return module.rsplit(".", 1)[0] if "." in rest else module


@contextmanager
def walked() -> Iterator[Walk]:
    walk = Walk()
    before = sys.getprofile()
    sys.setprofile(walk.note)
    try:
        yield walk
    finally:
        sys.setprofile(before)


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each section under the profile's lock, and each checkpoint."""
    noted: list[str] = []

    def noting(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            noted.append(name)
            return real(*given)

        return call

    monkeypatch.setattr(ProfileSession, "locked", noting(ProfileSession.locked, "section"))
    monkeypatch.setattr(SealedCheckpoint, "__setitem__", noting(SealedCheckpoint.__setitem__, "checkpoint"))
    return noted


def test_a_text_is_stored_within_four_rooms_and_one_section(
    model: PersonalModel, sections: list[str]
) -> None:
    model.remember(NOTES[:1])
    sections.clear()
    with walked() as walk:
        model.remember(NOTES[1:2])
    assert sections == ["section"]
    assert walk.rooms == {
        "antefix_client.model",
        "antefix_client.profile",
        "antefix.common",
        "antefix.crypto",
    }
    assert [path[-1] for path in walk.paths] == ["antefix_client.profile.text_log"]
    assert max(map(len, walk.paths)) <= 4


def test_learning_seals_a_record_within_ten_rooms_and_locks_once_a_phase(
    model: PersonalModel, sections: list[str]
) -> None:
    model.remember(NOTES)
    model.load_base()
    sections.clear()
    with walked() as walk:
        report = model.learn(progress=False)
    assert report.kept
    assert report.steps > 12
    # Texts are read; the base is asked for; what is in use is read; the result is accepted.
    assert sections.count("section") == 4 + sections.count("checkpoint")
    assert sections.count("checkpoint") < report.steps / 4
    assert len(walk.rooms) <= 10, sorted(walk.rooms)
    assert max(map(len, walk.paths)) <= 10


def test_a_profile_hands_out_its_objects(model: PersonalModel) -> None:
    """No forwarders: what its objects can do, the profile does not repeat."""
    profile = model.session.profile
    parts = (profile.texts, profile.history, profile.prefixes, profile.sealed)
    repeated = {name for part in parts for name in vars(type(part)) if not name.startswith("_")}
    own = {name for name in vars(Profile) if not name.startswith("_")}
    assert own & repeated <= {"open", "damaged"}
