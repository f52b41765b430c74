"""A base in a local folder: what pins it, and what is refused."""

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from antefix.errors import BaseDamaged, BaseNotFound, InvalidArgument
from antefix.loading.source import model_fingerprint, resolve
from tests.sdk.saved_models import WORDS, change_json, save_base, write_safetensors


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_base(tmp_path / "base")


def fingerprint(folder: Path) -> str:
    return resolve(str(folder)).fingerprint


# A local folder


def test_a_folder_is_used_in_place(base: Path) -> None:
    found = resolve(str(base))
    assert (found.name, found.folder) == (str(base), base)
    assert len(bytes.fromhex(found.fingerprint)) == 32
    AutoModelForCausalLM.from_pretrained(found.folder, local_files_only=True)


def test_a_relative_folder_resolves_to_an_absolute_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent)
    assert resolve("./base").folder == resolve("base").folder == base


def test_fingerprint_is_the_same_for_any_shard_layout(tmp_path: Path, base: Path) -> None:
    sharded = save_base(tmp_path / "sharded", shard_bytes=2000)
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert fingerprint(sharded) == fingerprint(base)


def test_fingerprint_is_the_same_for_any_order_of_tensors(base: Path) -> None:
    before = fingerprint(base)
    reverse_tensors(base / "model.safetensors")
    assert fingerprint(base) == before


def reverse_tensors(path: Path) -> None:
    """Rewrite a safetensors file with its tensors the other way round."""
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    body, entries = b"", {}
    for name, entry in sorted(header.items(), key=lambda item: -int(item[1]["data_offsets"][0])):
        begin, end = entry["data_offsets"]
        entries[name] = {**entry, "data_offsets": [len(body), len(body) + end - begin]}
        body += data[start + begin : start + end]
    write_safetensors(path, entries, body)


def test_fingerprint_changes_with_one_weight(base: Path) -> None:
    before = fingerprint(base)
    path = base / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert fingerprint(base) != before


def test_fingerprint_changes_with_the_tokenizer(tmp_path: Path, base: Path) -> None:
    assert fingerprint(save_base(tmp_path / "other", words=[*WORDS, "gable"])) != fingerprint(base)


def test_fingerprint_changes_with_the_vocabulary_where_there_is_no_tokenizer_json(base: Path) -> None:
    (base / "tokenizer.json").unlink()
    (base / "vocab.json").write_text('{"the": 0}')
    before = fingerprint(base)
    (base / "merges.txt").write_text("t h")
    assert fingerprint(base) != before


@pytest.mark.parametrize(
    "change", [{"rms_norm_eps": 0.5}, {"model_type": "mistral"}, {"top_k": 2}, {"unheard_of": 1}]
)
def test_fingerprint_changes_with_settings_of_the_forward_pass(base: Path, change: dict[str, object]) -> None:
    before = fingerprint(base)
    change_json(base / "config.json", **change)
    assert fingerprint(base) != before


@pytest.mark.parametrize(
    "change",
    [
        {"_name_or_path": "somewhere"},
        {"transformers_version": "9.9"},
        {"dtype": "bfloat16"},
        {"torch_dtype": "float16"},
        {"architectures": ["Other"]},
        {"use_cache": False},
        {"id2label": {"0": "spam"}},
        {"num_beams": 4},
    ],
)
def test_fingerprint_ignores_settings_without_effect(base: Path, change: dict[str, object]) -> None:
    before = fingerprint(base)
    change_json(base / "config.json", **change)
    assert fingerprint(base) == before


def test_fingerprint_ignores_the_chat_template(base: Path) -> None:
    before = fingerprint(base)
    (base / "chat_template.jinja").write_text("{{ messages }}")
    change_json(base / "tokenizer_config.json", chat_template="{{ messages }}")
    assert fingerprint(base) == before


def test_fingerprint_reads_a_whole_number_in_either_spelling(base: Path) -> None:
    change_json(base / "config.json", rope_theta=10000)
    before = fingerprint(base)
    change_json(base / "config.json", rope_theta=10000.0)
    assert fingerprint(base) == before


# What a folder is refused for


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_a_pickled_folder_is_refused_unopened(base: Path, name: str) -> None:
    (base / "model.safetensors").unlink()
    (base / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BaseNotFound, match=rf"{name}, a pickled file.*save_pretrained"):
        resolve(str(base))


