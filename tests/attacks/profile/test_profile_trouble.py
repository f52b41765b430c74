"""A profile with a full disk, damaged files, or files of other profiles: named, and nothing lost."""

import json
import shutil
from pathlib import Path

import pytest

from antefix_client import PersonalModel
from antefix_client.errors import (
    ProfileAbsent,
    ProfileDamaged,
    ProfileFull,
    ProfileUnwritable,
    UnlockRefused,
)
from antefix_client.profile import migration
from tests.client.people import KEY, NOTES, opened
from tests.support import tiny_models
from tests.support.full_disk import full_disk
from tests.support.records import some_bytes


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile with texts and two versions, closed; tests work on copies."""
    folder = tmp_path_factory.mktemp("kept") / "profile"
    with PersonalModel.create(folder, unlock=KEY, base=tiny_models.base("llama")) as model:
        model.remember(NOTES)
        model.learn(progress=False)
        model.remember(["a text more"])
        model.learn(progress=False)
        assert len(model.versions()) == 2
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "profile"))


@pytest.mark.slow
def test_on_a_full_disk_writes_are_refused_and_nothing_is_lost(folder: Path) -> None:
    with opened(folder) as model:
        texts, size = model.texts(), (folder / "texts").stat().st_size
        for limit in (16, size + 100):
            with full_disk(limit):
                with pytest.raises(ProfileFull, match=r"no space left to write .*; nothing was lost"):
                    model.remember([some_bytes("long", 400).hex()])
                assert model.texts() == texts
            with full_disk(16):
                for call in (
                    lambda: model.remove_texts([1]),
                    lambda: model.roll_back(),
                    lambda: model.change_unlock(some_bytes("new", 32)),
                ):
                    with pytest.raises(ProfileFull):
                        call()
        with full_disk(200), pytest.raises(ProfileFull):
            model.learn(progress=False)
    with opened(folder) as model:
        assert model.texts() == texts
        assert len(model.versions()) == 2
        assert model.remember(["now there is room"]) == 1
        assert model.status().damaged == ()


def test_a_profile_that_cannot_be_made_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    with full_disk(16), pytest.raises(ProfileFull):
        PersonalModel.create(tmp_path / "new", unlock=KEY, base=tiny_models.base("llama"))
    with pytest.raises(ProfileAbsent):
        opened(tmp_path / "new")
    PersonalModel.create(tmp_path / "new", unlock=KEY, base=tiny_models.base("llama")).close()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
@pytest.mark.parametrize("name", ["profile.json", "keys"])
def test_without_card_or_keys_it_says_what_to_put_back(name: str, damage: str, folder: Path) -> None:
    original = (folder / name).read_bytes()
    spoil(folder / name, damage)
    with pytest.raises((ProfileDamaged, UnlockRefused)) as caught:
        opened(folder)
    assert name in str(caught.value) or caught.type is UnlockRefused  # a slot is a part of the card
    if name == "keys":  # the texts need no more than the card and what unlocks it
        assert [text.completion for text in PersonalModel.rescue(folder, unlock=KEY)][:24] == NOTES
    (folder / name).write_bytes(original)
    with opened(folder) as model:
        assert len(model.texts()) == 25


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_state_costs_what_was_measured_and_no_version(damage: str, folder: Path) -> None:
    with opened(folder) as model:
        wanted = model.generate("Note", max_new_tokens=5)
    spoil(folder / "state", damage)
    with opened(folder) as model:
        assert model.status().damaged == ("state",)
        assert [(one.number, one.how) for one in model.versions()] == [(1, "found"), (2, "found")]
        assert model.generate("Note", max_new_tokens=5) == wanted
        model.roll_back()
    with opened(folder) as model:
        assert model.status().damaged == ()
        assert [one.number for one in model.versions()] == [1, 2, 3]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_version_is_named_and_the_other_can_be_used(damage: str, folder: Path) -> None:
    spoil(folder / "versions" / "00000002.record", damage)
    with opened(folder) as model:
        with pytest.raises(ProfileDamaged, match="version 2"):
            model.generate("Note", max_new_tokens=2)
        assert model.roll_back().of == 1
        model.generate("Note", max_new_tokens=2)


def test_a_version_that_is_missing_is_named(folder: Path) -> None:
    (folder / "versions" / "00000002.record").unlink()
    with opened(folder) as model, pytest.raises(ProfileDamaged, match=r"00000002.record is missing"):
        model.generate("Note", max_new_tokens=2)


def test_a_version_put_in_place_of_another_is_refused(folder: Path) -> None:
    versions = folder / "versions"
    (versions / "00000002.record").write_bytes((versions / "00000001.record").read_bytes())
    with opened(folder) as model, pytest.raises(ProfileDamaged, match="version 2 is not the one"):
        model.generate("Note", max_new_tokens=2)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_checkpoint_is_as_good_as_none(damage: str, folder: Path) -> None:
    def stop(done: int, steps: int) -> None:
        raise KeyboardInterrupt

    with opened(folder) as model, pytest.raises(KeyboardInterrupt):
        model.learn(progress=stop)
    spoil(folder / "learning", damage)
    with opened(folder) as model:
        report = model.learn(progress=False)
        assert report.finished
        assert not report.resumed


def test_files_of_another_profile_do_not_open(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with PersonalModel.create(other, unlock=KEY, base=tiny_models.base("llama")) as model:
        model.remember(["a secret of somebody else", *NOTES])
        assert model.learn(progress=False).kept
    for name in ("texts", "state", "keys"):
        mixed = Path(shutil.copytree(folder, tmp_path / f"mixed {name}"))
        (mixed / name).write_bytes((other / name).read_bytes())
        if name == "keys":
            with pytest.raises(ProfileDamaged, match="keys is damaged"):
                opened(mixed)
            continue
        with opened(mixed) as model:
            assert (model.texts() == {}) == (name == "texts")
            assert model.status().damaged


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ProfileUnwritable, match="cannot be read or written"):
        PersonalModel.create(tmp_path / "file" / "profile", unlock=KEY)


def test_a_profile_of_a_newer_format_is_refused(folder: Path) -> None:
    card = json.loads((folder / "profile.json").read_text())
    (folder / "profile.json").write_text(json.dumps({**card, "format": 2, "more": True}))
    with pytest.raises(ProfileDamaged, match="is of format 2, this version writes 1; install the newest"):
        opened(folder)


def test_a_profile_of_an_older_format_is_brought_up_step_by_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an older version might have had it: without limits, and with another name for the texts."""
    path = folder / "profile.json"
    card = json.loads(path.read_text())
    old = {name: value for name, value in card.items() if name not in ("max_texts", "max_bytes")}
    (folder / "texts").rename(folder / "examples")
    path.write_text(json.dumps({**old, "format": -1}))

    def first(at: Path) -> None:
        (at / "examples").rename(at / "texts")
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))

    def second(at: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))

    monkeypatch.setattr(migration, "STEPS", {-1: first, 0: second})
    with opened(folder) as model:
        assert len(model.texts()) == 25
        model.generate("Note", max_new_tokens=2)
    assert json.loads(path.read_text())["format"] == 1


