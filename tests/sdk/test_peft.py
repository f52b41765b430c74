"""Exchange with the real PEFT: what it reads from us and we read from it computes the same."""

import json
import stat
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from antefix import FrozenBase, GenerationRequest, Prefix, generate
from antefix.attention.packed import PackedRows
from antefix.data.tokenization import prompt_tokens
from antefix.errors import InvalidArgument, PrefixFileRefused, PrefixMismatch
from antefix.peft import export_peft, import_peft
from antefix.training.initialization import activations
from tests.sdk.saved_models import change_json, write_safetensors
from tests.support import tiny_models

# PEFT 0.21 asks transformers 5.23 for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

LENGTH = 5
PROMPT = 'The roof has an ornament: "antefix"'
IDS = torch.tensor([[7, 90, 33, 51, 120, 14, 205]])
WEIGHTS, CONFIG, PIN = "adapter_model.safetensors", "adapter_config.json", "antefix.json"


def their_model(family: str) -> PreTrainedModel:
    """Build the same model once more, for PEFT alone, with transformers' own attention."""
    model = tiny_models.model(family)
    model.set_attn_implementation("sdpa")
    settings: Any = model.generation_config
    settings.eos_token_id = None  # both sides write the same number of tokens
    return model


def trained_by_peft(family: str, folder: Path, **config: Any) -> peft.PeftModel:
    """Train two steps, so that nothing is as initialised, and save."""
    model = peft.get_peft_model(
        their_model(family), peft.PrefixTuningConfig("CAUSAL_LM", num_virtual_tokens=LENGTH, **config)
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(str(folder))
    return model.eval()


def some_prefix(base: FrozenBase) -> Prefix:
    real = activations(base, [[5, 61, 19, 80, 23][:LENGTH]])[0]
    return Prefix(real + 0.3 * torch.randn_like(real), base.layout, base.fingerprint)


def our_logits(base: FrozenBase, prefix: Prefix, ids: Tensor) -> Tensor:
    parts = [part[None] for part in base.layout.split(prefix.values)]
    positions = prefix.length + torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        hidden = base.decode(ids, positions, PackedRows.of(base, [ids.shape[1]], [0], parts))
        return base.head.logits(hidden)


def same_function(base: FrozenBase, prefix: Prefix, model: peft.PeftModel) -> None:
    ids = torch.tensor([prompt_tokens(base, PROMPT)])
    with torch.no_grad():
        theirs = model(input_ids=ids).logits
        written = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
        )
    assert (our_logits(base, prefix, ids) - theirs).abs().max() < 1e-4
    request = GenerationRequest(prompt=PROMPT, prefix=prefix, max_new_tokens=12, ignore_eos=True)
    assert list(generate(base, [request])[0].tokens) == written[0, -12:].tolist()


@pytest.mark.parametrize("family", tiny_models.CAUSAL)
def test_an_exported_prefix_computes_the_same_in_peft(family: str, tmp_path: Path) -> None:
    base = tiny_models.base(family)
    prefix = some_prefix(base)
    folder = export_peft(prefix, base, tmp_path / "alice")
    same_function(base, prefix, peft.PeftModel.from_pretrained(their_model(family), folder))


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("family", tiny_models.CAUSAL)
def test_a_prefix_trained_by_peft_computes_the_same_here(
    family: str, projection: bool, tmp_path: Path
) -> None:
    base = tiny_models.base(family)
    model = trained_by_peft(family, tmp_path, prefix_projection=projection)
    prefix = import_peft(tmp_path, base)
    assert prefix.length == LENGTH
    same_function(base, prefix, model)
    same_function(base, prefix, peft.PeftModel.from_pretrained(their_model(family), tmp_path))


