"""A process that forks while it has a profile open: two of them would write over each other."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from antefix_client import PersonalModel
from antefix_client.errors import ProfileInUse
from tests.client.people import KEY, opened
from tests.support import tiny_models


def in_child(call: Callable[[], object]) -> int:
    """What a fork comes to: 0 done, 7 refused as in use."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            call()
            code = 0
        except ProfileInUse:
            code = 7
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def model(tmp_path: Path) -> PersonalModel:
    model = PersonalModel.create(tmp_path / "profile", unlock=KEY, base=tiny_models.base("llama"))
    model.remember(["one"])
    return model


def test_a_child_cannot_write_what_its_parent_has_open(model: PersonalModel, tmp_path: Path) -> None:
    for call in (lambda: model.remember(["of the child"]), model.status, model.forget):
        assert in_child(call) == 7
    assert model.remember(["of the parent"]) == 1
    assert in_child(model.close) == 0  # lets go of its copy; the parent's stays open
    assert in_child(lambda: opened(tmp_path / "profile")) == 7
    model.remember(["more"])
    model.close()
    with opened(tmp_path / "profile") as again:
        assert [text.completion for text in again.texts().values()] == ["one", "of the parent", "more"]


def test_a_child_that_lives_does_not_keep_the_profile_locked(model: PersonalModel, tmp_path: Path) -> None:
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(there)
        os.read(here, 1)
        os._exit(0)
    os.close(here)
    try:
        model.close()
        opened(tmp_path / "profile").close()
    finally:
        os.close(there)
        os.waitpid(child, 0)