class Bomb:
    """Fails the test when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return pytest.fail, ("unpickled",)


def test_pickled_weights_beside_safetensors_are_not_read(base: Path) -> None:
    before = fingerprint(base)
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert fingerprint(base) == before


def test_a_pickle_that_is_named_safetensors_is_refused(base: Path) -> None:
    (base / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BaseDamaged, match=r"model\.safetensors is damaged or no safetensors file"):
        resolve(str(base))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.safetensors", "holds no model.safetensors"),
        ("config.json", "no config.json"),
        ("tokenizer*", "holds no tokenizer"),
    ],
)
def test_an_incomplete_folder_is_refused(base: Path, missing: str, message: str) -> None:
    for path in base.glob(missing):
        path.unlink()
    with pytest.raises(BaseNotFound, match=message):
        resolve(str(base))


def test_shards_without_their_index_are_refused(tmp_path: Path) -> None:
    sharded = save_base(tmp_path / "sharded", shard_bytes=2000)
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(BaseNotFound, match=r"neither model\.safetensors nor"):
        resolve(str(sharded))


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    sharded = save_base(tmp_path / "sharded", shard_bytes=2000)
    shard = sorted(sharded.glob("*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(BaseDamaged, match=shard.name):
        resolve(str(sharded))


def test_an_index_that_leaves_the_folder_is_refused(tmp_path: Path, base: Path) -> None:
    shutil.move(base / "model.safetensors", tmp_path / "outside.safetensors")
    index = {"weight_map": {"lm_head.weight": "../outside.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BaseDamaged, match=r"\.\./outside\.safetensors"):
        resolve(str(base))


def test_an_adapter_is_refused(base: Path) -> None:
    (base / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseNotFound, match="an adapter, not a base"):
        resolve(str(base))


def test_a_config_that_names_other_weights_is_refused(base: Path) -> None:
    change_json(base / "config.json", transformers_weights="other.safetensors")
    with pytest.raises(BaseNotFound, match=r"other\.safetensors"):
        resolve(str(base))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_a_config_that_is_no_object_is_refused(base: Path, text: str) -> None:
    (base / "config.json").write_text(text)
    with pytest.raises(BaseDamaged, match=r"config\.json"):
        resolve(str(base))


@pytest.mark.parametrize("kept_bytes", [0, 7, 8, 100, -1])
def test_a_file_that_is_cut_off_is_refused(base: Path, kept_bytes: int) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(BaseDamaged, match=r"model\.safetensors"):
        resolve(str(base))


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": []},
        {"a": {"dtype": "U8", "shape": [4]}},
        {"a": {"dtype": "U8", "shape": [-4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "U8", "shape": [4], "data_offsets": [4, 0]}},
        {"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 5]}},
        {"a": {"dtype": "U8", "shape": [3], "data_offsets": [1, 4]}},
        {"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}},
        {
            "a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
            "b": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
        },
    ],
)
def test_a_header_that_does_not_fit_its_bytes_is_refused(base: Path, header: object) -> None:
    write_safetensors(base / "model.safetensors", header, b"four")
    with pytest.raises(BaseDamaged, match=r"model\.safetensors is damaged"):
        resolve(str(base))


def test_a_header_of_many_gigabytes_is_refused_before_it_is_read(base: Path) -> None:
    (base / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    with pytest.raises(BaseDamaged, match="1,099,511,627,776 bytes"):
        resolve(str(base))


# A model in memory


def test_a_model_in_memory_has_the_fingerprint_of_its_folder(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    tokenizer = (base / "tokenizer.json").read_bytes()
    assert model_fingerprint(model.state_dict(), config, tokenizer) == fingerprint(base)


def test_a_model_in_memory_is_pinned_by_values_dtype_settings_and_tokenizer() -> None:
    def pin(tensor: torch.Tensor, config: dict[str, object], tokenizer: bytes) -> str:
        return model_fingerprint({"w": tensor}, config, tokenizer)

    ones = torch.ones(2, 2)
    before = pin(ones, {"layers": 1}, b"t")
    assert pin(ones.clone().t(), {"dtype": "x", "layers": 1}, b"t") == before
    others = [
        pin(ones * 2, {"layers": 1}, b"t"),
        pin(ones.view(torch.int32), {"layers": 1}, b"t"),
        pin(ones.view(4), {"layers": 1}, b"t"),
        pin(ones, {"layers": 2}, b"t"),
        pin(ones, {"layers": None}, b"t"),
        pin(ones, {"layers": 1}, b"u"),
    ]
    assert len({before, *others}) == 7


def test_a_scalar_and_an_empty_tensor_can_be_pinned() -> None:
    model_fingerprint({"s": torch.tensor(1.0, dtype=torch.bfloat16), "e": torch.empty(0, 3)}, {}, b"")


def test_settings_that_cannot_be_written_down_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="what JSON cannot"):
        model_fingerprint({}, {"activation": object()}, b"")
