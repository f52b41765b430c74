"""The norm by hand against transformers' own."""

from typing import Any

import pytest
import torch

from antefix.model.rms_norm import replace_norms, restore_norms
from tests.support import tiny_models


def norms(family: str) -> list[Any]:
    model = tiny_models.model(family)
    return [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_values_and_gradients_are_those_of_transformers(
    family: str, dtype: torch.dtype, error: float
) -> None:
    norm = norms(family)[0].to(dtype)
    norm.requires_grad_(False)
    norm.weight.copy_(torch.randn(64))
    hidden = (torch.randn(2, 9, 64) * 3).to(dtype).requires_grad_()
    upstream = torch.randn(2, 9, 64).to(dtype)
    theirs = norm(hidden)
    (wanted,) = torch.autograd.grad(theirs, hidden, upstream)
    replace_norms(norm)
    assert "forward" in vars(norm)
    ours = norm(hidden)
    (gradient,) = torch.autograd.grad(ours, hidden, upstream)
    assert ours.dtype == gradient.dtype == dtype
    assert (ours - theirs).norm() <= error * theirs.norm()
    assert (gradient - wanted).norm() <= error * wanted.norm()
    restore_norms(norm)
    assert torch.equal(norm(hidden), theirs)


def test_other_formulas_are_left_alone() -> None:
    gemma = norms("gemma")[0]
    replace_norms(gemma)
    assert "forward" not in vars(gemma)