def test_this_formats_own_profile_opens_in_every_later_version() -> None:
    """`tests/vectors/profile` is of format 1; whoever changes the format adds a step, not a new one."""
    source = Path(__file__).parents[2] / "vectors" / "profile"
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(source, Path(temporary) / "profile"))
        with PersonalModel.open(folder, unlock="the passphrase of the vector") as model:
            assert [text.completion for text in model.texts().values()] == ["one", "two", "three"]
            assert [one.number for one in model.versions()] == [1]


@pytest.mark.parametrize(
    "content",
    [
        b'{"format": []}',
        b'{"format": {}}',
        b'{"format": "\\u001b[31mEVIL"}',
        b'{"format": true}',
        b"[" * 200_000,
        b'{"format":' + b"[" * 100_000,
        b'{"format":' + b"9" * 5000 + b"}",
        b"\xff\xfe",
    ],
    ids=range(8),
)
def test_a_card_that_somebody_made_up_is_refused(content: bytes, folder: Path) -> None:
    (folder / "profile.json").write_bytes(content)
    with pytest.raises(ProfileDamaged, match=r"profile\.json cannot be understood") as caught:
        opened(folder)
    assert "\x1b" not in str(caught.value)


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "flip":
        at = len(content) * 9 // 10
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(some_bytes("something else", len(content)))
