"""The file of texts: a damaged header, a full disk or a kill in the middle loses and keeps nothing."""

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from antefix_client import PersonalModel
from antefix_client.errors import ProfileDamaged, ProfileFull, ProfileUnwritable
from antefix_client.profile import text_log
from tests.client.people import KEY, opened
from tests.support import tiny_models

TEXTS = ["SECRET " * 10, "two", "three", "four"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "profile"
    with PersonalModel.create(folder, unlock=KEY, base=tiny_models.base("llama")) as model:
        model.remember(TEXTS)
    return folder


def texts(model: PersonalModel) -> list[str]:
    return [text.completion for text in model.texts().values()]


def failing(code: int) -> object:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("at", [0, 8, 12, 23])
def test_a_damaged_header_costs_no_text(at: int, folder: Path) -> None:
    path = folder / "texts"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert [text.completion for text in PersonalModel.rescue(folder, unlock=KEY)] == TEXTS
    with opened(folder) as model:
        assert texts(model) == TEXTS
        assert model.status().damaged == ("texts: 1 place in it (at its start)",)
        model.remember(["five"])  # repairs it
    with opened(folder) as model:
        assert texts(model) == [*TEXTS, "five"]
        assert model.status().damaged == ()
        model.remove_texts([1])
    with opened(folder) as model:
        assert texts(model) == ["two", "three", "four", "five"]


def test_a_file_that_cannot_be_read_is_not_written_over(folder: Path) -> None:
    """With `state` and header both gone no entry opens: a write would take the chance to put it back."""
    content = bytearray((folder / "texts").read_bytes())
    content[12] ^= 1
    (folder / "texts").write_bytes(content)
    (folder / "state").unlink()
    with opened(folder) as model:
        assert texts(model) == []
        assert model.status().damaged
        for call in (lambda: model.remember(["new"]), lambda: model.session.profile.texts._rewrite({})):
            with pytest.raises(ProfileDamaged, match="nothing is written to it"):
                call()
    assert (folder / "texts").read_bytes() == content
    content[12] ^= 1
    (folder / "texts").write_bytes(content)
    with opened(folder) as model:
        assert texts(model) == TEXTS


def test_a_profile_of_before_learns_its_identity(folder: Path) -> None:
    """As it was without one in `state`: the first text that is remembered keeps it."""
    (folder / "state").unlink()
    with opened(folder) as model:
        model.remember(["five"])
    content = bytearray((folder / "texts").read_bytes())
    content[12] ^= 1
    (folder / "texts").write_bytes(content)
    with opened(folder) as model:
        assert texts(model) == [*TEXTS, "five"]


def test_remembering_above_the_limit_is_all_or_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder) as model:
        model.session.profile.texts.max_texts = 4
        monkeypatch.setattr(text_log, "atomic_write", failing(errno.ENOSPC))
        with pytest.raises(ProfileFull):
            model.remember(["refused, so not kept"])
        monkeypatch.undo()
        assert texts(model) == TEXTS
    with opened(folder) as model:
        assert texts(model) == TEXTS
        assert model.remember(["now"]) == 1


def test_after_an_error_of_the_disk_what_is_remembered_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file was there already, and the old one could not be overwritten."""
    with opened(folder) as model:
        monkeypatch.setattr(text_log, "overwrite", failing(errno.EIO))
        with pytest.raises(ProfileUnwritable):
            model.remove_texts([1, 2])
        monkeypatch.undo()
        assert texts(model) == ["three", "four"]
        model.remember(["after the error"])
    with opened(folder) as model:
        assert texts(model) == ["three", "four", "after the error"]
        assert model.status().damaged == ()


@pytest.fixture
def old_file(folder: Path) -> Iterator[int]:
    """The sectors that the file of texts has before a removal."""
    handle = os.open(folder / "texts", os.O_RDONLY)
    yield handle
    os.close(handle)


@pytest.mark.parametrize("step", ["atomic_write", "overwrite"])
def test_a_removal_that_was_killed_leaves_nothing_for_long(step: str, folder: Path, old_file: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            with opened(folder) as dying:
                setattr(text_log, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
                dying.remove_texts([1])
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    size = os.fstat(old_file).st_size
    assert any(os.pread(old_file, size, 0))  # control: it was not overwritten yet
    with opened(folder) as model:
        assert texts(model) == (TEXTS if step == "atomic_write" else TEXTS[1:])
        model.remove_texts([1])
        assert texts(model) == TEXTS[1:]
    assert not any(os.pread(old_file, size, 0))
    assert list(folder.glob(".*")) == []


def test_a_number_is_never_given_twice(folder: Path) -> None:
    """Who removes text 4 by the number he saw must not remove another."""
    with opened(folder) as model:
        model.remove_texts([4])
        model.remember(["precious"])
        assert model.remove_texts([4]) == 0
    with opened(folder) as model:
        assert list(model.texts()) == [1, 2, 3, 5]
        model.remove_texts([1, 2, 3, 5])
    with opened(folder) as model:
        model.remember(["precious"])
        assert list(model.texts()) == [6]
