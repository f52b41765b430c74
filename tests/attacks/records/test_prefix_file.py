"""Attack: a prefix file made or changed by somebody else. Expected: PrefixFileRefused, nothing run."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antefix import (
    Example,
    GenerationRequest,
    Prefix,
    PrefixSpec,
    TrainingPlan,
    generate,
    score,
    train,
)
from antefix.errors import PrefixError, PrefixFileRefused, PrefixMismatch
from tests.support import tiny_models

Change = Callable[[dict[str, Any]], None]


def honest() -> bytes:
    import tempfile

    base = tiny_models.base("llama")
    with tempfile.TemporaryDirectory() as folder:
        prefix = Prefix(torch.linspace(-1, 1, base.layout.size(3)), base.layout, base.fingerprint)
        return prefix.save(Path(folder) / "p").read_bytes()


CONTENT = honest()
HEADER_END = 8 + int.from_bytes(CONTENT[:8], "little")


def forged(change: Change, body: bytes | None = None) -> bytes:
    header = json.loads(CONTENT[8:HEADER_END])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + (CONTENT[HEADER_END:] if body is None else body)


def meta(**fields: Any) -> Change:
    return lambda header: header["__metadata__"].update(fields)


def entry(**fields: Any) -> Change:
    return lambda header: header["prefix"].update(fields)


def refused(tmp_path: Path, content: bytes, said: str = "is not a usable prefix") -> None:
    path = tmp_path / "forged"
    path.write_bytes(content)
    with pytest.raises(PrefixFileRefused, match=said):
        Prefix.load(path)


class Bomb:
    """Unpickling this would leave a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/antefix-was-here"),))


def test_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    refused(tmp_path, pickle.dumps(Bomb()), "is a pickle")
    torch.save({"prefix": torch.zeros(3)}, tmp_path / "torch")
    refused(tmp_path, (tmp_path / "torch").read_bytes(), "is a pickle")
    assert not Path("/tmp/antefix-was-here").exists()


@pytest.mark.parametrize("size", [0, 3, 8, 20, HEADER_END - 1, HEADER_END, HEADER_END + 5, len(CONTENT) - 1])
def test_a_truncated_file_is_refused(size: int, tmp_path: Path) -> None:
    refused(tmp_path, CONTENT[:size])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (meta(format="antefix-prefix/2"), "format is 'antefix-prefix/2'"),
        (meta(length="4"), "do not make a prefix of length"),
        (meta(length="-1"), "do not make a prefix"),
        (meta(length="³"), "do not make a prefix"),
        (meta(length="9" * 5000), "do not make a prefix"),
        (meta(base="../../etc"), "64 hex digits"),
        (meta(layout="0" * 64), "does not match the digest"),
        (meta(slots='[["decoder",1000000000,2,16]]'), "cannot be read"),
        (meta(slots='[["decoder",4096,2,16],["cross",4096,2,16]]'), "cannot be read"),
        (meta(slots='[["decoder",2.0,2,16]]'), "cannot be read"),
        (meta(slots='[["decoder",true,2,16]]'), "cannot be read"),
        (meta(slots='[["other",2,2,16]]'), "cannot be read"),
        (meta(slots="[" * 5000), "cannot be read"),
        (meta(slots="[]"), "does not match"),
        (meta(extra="x"), "metadata must have exactly"),
        (meta(length=3), "not a JSON object of strings"),
        (entry(dtype="I64"), "dtype is 'I64'"),
        (entry(dtype=["F32"]), "dtype is"),
        (entry(shape=[3, 64]), "expected 1 dimension"),
        (entry(shape=[-5]), "expected 1 dimension"),
        (entry(shape=[True]), "expected 1 dimension"),
        (entry(shape=[10**12]), "truncated or padded"),
        (entry(data_offsets=[0, 8]), "truncated or padded"),
        (entry(data_offsets=[4, 8]), "truncated or padded"),
        (entry(more=1), "must have dtype"),
        (lambda header: header.update(second=header["prefix"]), "holds the tensors"),
        (lambda header: header.pop("__metadata__"), "metadata must have exactly"),
        (lambda header: header.update(prefix=[]), "must have dtype"),
    ],
)
def test_a_forged_header_is_refused(change: Change, said: str, tmp_path: Path) -> None:
    refused(tmp_path, forged(change), said)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(value: float, tmp_path: Path) -> None:
    values = torch.linspace(-1, 1, tiny_models.base("llama").layout.size(3))
    values[7] = value
    refused(tmp_path, CONTENT[:HEADER_END] + values.numpy().tobytes(), "NaN or infinite")


def test_infinite_values_that_cancel_out_are_seen_and_large_ones_are_no_infinity(tmp_path: Path) -> None:
    """Their sum is what is looked at first."""
    values = torch.zeros(tiny_models.base("llama").layout.size(3))
    values[2], values[-3] = float("inf"), float("-inf")
    refused(tmp_path, CONTENT[:HEADER_END] + values.numpy().tobytes(), "NaN or infinite")
    largest = torch.finfo(torch.float32).max
    content = CONTENT[:HEADER_END] + torch.full_like(values, largest).numpy().tobytes()
    assert float(Prefix.from_bytes(content).values.min()) == largest


def test_a_header_larger_than_its_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    refused(tmp_path, (65 * 1024).to_bytes(8, "little") + b" " * 70 * 1024, "header claims 66,560 bytes")
    refused(tmp_path, (2**63).to_bytes(8, "little") + CONTENT[8:], "header claims")


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    text = CONTENT[8:HEADER_END].decode().rstrip()
    twice = (text[:-1] + ',"prefix":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}').encode()
    refused(tmp_path, len(twice).to_bytes(8, "little") + twice + CONTENT[HEADER_END:], "not JSON")


@pytest.mark.slow
@settings(max_examples=400, deadline=None, derandomize=True)
@given(at=st.integers(0, HEADER_END - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_of_the_header_passes_unnoticed(at: int, bit: int) -> None:
    import tempfile

    changed = bytearray(CONTENT)
    changed[at] ^= 1 << bit
    base = tiny_models.base("llama")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        path.write_bytes(changed)
        try:
            prefix = Prefix.load(path, base_fingerprint=base.fingerprint)
        except PrefixError:
            return
    # JSON may spell the same header in another way (a blank, a number); nothing else may pass.
    assert prefix.layout == base.layout
    assert torch.equal(prefix.values, torch.linspace(-1, 1, base.layout.size(3)))


def test_a_file_that_lies_about_its_shapes_breaks_nobody() -> None:
    base, other = tiny_models.base("llama"), tiny_models.base("gpt2")
    liar = Prefix(torch.zeros(other.layout.size(3)), other.layout, base.fingerprint)
    honest = Prefix(torch.zeros(base.layout.size(3)), base.layout, base.fingerprint)
    text = [Example("a text")]
    with pytest.raises(PrefixMismatch, match="tampered"):
        score(base, {"a": text, "b": text}, {"a": honest, "b": liar})
    with pytest.raises(PrefixMismatch, match="tampered"):
        generate(base, [GenerationRequest(prompt="a", prefix=liar)])
    with pytest.raises(PrefixMismatch, match="tampered"):
        train(base, {"b": text}, PrefixSpec(length=3), TrainingPlan(max_steps=1), start=liar, progress=False)
