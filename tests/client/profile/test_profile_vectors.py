"""A profile that was written once must open forever, and hold what was put in: texts, record and prefix."""

import json
import shutil
from pathlib import Path

import pytest

from antefix import FrozenBase, Prefix
from antefix.records import digest_of
from antefix_client import PersonalModel
from antefix_client.errors import UnlockRefused
from antefix_client.inference.export import export_content
from tests.support import tiny_models

SOURCE = Path(__file__).parents[2] / "vectors" / "profile"
RECORD = (SOURCE / "versions" / "00000001.record").read_bytes()
TEXTS = ["one", "two", "three"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy: opening a profile changes it."""
    return Path(shutil.copytree(SOURCE, tmp_path / "profile"))


def open_profile(folder: Path, base: FrozenBase | None = None) -> PersonalModel:
    return PersonalModel.open(folder, unlock="the passphrase of the vector", base=base)


def test_texts_versions_and_the_record_are_as_they_were(folder: Path) -> None:
    with open_profile(folder) as model:
        assert [text.completion for text in model.texts().values()] == TEXTS
        (version,) = model.versions()
        assert (version.number, version.how) == (1, "learned")
        assert version.digest == digest_of(RECORD).hex()
        assert export_content(model.runtime, "record") == RECORD
        lines = export_content(model.runtime, "texts").splitlines()
        assert [json.loads(line)["completion"] for line in lines] == TEXTS
        assert model.status().damaged == ()


def test_the_prefix_in_the_record_is_the_one_that_was_kept(folder: Path) -> None:
    base = tiny_models.base("llama")
    with open_profile(folder, base) as model:
        prefix = Prefix.from_bytes(export_content(model.runtime, "prefix"))
    assert (prefix.length, prefix.base_fingerprint) == (2, base.fingerprint)
    assert prefix.values.unique().tolist() == [0.5]


def test_a_text_is_added_to_those_that_were_there(folder: Path) -> None:
    with open_profile(folder) as model:
        assert model.remember(["three", "four"]) == 1
    with open_profile(folder) as model:
        assert [text.completion for text in model.texts().values()] == [*TEXTS, "four"]


def test_another_passphrase_opens_nothing(folder: Path) -> None:
    with pytest.raises(UnlockRefused):
        PersonalModel.open(folder, unlock="another passphrase")