def test_a_prefix_survives_the_way_there_and_back(tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    prefix = some_prefix(base)
    assert import_peft(export_peft(prefix, base, tmp_path), base) == prefix


def test_an_export_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    folder = export_peft(some_prefix(base), base, tmp_path)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {WEIGHTS: 0o600, CONFIG: 0o600, PIN: 0o600}


def test_an_export_names_its_base(tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    folder = export_peft(some_prefix(base), base, tmp_path)
    assert json.loads((folder / CONFIG).read_text())["base_model_name_or_path"] == "tiny-llama"
    pin = json.loads((folder / PIN).read_text())
    assert pin == {"base": "tiny-llama", "base_fingerprint": base.fingerprint}


def test_exporting_with_another_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrefixMismatch, match="was trained on base"):
        export_peft(some_prefix(tiny_models.base("llama")), tiny_models.base("qwen2"), tmp_path)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_an_encoder_decoder_is_refused(family: str, tmp_path: Path) -> None:
    base = tiny_models.base(family)
    prefix = Prefix(torch.zeros(base.layout.size(LENGTH)), base.layout, base.fingerprint)
    with pytest.raises(InvalidArgument, match="decoder's self-attention"):
        export_peft(prefix, base, tmp_path)
    with pytest.raises(InvalidArgument, match="decoder's self-attention"):
        import_peft(tmp_path, base)


def test_a_folder_pinned_to_another_base_is_refused(tmp_path: Path) -> None:
    """Llama and Mistral of one shape and seed: PEFT itself would not notice."""
    export_peft(some_prefix(tiny_models.base("llama")), tiny_models.base("llama"), tmp_path)
    with pytest.raises(PrefixMismatch, match=r"belongs to base .{16}…, the base in use is .{16}…"):
        import_peft(tmp_path, tiny_models.base("mistral"))


@pytest.mark.parametrize("pinned", [None, 3, "abc", "Z" * 64])
def test_an_unreadable_pin_is_refused(pinned: object, tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    export_peft(some_prefix(base), base, tmp_path)
    change_json(tmp_path / PIN, base_fingerprint=pinned)
    with pytest.raises(PrefixFileRefused, match="64 hex digits"):
        import_peft(tmp_path, base)


def test_without_a_pin_the_shapes_are_compared(tmp_path: Path) -> None:
    export_peft(some_prefix(tiny_models.base("gpt2")), tiny_models.base("gpt2"), tmp_path)
    (tmp_path / PIN).unlink()
    with pytest.raises(PrefixMismatch, match=r"has num_layers 3, base 'tiny-llama' needs 2"):
        import_peft(tmp_path, tiny_models.base("llama"))


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"peft_type": "LORA"}, PrefixFileRefused, "of type 'LORA', expected 'PREFIX_TUNING'"),
        ({"peft_type": None}, PrefixFileRefused, "of type None"),
        ({"num_attention_heads": 4}, PrefixMismatch, "has num_attention_heads 4, base 'tiny-llama' needs 2"),
        ({"token_dim": "x" * 500}, PrefixMismatch, "has token_dim 'x{39}…, base"),
        ({"num_transformer_submodules": 2}, PrefixMismatch, "has num_transformer_submodules 2"),
        ({"num_virtual_tokens": 6}, PrefixMismatch, r"shape \[5, 128\], expected \[6, 128\]"),
        ({"num_virtual_tokens": [5]}, PrefixMismatch, r"expected \[\[5\], 128\]"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    changes: dict[str, object], error: type[Exception], match: str, tmp_path: Path
) -> None:
    base = tiny_models.base("llama")
    export_peft(some_prefix(base), base, tmp_path)
    change_json(tmp_path / CONFIG, **changes)
    with pytest.raises(error, match=match):
        import_peft(tmp_path, base)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (CONFIG, b"", "is not JSON"),
        (CONFIG, b"[1]", "is not a JSON object"),
        (CONFIG, b'{"peft_type": "LORA", "peft_type": "PREFIX_TUNING"}', "is not JSON"),
        (CONFIG, b"[" * 60_000, "is not JSON"),
        (CONFIG, b" " * 70_000, "more than 65,536 bytes"),
        (PIN, b"{", "is not JSON"),
        (WEIGHTS, b"\x80\x02}q\x00.", "is a pickle"),
        (WEIGHTS, b"PK\x03\x04", "is a pickle"),
        (WEIGHTS, b"", "it has 0 bytes, too few"),
        (WEIGHTS, (1 << 17).to_bytes(8, "little") + b" " * 99, "header claims 131,072 bytes"),
        (WEIGHTS, (99).to_bytes(8, "little") + b"{}", "truncated"),
        (WEIGHTS, (2).to_bytes(8, "little") + b"[]", "header is not a JSON object"),
    ],
)
def test_a_damaged_file_is_refused(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    export_peft(some_prefix(base), base, tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PrefixFileRefused, match=match):
        import_peft(tmp_path, base)


ENTRY = {"dtype": "F32", "shape": [5, 128], "data_offsets": [0, 2560]}


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({}, "holds the tensors"),
        ({"prompt_embeddings": ENTRY, "more": ENTRY}, "holds the tensors"),
        ({"prompt_embeddings": ENTRY, "__metadata__": {"a": 1}}, "metadata"),
        ({"prompt_embeddings": ENTRY, "__metadata__": None}, "metadata"),
        ({"prompt_embeddings": {**ENTRY, "extra": 1}}, "must have dtype, shape and data_offsets"),
        ({"prompt_embeddings": {**ENTRY, "dtype": "I32"}}, "dtype is 'I32'"),
        ({"prompt_embeddings": {**ENTRY, "shape": [5, -128]}}, "expected 2 dimensions"),
        ({"prompt_embeddings": {**ENTRY, "shape": [640]}}, "expected 2 dimensions"),
        ({"prompt_embeddings": {**ENTRY, "shape": [True, 640]}}, "expected 2 dimensions"),
        ({"prompt_embeddings": {**ENTRY, "data_offsets": [4, 2564]}}, "truncated or padded"),
        ({"prompt_embeddings": {**ENTRY, "shape": [6, 128]}}, "truncated or padded"),
    ],
)
def test_a_forged_header_is_refused(header: dict[str, object], match: str, tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    export_peft(some_prefix(base), base, tmp_path)
    write_safetensors(tmp_path / WEIGHTS, header, bytes(2560))
    with pytest.raises(PrefixFileRefused, match=match):
        import_peft(tmp_path, base)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    export_peft(some_prefix(base), base, tmp_path)
    body = torch.zeros(640)
    body[639] = value
    write_safetensors(tmp_path / WEIGHTS, {"prompt_embeddings": ENTRY}, body.numpy().tobytes())
    with pytest.raises(PrefixFileRefused, match="NaN or infinite"):
        import_peft(tmp_path, base)


def test_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    export_peft(some_prefix(base), base, tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    with pytest.raises(PrefixFileRefused, match=r"adapter_model\.bin is a pickle.*safe_serialization=True"):
        import_peft(tmp_path, base)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrefixFileRefused, match="No such file"):
        import_peft(tmp_path / "nowhere", tiny_models.base("llama"))


def test_a_half_precision_adapter_is_read(tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    trained_by_peft("llama", tmp_path)
    wide = import_peft(tmp_path, base)
    entry = {**ENTRY, "dtype": "F16", "data_offsets": [0, 1280]}
    body = (tmp_path / WEIGHTS).read_bytes()[-2560:]
    half = torch.frombuffer(bytearray(body), dtype=torch.float32).half()
    write_safetensors(tmp_path / WEIGHTS, {"prompt_embeddings": entry}, half.numpy().tobytes())
    assert torch.equal(import_peft(tmp_path, base).values, wide.values.half().float())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task_type": "SEQ_2_SEQ_LM"}, "has task_type 'SEQ_2_SEQ_LM', base 'tiny-llama' needs 'CAUSAL_LM'"),
        ({"task_type": ["CAUSAL_LM"]}, "has task_type"),
        ({"num_virtual_tokens": 5.0}, r"expected \[5\.0, 128\] by its num_virtual_tokens"),
        ({"num_virtual_tokens": "5"}, r"expected \['5', 128\]"),
        ({"num_layers": 2.0}, "has num_layers 2.0"),
        ({"num_transformer_submodules": True}, "has num_transformer_submodules True"),
    ],
)
def test_settings_that_are_almost_right_are_refused(
    change: dict[str, object], said: str, tmp_path: Path
) -> None:
    base = tiny_models.base("llama")
    export_peft(some_prefix(base), base, tmp_path)
    change_json(tmp_path / "adapter_config.json", **change)
    with pytest.raises(PrefixMismatch, match=said):
        import_peft(tmp_path, base)


def test_a_folder_without_a_task_is_read(tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    prefix = some_prefix(base)
    export_peft(prefix, base, tmp_path)
    change_json(tmp_path / "adapter_config.json", task_type=None)
    assert import_peft(tmp_path, base) == prefix
