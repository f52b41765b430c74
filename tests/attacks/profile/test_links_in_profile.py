"""Links, pipes and other people's files in a profile's folder: never written to, never deleted."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from antefix.errors import InvalidArgument
from antefix_client import PersonalModel
from antefix_client.errors import ProfileError, ProfileExists, ProfileUnwritable, UnlockRefused
from tests.client.people import KEY, NOTES, opened
from tests.client.two_devices import learned
from tests.support import tiny_models
from tests.support.records import some_bytes

PRECIOUS = "years of work\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "profile"
    with PersonalModel.create(folder, unlock=KEY, base=tiny_models.base("llama")) as model:
        model.remember(NOTES)
        learned(model, 1.0)
    return folder


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "victim").write_text(PRECIOUS)
    return tmp_path / "victim"


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    "place",
    ["lock", ".x", ".texts.abcdefgh", "texts", "versions/.y", "versions/00000000.record"],
)
def test_what_a_link_points_at_is_not_touched(place: str, hard: bool, folder: Path, victim: Path) -> None:
    (folder / place).unlink(missing_ok=True)
    os.link(victim, folder / place) if hard else (folder / place).symlink_to(victim)
    with pytest.raises((UnlockRefused, ProfileUnwritable)):
        PersonalModel.open(folder, unlock=some_bytes("wrong", 32), base=tiny_models.base("llama"))
    with suppress(ProfileError), opened(folder) as model:
        learned(model, 2.0)
        model.remember(["a text more"])
        model.remove_texts([1])
        model.forget()
    assert victim.read_text() == PRECIOUS


def test_versions_that_are_a_link_are_refused(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (folder / "versions").rename(home)
    (home / ".bashrc").write_text(PRECIOUS)
    (folder / "versions").symlink_to(home)
    with pytest.raises(ProfileUnwritable, match="versions is a link"):
        opened(folder)
    assert len(list(home.iterdir())) == 2


def test_forgetting_follows_no_link(folder: Path, victim: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis").write_text(PRECIOUS)
    model = opened(folder)
    (folder / "notes").symlink_to(victim)
    (folder / "versions").rename(tmp_path / "away")
    (folder / "versions").symlink_to(home)
    model.forget()
    assert victim.read_text() == (home / "thesis").read_text() == PRECIOUS
    assert not folder.exists()


def test_forgetting_through_a_link_leaves_no_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    opened(tmp_path / "link").forget()
    assert not folder.exists()


@pytest.mark.parametrize("place", ["lock", "texts"])
def test_a_pipe_is_refused_and_not_waited_for(place: str, folder: Path) -> None:
    (folder / place).unlink()
    os.mkfifo(folder / place)
    with pytest.raises(ProfileUnwritable, match=f"{place} cannot be read or written"):
        opened(folder).texts()


@pytest.mark.parametrize("name", [".key", ".backup-of-key", ".texts", ".lock.orig", "versions/.note"])
def test_hidden_files_of_the_user_stay(name: str, folder: Path) -> None:
    (folder / name).write_text(PRECIOUS)
    (folder / ".git").mkdir()
    (folder / "versions" / ".git").mkdir()
    with opened(folder) as model:
        learned(model, 2.0)
    assert (folder / name).read_text() == PRECIOUS


def test_what_a_cut_off_write_left_goes(folder: Path) -> None:
    for name in (".texts.abc_de12", ".profile.json.zyxw9876", "versions/.00000002.record.abcdefgh"):
        (folder / name).write_text("half")
    opened(folder).close()
    assert [path for path in folder.rglob(".*")] == []


def test_a_key_that_is_made_in_the_new_profile_is_refused(tmp_path: Path) -> None:
    for name in (".key", "keys", "texts"):
        folder = tmp_path / name
        folder.mkdir()

        def unlock(path: Path = folder / name) -> bytes:
            path.write_bytes(KEY)
            return KEY

        with pytest.raises((InvalidArgument, ProfileExists), match=r"has put a file|has something in it"):
            PersonalModel.create(folder, unlock=unlock, base=tiny_models.base("llama"))
        assert (folder / name).read_bytes() == KEY


def test_nobody_else_can_look_in(tmp_path: Path) -> None:
    folder = tmp_path / "profile"
    folder.mkdir()
    folder.chmod(0o777)
    before = os.umask(0o022)
    try:
        with PersonalModel.create(folder, unlock=KEY, base=tiny_models.base("llama")) as model:
            learned(model, 1.0)
            model.export(tmp_path / "peft", what="peft")
            modes = {
                path: path.stat().st_mode & 0o777 for path in (folder, folder / "versions", tmp_path / "peft")
            }
            assert set(modes.values()) == {0o700}
            (folder / "versions").chmod(0o755)  # as it was made before
        opened(folder).close()
        assert (folder / "versions").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, -1)
    with pytest.raises(ProfileUnwritable, match="belongs to user 12345"):
        PersonalModel.create(tmp_path / "theirs", unlock=KEY, base=tiny_models.base("llama"))
