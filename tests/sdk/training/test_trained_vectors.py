"""A prefix that was trained once comes out the same today, up to rounding, and so do the tokens under it."""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from antefix import FrozenBase, Prefix, TrainingPlan
from tests.vectors import make_trained

SAVED: dict[str, Tensor] = load_file(make_trained.FILE)
NAMES = [f"{user}.{case}" for case in make_trained.CASES for user in make_trained.USERS]


@pytest.fixture(scope="module")
def base() -> FrozenBase:
    return make_trained.make_base()


@pytest.mark.parametrize("case", make_trained.CASES)
def test_training_gives_the_saved_prefixes(case: str, base: FrozenBase) -> None:
    for name, prefix in make_trained.train_case(base, case).items():
        torch.testing.assert_close(prefix.values, SAVED[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_prefix_gives_the_saved_tokens(name: str, base: FrozenBase) -> None:
    prefix = Prefix(SAVED[f"{name}.trained"], base.layout, base.fingerprint)
    assert make_trained.generate_tokens(base, prefix).tolist() == SAVED[f"{name}.tokens"].tolist()


def test_every_saved_tensor_is_asked_for() -> None:
    assert sorted(SAVED) == sorted(f"{name}.{what}" for name in NAMES for what in ("tokens", "trained"))


def test_a_plan_trains_as_before_where_nothing_is_said() -> None:
    """The vectors name their own numbers: a default that moved would not show in them."""
    plan = TrainingPlan()
    assert (plan.learning_rate, plan.batch_size, plan.warmup_steps, plan.clip_norm) == (5e-3, 4, 0, 1.0)
    assert (plan.beta1, plan.beta2, plan.epsilon) == (0.9, 0.999, 1e-8)
    assert (plan.validation_fraction, plan.seed, plan.evaluate, plan.patience) == (0.1, 0, True, None)
