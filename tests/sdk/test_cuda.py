"""The core on a GPU: the numbers of the CPU, and the same promises. Skipped where there is none."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antefix import FrozenBase, GenerationRequest, Prefix, generate, score
from antefix.training.bucketing import Bucket
from antefix.training.micro_batch import forward_backward
from tests.sdk.training.test_micro_batch import rows_for
from tests.sdk.training.test_noninterference import OWN, PLAN, neighbours, together
from tests.support import tiny_models

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")

BASES: dict[str, FrozenBase] = {}


def on_gpu(family: str) -> FrozenBase:
    if family not in BASES:
        model: Any = tiny_models.model(family).to("cuda")  # type: ignore[arg-type]
        BASES[family] = FrozenBase.from_model(model, tiny_models.tokenizer(), name=f"tiny-{family}")
    return BASES[family]


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_losses_and_gradients_are_those_of_the_cpu(family: str) -> None:
    base = tiny_models.base(family)
    rows = rows_for(base, [(9, 4), (3, 1), (17, 17), (9, 2)])
    prefixes = torch.randn(len(rows), base.layout.size(5)) * 0.3
    source = 64 if base.is_encoder_decoder else 0
    ours = forward_backward(on_gpu(family), Bucket(64, source, rows=6, width=32), rows, prefixes, [1.0] * 4)
    wanted = forward_backward(base, Bucket(64, source), rows, prefixes, [1.0] * 4)
    assert ours.losses == pytest.approx(wanted.losses, rel=1e-4)
    assert ours.gradients is not None
    assert wanted.gradients is not None
    assert (ours.gradients.cpu() - wanted.gradients).norm() <= 1e-4 * wanted.gradients.norm()


@pytest.mark.parametrize("family", ["llama", "gpt2", "bart", "t5"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(others=neighbours, place=st.integers(0, 5))
def test_neighbours_change_no_bit(family: str, others: Any, place: int) -> None:
    base = on_gpu(family)
    alone = together(base, [], 0, PLAN)["me"]
    among = together(base, others, place, PLAN)["me"]
    assert torch.equal(alone.prefix.values, among.prefix.values)
    assert (alone.loss_before, alone.loss_after) == (among.loss_before, among.loss_after)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bart", "t5"])
def test_generation_gives_the_tokens_of_the_cpu(family: str, exact: bool) -> None:
    base = tiny_models.base(family)
    prefixes = [Prefix(torch.randn(base.layout.size(n)) * 0.3, base.layout, base.fingerprint) for n in (2, 5)]

    requests = [
        GenerationRequest(prompt=text, prefix=prefix, max_new_tokens=12)
        for text, prefix in zip(["a roof", "houses and"], prefixes, strict=True)
    ]
    ours = generate(on_gpu(family), requests, exact=exact)
    assert [reply.tokens for reply in ours] == [reply.tokens for reply in generate(base, requests)]


def test_scores_are_those_of_the_cpu() -> None:
    base = tiny_models.base("llama")
    prefix = Prefix(torch.randn(base.layout.size(4)) * 0.3, base.layout, base.fingerprint)
    assert score(on_gpu("llama"), OWN, prefix) == pytest.approx(score(base, OWN, prefix), rel=1e-4)
