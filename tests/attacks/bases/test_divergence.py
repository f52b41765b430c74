"""A user whose training turns into NaN: ends alone, gets the best state before, and nobody uses the NaN."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from antefix import Example, FrozenBase, Prefix, PrefixSpec, TrainingPlan, score, train, train_shared
from antefix.errors import InvalidArgument
from tests.support import tiny_models

TEXTS = [Example(prompt=f"number {i}: ", completion="tile " * (i % 4 + 1) + str(i)) for i in range(10)]
SPEC = PrefixSpec(length=3)
PLAN = TrainingPlan(max_steps=4, learning_rate=0.02, micro_batch_tokens=128, workers=1)
WILD: dict[str, Any] = {"learning_rate": 1e38}


def changed(**settings: Any) -> TrainingPlan:
    return TrainingPlan(**{**PLAN.model_dump(), **settings})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, -1])
def test_a_prefix_of_no_numbers_cannot_be_made(value: float, place: int) -> None:
    base = tiny_models.base("llama")
    values = torch.zeros(base.layout.size(3))
    values[place] = value
    with pytest.raises(InvalidArgument, match="1 of the 384 values of this prefix are NaN or infinite"):
        Prefix(values, base.layout, base.fingerprint)


def test_numbers_too_large_for_fp32_make_no_prefix() -> None:
    base = tiny_models.base("llama")
    with pytest.raises(InvalidArgument, match="NaN or infinite"):
        Prefix(torch.full((base.layout.size(3),), 1e300, dtype=torch.float64), base.layout, base.fingerprint)


@pytest.mark.parametrize("settings", [{}, {"evaluate": False}, {"validation_fraction": 0}])
@pytest.mark.parametrize("mlp_width", [None, 8])
def test_a_diverged_user_keeps_its_start_and_disturbs_nobody(
    settings: dict[str, Any], mlp_width: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    base, spec = tiny_models.base("llama"), PrefixSpec(length=3, mlp_width=mlp_width)
    good = train(base, {"good": TEXTS}, spec, changed(**settings), progress=False)["good"]
    plans = {"wild": changed(**settings, **WILD), "good": changed(**settings)}
    with caplog.at_level(logging.WARNING, "antefix"):
        both = train(base, {"wild": TEXTS, "good": TEXTS}, spec, plans, progress=False)
    assert both["good"].prefix == good.prefix
    assert not both["good"].diverged
    wild = both["wild"]
    assert wild.diverged
    assert wild.steps < 4
    assert "training of 'wild' diverged at learning rate 1e+38, step" in caplog.text
    assert "'good'" not in caplog.text
    first = train(base, {"u": TEXTS}, spec, changed(**settings, learning_rate=1e-30), progress=False)["u"]
    assert torch.allclose(wild.prefix.values, first.prefix.values)
    if settings.get("evaluate", True):
        assert wild.loss_after == wild.loss_before
    else:
        assert math.isnan(wild.loss_after)


@pytest.mark.parametrize("fraction", [0.1, 0.0])
def test_a_diverged_user_keeps_the_better_state_between_start_and_divergence(
    fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate explodes at step 3, long after an evaluation that was better than the start."""
    monkeypatch.setattr(
        "antefix.training.adam.learning_rate", lambda plan, step, steps: 0.02 if step < 3 else 1e38
    )
    plan = changed(max_steps=9, evaluate_every=1, validation_fraction=fraction)
    found = train(tiny_models.base("llama"), {"u": TEXTS}, SPEC, plan, progress=False)["u"]
    assert found.diverged
    assert found.loss_after < found.loss_before
    judging = [TEXTS[5]] if fraction else TEXTS
    assert score(tiny_models.base("llama"), judging, found.prefix) == pytest.approx(
        found.loss_after, rel=1e-5
    )


def test_a_start_that_leads_to_nan_at_once_is_given_back_without_a_loss() -> None:
    base = tiny_models.base("llama")
    start = Prefix(torch.full((base.layout.size(3),), 3e38), base.layout, base.fingerprint)
    found = train(base, {"u": TEXTS}, SPEC, PLAN, start=start, progress=False)["u"]
    assert (found.diverged, found.steps, found.prefix) == (True, 0, start)
    assert math.isnan(found.loss_before)
    assert math.isnan(found.loss_after)


def test_a_start_that_overflows_is_refused_before_any_training() -> None:
    """As half precision makes of a base with large activations."""
    model = tiny_models.model("llama")
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight.fill_(3e38)
    base = FrozenBase.from_model(tiny_models.model("llama"), tiny_models.tokenizer())
    for layer, filled in zip(base.model.model.layers, model.model.layers, strict=True):
        layer.self_attn.v_proj.weight.data.copy_(filled.self_attn.v_proj.weight)
    with pytest.raises(
        InvalidArgument, match=r"the start of user 'u' has NaN or infinite values in torch\.float32"
    ):
        train(base, {"u": TEXTS}, SPEC, PLAN, progress=False)


def test_a_diverged_user_stays_diverged_in_its_checkpoint(tmp_path: Path) -> None:
    base, plan = tiny_models.base("llama"), changed(**WILD)
    first = train(base, {"u": TEXTS}, SPEC, plan, checkpoint=tmp_path, progress=False)
    assert first["u"].diverged
    assert train(base, {"u": TEXTS}, SPEC, plan, checkpoint=tmp_path, progress=False) == first


def test_a_diverged_shared_prefix_says_so() -> None:
    found = train_shared(tiny_models.base("llama"), {"a": TEXTS}, SPEC, changed(**WILD), progress=False)
    assert found.diverged
    assert found.prefix.values.isfinite().all()


@pytest.mark.parametrize("settings", [{"learning_rate": 1e300}, {"learning_rate": 1e308}])
def test_a_rate_beyond_fp32_ends_in_divergence_too(settings: dict[str, Any]) -> None:
    found = train(tiny_models.base("llama"), {"u": TEXTS}, SPEC, changed(**settings), progress=False)
    assert found["u"].diverged
