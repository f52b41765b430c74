"""A prefix and its file."""

import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from antefix import FrozenBase, Prefix
from antefix.errors import InvalidArgument, PrefixFileRefused, PrefixMismatch
from tests.support import tiny_models


def some(base: FrozenBase, length: int = 4) -> Prefix:
    return Prefix(torch.randn(base.layout.size(length)), base.layout, base.fingerprint)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_a_file_gives_back_the_same_prefix(family: str, tmp_path: Path) -> None:
    base = tiny_models.base(family)
    prefix = some(base)
    again = Prefix.load(prefix.save(tmp_path / "p.safetensors"), base_fingerprint=base.fingerprint)
    assert again == prefix
    assert hash(again) == hash(prefix)
    assert again.layout == base.layout


@pytest.mark.parametrize(("dtype", "size", "error"), [("fp32", 4, 0.0), ("fp16", 2, 1e-3), ("bf16", 2, 1e-2)])
def test_a_file_is_the_numbers_and_at_most_2_kib(dtype: str, size: int, error: float, tmp_path: Path) -> None:
    base = tiny_models.base("bart")
    prefix = some(base)
    path = prefix.save(tmp_path / "p", dtype=dtype)
    assert path.stat().st_size <= base.layout.size(4) * size + 2048
    assert torch.allclose(Prefix.load(path).values, prefix.values, rtol=error, atol=error)


def test_equal_prefixes_have_equal_files() -> None:
    """The library's own order of header fields is another one each time."""
    prefix = some(tiny_models.base("llama"))
    made = {prefix.to_bytes() for _ in range(8)}
    assert len(made) == 1


def test_a_file_is_plain_safetensors_and_its_owners_alone(tmp_path: Path) -> None:
    path = some(tiny_models.base("llama")).save(tmp_path / "new folder" / "p.safetensors")
    with safe_open(path, framework="pt") as file:
        assert list(file.keys()) == ["prefix"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["p.safetensors"]


def test_a_prefix_cannot_be_changed_from_outside() -> None:
    base = tiny_models.base("llama")
    numbers = torch.randn(base.layout.size(2))
    prefix = Prefix(numbers, base.layout, base.fingerprint)
    before = prefix.values
    numbers.zero_()
    prefix.values.zero_()
    prefix.layer(0)[0].zero_()
    assert torch.equal(prefix.values, before)


def test_layers_are_keys_and_values_by_head() -> None:
    base = tiny_models.base("llama")
    key, value = some(base).layer(1)
    assert key.shape == value.shape == (2, 4, 16)


def test_what_is_no_slot_or_no_file_is_refused(tmp_path: Path) -> None:
    prefix = some(tiny_models.base("llama"))
    for number in (-1, 99, "a", None):
        with pytest.raises(InvalidArgument, match="there is no slot"):
            prefix.layer(number)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="is a folder"):
        prefix.save(tmp_path)


def test_no_value_shows_in_its_text() -> None:
    prefix = Prefix(
        torch.full((tiny_models.base("llama").layout.size(2),), 0.123456),
        tiny_models.base("llama").layout,
        "a" * 64,
    )
    assert "123" not in repr(prefix)


def test_values_too_large_for_a_stored_type_are_refused(tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    prefix = Prefix(torch.full((base.layout.size(2),), 1e6), base.layout, base.fingerprint)
    with pytest.raises(InvalidArgument, match="do not fit fp16"):
        prefix.save(tmp_path / "p", dtype="fp16")
    with pytest.raises(InvalidArgument, match="dtype is 'int8'"):
        prefix.save(tmp_path / "p", dtype="int8")
    assert not (tmp_path / "p").exists()


def test_another_base_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    path = some(tiny_models.base("llama")).save(tmp_path / "p")
    with pytest.raises(PrefixMismatch, match=tiny_models.base("llama").fingerprint[:16]) as caught:
        Prefix.load(path, base_fingerprint=tiny_models.base("gpt2").fingerprint)
    assert tiny_models.base("gpt2").fingerprint[:16] in str(caught.value)


def test_a_wrong_number_of_values_is_refused() -> None:
    base = tiny_models.base("llama")
    with pytest.raises(PrefixMismatch, match=f"multiple of {base.layout.width}"):
        Prefix(torch.zeros(base.layout.width + 1), base.layout, base.fingerprint)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(PrefixFileRefused, match="No such file"):
        Prefix.load(tmp_path / "nothing")


def test_the_header_names_runs_of_equal_layers(tmp_path: Path) -> None:
    content = some(tiny_models.base("gpt2")).save(tmp_path / "p").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["slots"]) == [["decoder", 3, 4, 16]]


def test_finite_values_whose_sum_overflows_are_a_prefix_all_the_same() -> None:
    base = tiny_models.base("llama")
    values = torch.full((base.layout.size(2),), 3e38)
    assert Prefix(values, base.layout, base.fingerprint).length == 2


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_refused_wherever_it_is(number: float) -> None:
    base = tiny_models.base("llama")
    values = torch.zeros(base.layout.size(2))
    values[-1] = number
    with pytest.raises(InvalidArgument, match=f"^1 of the {values.numel():,} values"):
        Prefix(values, base.layout, base.fingerprint)
