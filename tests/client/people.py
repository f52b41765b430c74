"""Who owns the profiles of these tests, and what they write."""

from pathlib import Path

from antefix_client import PersonalModel
from tests.support import tiny_models
from tests.support.records import some_bytes

KEY = some_bytes("a key of 32 bytes", 32)
NOTES = [f"Note {number}: the roof of house {number} has an ornament." for number in range(24)]


def reopened(model: PersonalModel) -> PersonalModel:
    """The same profile, opened anew."""
    folder = model.status().folder
    model.close()
    return PersonalModel.open(folder, unlock=KEY, base=tiny_models.base("llama"))


def opened(folder: Path) -> PersonalModel:
    """A profile on the tiny base."""
    return PersonalModel.open(folder, unlock=KEY, base=tiny_models.base("llama"))


def tiny_folder(folder: Path) -> Path:
    """A tiny base that reads any text, saved as a user would have one."""
    tiny_models.model("llama").save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return folder
