"""Nothing of texts, tokens, prefix or keys lies open in a profile; after `forget` nothing is there."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from antefix_client import PersonalModel
from tests.client.people import KEY, NOTES, opened
from tests.server.needles import Needles
from tests.support import tiny_models
from tests.support.records import some_bytes

pytestmark = pytest.mark.slow

PASSPHRASE = "a passphrase of several words"
TEXTS = [f"{note} Its number is {some_bytes(note, 3).hex()}." for note in NOTES]


def needles(model: PersonalModel) -> Needles:
    """More than a thousand windows: of the texts, their tokens, the prefix in three types, and the keys."""
    profile, base = model.session.profile, tiny_models.base("llama")
    secrets = [bytes(profile._root.data), bytes(profile.keys.user_key.secret.data)]
    secrets += [bytes(profile.keys._seed.data[at : at + 32]) for at in (0, 32)]
    secrets.append(PASSPHRASE.encode())
    for text in TEXTS:
        content = text.encode()
        secrets += [content[at : at + 20] for at in range(0, len(content) - 20, 2)]
        tokens = base.tokenizer(text, add_special_tokens=False)["input_ids"]
        for size in "HIQ":
            packed = struct.pack(f"<{len(tokens)}{size}", *tokens)
            secrets += [packed[at : at + 24] for at in range(0, len(packed) - 24, 48)]
    secrets += list(of_prefix(model))
    assert len(secrets) > 1000
    return Needles(secrets)


def of_prefix(model: PersonalModel) -> Iterator[bytes]:
    prefix = model.runtime.prefix
    assert prefix is not None
    for dtype in ("fp32", "fp16", "bf16"):
        content = prefix.to_bytes(dtype=dtype)[-prefix.values.numel() * 2 :]
        yield from (content[at : at + 20] for at in range(0, len(content) - 20, 32))


@contextmanager
def learned(folder: Path) -> Iterator[PersonalModel]:
    """A profile with all that one can have."""
    with PersonalModel.create(folder, unlock=PASSPHRASE, base=tiny_models.base("llama")) as made:
        made.remember(TEXTS)
        assert made.learn(progress=False).kept
        made.remove_texts([1, 2])
        with pytest.raises(KeyboardInterrupt):
            made.learn(progress=interrupt)
        assert made.status().interrupted
        yield made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PersonalModel]:
    """One that is only looked at."""
    with learned(tmp_path_factory.mktemp("scan") / "profile") as made:
        yield made


def interrupt(done: int, steps: int) -> None:
    if done > 2:
        raise KeyboardInterrupt


def test_only_ciphertext_is_on_the_disk(model: PersonalModel, tmp_path: Path) -> None:
    found = needles(model)
    folder = model.status().folder
    assert {path.name for path in folder.iterdir()} >= {"profile.json", "keys", "state", "texts", "learning"}
    assert found.in_files([folder]) == {}
    control = tmp_path / "control"
    control.mkdir()
    model.export(control / "texts", what="texts")
    model.export(control / "prefix")
    assert set(found.in_files([control])) == {"texts", "prefix"}


def test_a_removed_text_is_under_no_key(model: PersonalModel) -> None:
    """Not even who has every key finds it."""
    profile = model.session.profile
    kept = {text.completion for text in profile.texts._log.read().texts.values()}
    assert kept == {TEXTS[at] for at in range(2, 24)}


def test_forgetting_leaves_nothing_anywhere(tmp_path: Path) -> None:
    folder = tmp_path / "profile"
    with learned(folder) as model:
        handles = [path.open("rb") for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
        assert sum(any(handle.read()) for handle in handles) >= 5  # control
        model.forget()
    assert not folder.exists()
    for handle in handles:  # what was on the disk is zeros, should somebody still have it open
        handle.seek(0)
        assert not any(handle.read())
        handle.close()


def test_a_second_process_is_told_who_has_it(model: PersonalModel) -> None:
    import os

    from antefix_client.errors import ProfileInUse

    with pytest.raises(ProfileInUse, match=f"in use by process {os.getpid()}"):
        opened(model.status().folder)


def test_a_copy_opens_for_nobody_without_the_passphrase(model: PersonalModel, tmp_path: Path) -> None:
    import shutil

    from antefix_client.errors import UnlockRefused

    shutil.copytree(model.status().folder, tmp_path / "copy")
    said = set()
    for unlock in (KEY, "another passphrase", PASSPHRASE + " ", PASSPHRASE.upper()):
        with pytest.raises(UnlockRefused) as caught:
            PersonalModel.open(tmp_path / "copy", unlock=unlock)
        said.add(str(caught.value))
    assert len(said) == 1
    assert "wait between tries" in said.pop()
    PersonalModel.open(tmp_path / "copy", unlock=PASSPHRASE).close()
