"""The norm by hand against transformers' own."""

from typing import Any

import pytest
import torch

from antefix._norm import replace_norms, restore_norms
from tests import tiny


def norms(family: str) -> list[Any]:
    model = tiny.model(family)
    return [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_values_and_gradients_are_those_of_transformers(family: str) -> None:
    norm = norms(family)[0]
    norm.requires_grad_(False)
    norm.weight.copy_(torch.randn(64))
    hidden = (torch.randn(2, 9, 64) * 3).requires_grad_()
    upstream = torch.randn(2, 9, 64)
    theirs = norm(hidden)
    (wanted,) = torch.autograd.grad(theirs, hidden, upstream)
    replace_norms(norm)
    assert "forward" in vars(norm)
    ours = norm(hidden)
    (gradient,) = torch.autograd.grad(ours, hidden, upstream)
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert (gradient - wanted).norm() <= 1e-6 * wanted.norm()
    restore_norms(norm)
    assert torch.equal(norm(hidden), theirs)


def test_other_formulas_and_shorter_types_are_left_alone() -> None:
    gemma, half = norms("gemma")[0], norms("llama")[0].to(torch.bfloat16)
    for norm in (gemma, half):
        replace_norms(norm)
        assert "forward" not in vars(norm)
