"""A checkpoint that was forged or damaged: refused by name, never believed, never a raw error."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from antefix import Example, PrefixSpec, TrainedUser, TrainingPlan, train
from antefix.errors import CheckpointMismatch
from tests.support import tiny_models

TEXTS = [Example(prompt=f"number {i}: ", completion="tile " * (i % 4 + 1) + str(i)) for i in range(6)]
PLAN = TrainingPlan(max_steps=2, learning_rate=0.02, micro_batch_tokens=128, workers=1)
Change = Callable[[dict[str, Any]], object]


def again(folder: Path) -> TrainedUser:
    return train(
        tiny_models.base("llama"),
        {"secret ann": TEXTS},
        PrefixSpec(length=3),
        PLAN,
        checkpoint=folder,
        progress=False,
    )["secret ann"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a finished user, which no test writes to."""
    folder = tmp_path_factory.mktemp("finished")
    again(folder)
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def path(finished: Path, tmp_path: Path) -> Path:
    """A copy of it in a folder of its own."""
    return Path(shutil.copy2(finished, tmp_path))


def opened(path: Path) -> tuple[dict[str, Any], Tensor]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["run"]), file.get_tensor("state")


def forge(path: Path, run: object, state: Tensor, **more: str) -> None:
    """Write what a forger would who knows the format: the digest is right."""
    text = run if isinstance(run, str) else json.dumps(run)
    digest = hashlib.sha256(text.encode() + state.contiguous().numpy().tobytes()).hexdigest()
    metadata = {"run": text, "digest": digest, **more}
    save_file({"state": state.contiguous()}, path, metadata=metadata)


def refused(path: Path, said: str) -> None:
    with pytest.raises(CheckpointMismatch, match=said) as caught:
        again(path.parent)
    assert str(path) in str(caught.value)
    assert "delete" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_the_forger_of_these_tests_knows_the_format(path: Path) -> None:
    before = again(path.parent)
    forge(path, *opened(path))
    assert again(path.parent) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("row", [0, 1, 2, 3])
def test_numbers_that_are_none_are_refused(path: Path, row: int, value: float) -> None:
    run, state = opened(path)
    state[row, 5] = value
    forge(path, run, state)
    refused(path, "NaN or infinite")


@pytest.mark.parametrize(
    "name", ["step", "tokens", "best_loss", "finished", "diverged", "identity", "misses"]
)
def test_a_missing_field_is_named(path: Path, name: str) -> None:
    run, state = opened(path)
    del run[name]
    forge(path, run, state)
    refused(path, f"its field '{name}': Field required")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": "2"}, "field 'step'"),
        ({"step": 2.0}, "field 'step'"),
        ({"step": True}, "field 'step'"),
        ({"step": -1}, "field 'step'"),
        ({"step": 3}, "step 3 of 2"),
        ({"step": 10**30}, "step .* of 2|field 'step'"),
        ({"evaluated_at": 7}, "is at step"),
        ({"finished": "no"}, "field 'finished'"),
        ({"finished": 0}, "field 'finished'"),
        ({"tokens": None}, "field 'tokens'"),
        ({"first_loss": "secret"}, "field 'first_loss'"),
        ({"last_loss": [1.0]}, "field 'last_loss'"),
        ({"best_loss": float("nan")}, "field 'best_loss'"),
        ({"best_loss": float("inf")}, "field 'best_loss'"),
        ({"best_loss": None}, r"numbers are not the \[3, 384\]"),
        ({"secret": 1}, "field 'secret'|Extra"),
        ({"identity": "0" * 64}, "belongs to another run"),
    ],
)
def test_fields_of_other_types_or_beyond_their_bounds_are_refused(
    path: Path, change: dict[str, Any], said: str
) -> None:
    run, state = opened(path)
    forge(path, {**run, **change}, state)
    with pytest.raises(CheckpointMismatch, match=said):
        again(path.parent)


@pytest.mark.parametrize("text", ["", "secret", "[]", "null", "{" * 5000, '"\\ud800"', '{"step": 1e999}'])
def test_a_text_that_is_no_run_is_refused(path: Path, text: str) -> None:
    forge(path, text, opened(path)[1])
    refused(path, "cannot be used: its field")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state[:2],
        lambda state: state[:3],
        lambda state: state[:, :-1],
        lambda state: state.T,
        lambda state: torch.cat([state, state]),
        lambda state: -state,
    ],
)
def test_numbers_of_another_shape_are_refused(path: Path, change: Callable[[Tensor], Tensor]) -> None:
    run, state = opened(path)
    forge(path, run, change(state))
    refused(path, r"numbers are not the \[4, 384\]|more than .* bytes")


def test_other_dtypes_and_names_are_refused(path: Path) -> None:
    run, state = opened(path)
    forge(path, run, state.half())
    refused(path, "not of the kind")
    forge(path, run, state, more="x")
    refused(path, "not of the kind")
    save_file({"trained": state}, path, metadata={"run": json.dumps(run), "digest": ""})
    refused(path, "expected 'state' alone")
    save_file({"state": state}, path)
    refused(path, "not of the kind")


@pytest.mark.parametrize("content", [b"", b"secret", b"\x80\x04", b"PK\x03\x04", bytes(8), b"\xff" * 9])
def test_a_file_of_something_else_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path, "cannot be used")


@pytest.mark.parametrize("kind", ["folder", "link to nothing", "link to itself"])
def test_what_is_no_file_is_refused(path: Path, kind: str) -> None:
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        os.symlink(path if kind == "link to itself" else path.with_name("nothing"), path)
    refused(path, "cannot be read")


@pytest.mark.slow
def test_no_flipped_bit_is_believed(path: Path) -> None:
    content = path.read_bytes()
    random_places = random.Random(0).sample(range(8 * len(content)), 60)
    for place in random_places:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        refused(path, "cannot be used|belongs to another run")
