"""A folder of odd files: a refusal that says why; never random numbers under its fingerprint."""

import copy
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from antefix import FrozenBase
from antefix.errors import BaseDamaged, BaseError, BaseUnsuitable
from tests.sdk.saved_models import change_json
from tests.support import tiny_models

WEIGHT = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_models.model("llama").save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_the_whole_folder_loads(folder: Path) -> None:
    assert FrozenBase.load(str(folder), progress=False).layout == tiny_models.base("llama").layout


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


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"hidden_size": "64"}, BaseUnsuitable, "hidden_size"),
        ({"hidden_size": 2.5}, BaseUnsuitable, "hidden_size"),
        ({"num_attention_heads": 0}, BaseUnsuitable, "no text model"),
        ({"num_hidden_layers": -1}, BaseUnsuitable, "no layer of LlamaForCausalLM"),
        ({"num_hidden_layers": 10**9}, BaseDamaged, "has 1,000,000,000 layers, its weights 21 tensors"),
        ({"hidden_act": "x"}, BaseUnsuitable, "no text model that transformers can run"),
        ({"rope_scaling": 5}, BaseUnsuitable, "rope_parameters"),
        ({"rms_norm_eps": "x"}, BaseUnsuitable, "rms_norm_eps"),
        ({"max_position_embeddings": -1}, BaseUnsuitable, "max_position_embeddings -1"),
        ({"max_position_embeddings": None}, BaseUnsuitable, "max_position_embeddings"),
        ({"architectures": 5, "model_type": "x"}, BaseUnsuitable, "no text model"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, BaseUnsuitable, "is quantised"),
        ({"quantization_config": "x"}, BaseUnsuitable, "no text model"),
    ],
)
def test_odd_settings_are_refused(
    change: dict[str, object], error: type[BaseError], said: str, folder: Path
) -> None:
    change_json(folder / "config.json", **change)
    with pytest.raises(error, match=said):
        FrozenBase.load(str(folder), progress=False)


@pytest.mark.parametrize(
    "change",
    [
        {"eos_token_id": "x"},
        {"eos_token_id": [2, 300]},
        {"eos_token_id": -1},
        {"bad_words_ids": [[300]]},
        {"bad_words_ids": [5]},
        {"bad_words_ids": 5},
        {"suppress_tokens": ["x"]},
        {"suppress_tokens": [-5]},
        {"suppress_tokens": [True]},
    ],
)
def test_settings_of_generation_that_name_no_token_are_refused(
    change: dict[str, object], folder: Path
) -> None:
    change_json(folder / "generation_config.json", **change)
    with pytest.raises(BaseError):
        FrozenBase.load(str(folder), progress=False)


def test_a_tokenizer_with_ids_beyond_the_embedding_is_refused(folder: Path) -> None:
    """Such a token would end a whole batch, on the text of whoever writes it."""
    tokenizer = copy.deepcopy(tiny_models.tokenizer())
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(BaseUnsuitable, match="token ids up to 300, the model 300 tokens"):
        FrozenBase.load(str(folder), progress=False)
    with pytest.raises(BaseUnsuitable, match="token ids up to 300"):
        FrozenBase.from_model(tiny_models.model("llama"), tokenizer)


@pytest.mark.parametrize("start", [None, 300, -1])
def test_a_decoder_that_starts_with_no_token_is_refused(start: int | None) -> None:
    model = tiny_models.model("bart")
    model.config.decoder_start_token_id = start
    with pytest.raises(BaseUnsuitable, match="as decoder_start_token_id, and the model has 300 tokens"):
        FrozenBase.from_model(model, tiny_models.tokenizer())


def test_a_tokenizer_that_counts_in_words_is_refused(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", model_max_length="x")
    with pytest.raises(BaseUnsuitable):
        FrozenBase.load(str(folder), progress=False)
