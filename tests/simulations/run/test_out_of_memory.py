"""A device whose memory does not last: smaller micro-batches, said aloud, or an error of two lines.

The memory is that of a tiny base which refuses more tokens at once than it is told to hold.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from antefix import Example, FrozenBase, GenerationRequest, PrefixSpec, TrainingPlan, generate, score, train
from antefix.errors import OutOfMemory
from antefix.training.neutral_prefix import neutral_prefix
from antefix_simulations.arms.finetuning import Full, WeightsTooLarge
from antefix_simulations.data.store import Split
from antefix_simulations.run.driver import LocalExecutor, Run
from antefix_simulations.settings import RunSettings
from tests.support import tiny_models

TEXTS = [Example("hello there, all of you", "a prompt")] * 4


def holding(tokens: int) -> FrozenBase:
    """A base on a device with memory for so many tokens at once."""
    model: Any = tiny_models.model("llama")

    def refuse(_: object, ids: tuple[torch.Tensor, ...]) -> None:
        if ids[0].numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.get_input_embeddings().register_forward_pre_hook(refuse)
    return FrozenBase.from_model(model, tiny_models.tokenizer())


def run(out: Path, tokens: int, say: Callable[[str], None], **changed: object) -> list[dict[str, Any]]:
    quick = {
        "num-server-rounds": 1,
        "steps": 2,
        "max-texts": 12,
        "private-passes": 0.5,
    }
    settings = RunSettings.read({**quick, **{name.replace("_", "-"): one for name, one in changed.items()}})
    base = holding(tokens)
    with Run(out, settings, base, say, progress=False) as running:
        running.go(LocalExecutor(base, running.population, settings, out))
    return [json.loads(line) for line in (out / "times.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_micro_batches_are_halved_and_the_run_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    times = run(tmp_path / "halved", 300, said.append)
    assert {line["micro_batch_tokens"] for line in times} == {0, 256}
    assert sum("micro-batches of 256 tokens" in line for line in said) == 1
    run(tmp_path / "told", 300, said.append, micro_batch_tokens=256)
    halved, told = (tmp_path / name / "rounds/00001/shared.safetensors" for name in ("halved", "told"))
    assert halved.read_bytes() == told.read_bytes()


def test_no_room_for_the_smallest_is_an_error_and_no_user_is_blamed(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory, match="no memory left for a micro-batch of"):
        run(tmp_path, 150, lambda line: None)


def test_an_arm_without_room_is_left_out_and_the_run_goes_on(tmp_path: Path) -> None:
    base, split = holding(60), Split(TEXTS, TEXTS)
    with pytest.raises(WeightsTooLarge, match="no memory left to train"):
        Full(base, RunSettings.read({})).losses({0: split}, neutral_prefix(tiny_models.base("llama"), 8))


def test_training_scoring_and_generating_say_what_to_lower() -> None:
    base, spec = holding(130), PrefixSpec(length=4, start="zeros")
    with pytest.raises(OutOfMemory, match="512 tokens; use a lower micro_batch_tokens"):
        train(base, {"ann": TEXTS}, spec, TrainingPlan(max_steps=1), progress=False)
    with pytest.raises(OutOfMemory, match="256 tokens"):
        score(base, TEXTS)
    assert score(holding(64), TEXTS, micro_batch_tokens=64) == pytest.approx(
        score(tiny_models.base("llama"), TEXTS)
    )
    with pytest.raises(OutOfMemory, match="1 rows at once; use a lower max_rows"):
        generate(base, [GenerationRequest(prompt="hello there, " * 20, max_new_tokens=2)], max_rows=1)
