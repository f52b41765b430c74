"""A trained prefix is a function of its own user's texts and seed alone, to the last bit."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antefix import Example, FrozenBase, Prefix, PrefixSpec, TrainedUser, TrainingPlan, train
from antefix.data.tokenization import encode
from antefix.training.bucketing import Buckets
from antefix.training.micro_batch import forward_backward
from tests.support import tiny_models

OWN = [
    Example(prompt="ask: ", completion="a short answer"),
    Example(prompt="tell me of roofs: ", completion="tiles"),
    Example(completion="no prompt, but a somewhat longer text than the others have"),
    Example(prompt="ask again, at more length: ", completion="yes"),
    Example(prompt="x", completion="y"),
]
SPEC = PrefixSpec(length=3)
PLAN = TrainingPlan(max_steps=3, batch_size=4, micro_batch_tokens=64, seed=7, workers=1, learning_rate=0.05)

texts = st.lists(
    st.builds(
        Example, prompt=st.text("abc \n", max_size=30), completion=st.text("xyz", min_size=1, max_size=40)
    ),
    min_size=1,
    max_size=7,
)
POISONS = ["none", "start", "rate"]
neighbours = st.lists(st.tuples(texts, st.integers(1, 5), st.sampled_from(POISONS)), max_size=5)


def together(
    base: FrozenBase, others: list[tuple[list[Example], int, str]], place: int, plan: TrainingPlan
) -> dict[str, TrainedUser]:
    """Train "me" among others: their number, texts, steps, starts, rates and order are free."""
    users: dict[str, list[Example]] = {f"other {i}": other[0] for i, other in enumerate(others)}
    plans = {
        f"other {i}": plan.model_copy(
            update={"max_steps": steps, "batch_size": steps, "seed": i}
            | ({"learning_rate": 1e38} if poison == "rate" else {})
        )
        for i, (_, steps, poison) in enumerate(others)
    }
    names = list(users)
    names.insert(min(place, len(names)), "me")
    users["me"], plans["me"] = OWN, plan
    poison = {f"other {i}": hopeless(base) for i, other in enumerate(others) if other[2] == "start"}
    return train(
        base, {name: users[name] for name in names}, SPEC, plans, start=poison or None, progress=False
    )


def hopeless(base: FrozenBase) -> Prefix:
    """A neighbour's start of which the base makes NaN: the largest finite numbers there are."""
    return Prefix(torch.full((base.layout.size(SPEC.length),), 3e38), base.layout, base.fingerprint)


def check(family: str, others: Any, place: int, plan: TrainingPlan = PLAN) -> None:
    base = tiny_models.base(family)
    alone = together(base, [], 0, plan)["me"]
    among = together(base, others, place, plan)["me"]
    assert torch.equal(alone.prefix.values, among.prefix.values)
    assert not among.diverged
    assert (alone.loss_before, alone.loss_after) == (among.loss_before, among.loss_after)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(others=neighbours, place=st.integers(0, 5))
def test_two_hundred_neighbourhoods_change_no_bit(others: Any, place: int) -> None:
    check("llama", others, place)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", *tiny_models.slow("gpt2", "bart", "t5")])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(others=neighbours, place=st.integers(0, 5))
def test_neighbours_change_no_bit(family: str, others: Any, place: int) -> None:
    check(family, others, place)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(others=neighbours, place=st.integers(0, 5), workers=st.integers(2, 3), flight=st.integers(1, 3))
def test_neighbours_change_no_bit_in_any_order_of_workers(
    others: Any, place: int, workers: int, flight: int
) -> None:
    check("llama", others, place, PLAN.model_copy(update={"workers": workers, "users_in_flight": flight}))


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(others=neighbours, place=st.integers(0, 5))
def test_neighbours_change_no_bit_when_each_runs_alone(others: Any, place: int) -> None:
    check("llama", others, place, PLAN.model_copy(update={"batching": "per-user"}))


@pytest.mark.parametrize("family", ["llama", pytest.param("bart", marks=pytest.mark.slow)])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(others=neighbours, place=st.integers(0, 5))
def test_neighbours_change_no_bit_with_attention_at_once(family: str, others: Any, place: int) -> None:
    with pytest.MonkeyPatch.context() as patch:  # what a GPU does, on this machine
        patch.setattr(Buckets, "of", lambda base, tokens: Buckets(tokens or 512, at_once=True))
        check(family, others, place)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bart", "t5"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_row_beside_a_poisoned_one_keeps_every_bit(family: str, value: float, at_once: bool) -> None:
    """Below `train`, which lets no user with such numbers take a second step."""
    base = tiny_models.base(family)
    row = encode(base, OWN[2], None)
    prefixes = torch.randn(3, base.layout.size(4))
    shape = Buckets(256, at_once).bucket_for(row)
    alone = forward_backward(base, shape, [row], prefixes[1:2], [0.5])
    prefixes[0], prefixes[2] = value, value
    among = forward_backward(base, shape, [row] * 3, prefixes, [0.5] * 3)
    assert alone.gradients is not None
    assert among.gradients is not None
    assert among.losses[1] == alone.losses[0]
    assert torch.equal(among.gradients[1], alone.gradients[0])
    assert not torch.isfinite(among.gradients[0]).all()


def test_the_neighbours_of_these_tests_do_diverge() -> None:
    base = tiny_models.base("llama")
    found = together(base, [(OWN, 3, "start"), (OWN, 3, "rate"), (OWN, 3, "none")], 1, PLAN)
    assert [user for user, result in found.items() if result.diverged] == ["other 0", "other 1"]
    assert found["other 0"].prefix == hopeless(base)
