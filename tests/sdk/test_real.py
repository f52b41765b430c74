"""The promises once more, on the real base."""

import pytest
import torch

from antefix import Example, FrozenBase, PrefixSpec, TrainingPlan, score, train
from antefix.training.bucketing import Bucket
from antefix.training.micro_batch import forward_backward
from tests.sdk.reference import row_loss
from tests.sdk.training.test_micro_batch import rows_for

pytestmark = [pytest.mark.real, pytest.mark.slow]

TEXTS = [
    Example(
        prompt=f"Tell the neighbours about plan {i}.\n", completion=f"Dear all, plan {i} it is. Yours, M."
    )
    for i in range(8)
]


@pytest.fixture
def base(real_base: FrozenBase) -> FrozenBase:
    return real_base


def test_packed_gradients_equal_sequential_ones(base: FrozenBase) -> None:
    rows = rows_for(base, [(20, 5), (33, 10)])
    prefixes = torch.randn(2, base.layout.size(8)) * 0.1
    outcome = forward_backward(base, Bucket(64), rows, prefixes, [1.0, 1.0])
    assert outcome.gradients is not None
    for number, row in enumerate(rows):
        leaf = prefixes[number].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(row_loss(base, row, leaf), leaf)
        # thirty layers of fp32: the two orders of summation differ by a few units of 1e-5
        assert (outcome.gradients[number] - gradient).norm() <= 1e-4 * gradient.norm()


def test_a_users_prefix_has_the_same_bytes_alone_and_among_others(base: FrozenBase) -> None:
    plan = TrainingPlan(max_steps=2, batch_size=3, micro_batch_tokens=256)
    spec = PrefixSpec(length=8)
    alone = train(base, {"me": TEXTS}, spec, plan, progress=False)["me"]
    others = {f"u{i}": TEXTS[i:] + TEXTS[: i + 2] for i in range(4)}
    among = train(base, {**others, "me": TEXTS}, spec, plan, progress=False)["me"]
    assert torch.equal(alone.prefix.values, among.prefix.values)
    assert alone == among


def test_training_helps_on_texts_it_has_not_seen(base: FrozenBase) -> None:
    plan = TrainingPlan(max_steps=6, validation_fraction=0.0)
    prefix = train(base, {"me": TEXTS[:6]}, PrefixSpec(length=8), plan, progress=False)["me"].prefix
    assert score(base, TEXTS[6:], prefix) < score(base, TEXTS[6:], None) - 0.5
