"""A folder that lacks weights: never random numbers under its fingerprint."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from antefix import FrozenBase
from antefix.errors import BaseDamaged
from tests import tiny

WEIGHT = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.model("llama").save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_the_whole_folder_loads(folder: Path) -> None:
    assert FrozenBase.load(str(folder), progress=False).layout == tiny.base("llama").layout


def test_a_missing_weight_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors[WEIGHT]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BaseDamaged, match=rf"lack 1 of the model's weights, {WEIGHT}"):
        FrozenBase.load(str(folder), progress=False)


def test_a_weight_of_another_shape_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[WEIGHT] = tensors[WEIGHT][:, :-1].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BaseDamaged, match="cannot be read"):
        FrozenBase.load(str(folder), progress=False)
