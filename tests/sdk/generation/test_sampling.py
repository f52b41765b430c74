"""Draws follow the probabilities they should, and nothing else."""

from typing import Any

import pytest
import torch
from torch import Tensor

from antefix.generation.request import GenerationRequest
from antefix.generation.sampling import Sampler, choose, sampler_of


def drawn(logits: Tensor, count: int = 4000, **wanted: Any) -> Tensor:
    """Share of each token among `count` draws."""
    sampler = Sampler(GenerationRequest(**{"prompt": "", "temperature": 1.0, **wanted}))
    tokens = torch.tensor([sampler.draw(logits) for _ in range(count)])
    return tokens.bincount(minlength=len(logits)) / count


LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05]).log()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "shares"),
    [
        ({}, [0.1, 0.4, 0.2, 0.25, 0.05]),
        ({"top_k": 2}, [0, 40 / 65, 0, 25 / 65, 0]),
        ({"top_k": 99}, [0.1, 0.4, 0.2, 0.25, 0.05]),
        ({"top_p": 0.5}, [0, 40 / 65, 0, 25 / 65, 0]),
        ({"top_p": 0.3}, [0, 1, 0, 0, 0]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.25, 0.05]),
        ({"top_k": 3, "top_p": 0.7}, [0, 40 / 65, 0, 25 / 65, 0]),
        ({"temperature": 0.5}, [n / 0.2750 for n in (0.01, 0.16, 0.04, 0.0625, 0.0025)]),
    ],
)
def test_shares_follow_the_settings(wanted: dict[str, Any], shares: list[float]) -> None:
    assert drawn(LOGITS, **wanted).tolist() == pytest.approx(shares, abs=0.025)


def test_a_nucleus_beyond_the_first_look_is_found() -> None:
    logits = torch.zeros(5000)
    shares = drawn(logits, count=300, top_p=0.9)
    assert int(shares.nonzero().max()) > 1024
    assert int(shares.nonzero().max()) < 4501


def test_no_temperature_takes_the_most_likely() -> None:
    assert sampler_of(GenerationRequest(prompt="")) is None
    hot = sampler_of(GenerationRequest(prompt="", temperature=1e-4))
    assert choose(torch.stack([LOGITS, LOGITS.flip(0)]), [None, hot]) == [1, 3]


def test_a_draw_of_nonsense_is_still_a_token() -> None:
    cases: list[dict[str, Any]] = [{}, {"top_k": 2}, {"top_p": 0.5}]
    for wanted in cases:
        sampler = Sampler(GenerationRequest(prompt="", temperature=1.0, **wanted))
        assert 0 <= sampler.draw(torch.full((5,), float("nan"))) < 5
