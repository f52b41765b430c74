"""Loss and gradient at target tokens only."""

import pytest
import torch
from torch.nn import functional as F

from antefix.model.lm_head import CHUNK_TOKENS, Head
from tests.support import tiny_models


def head(bias: bool = False, scale: float = 1.0) -> Head:
    return Head(torch.randn(50, 16), torch.randn(50) if bias else None, scale)


@pytest.mark.parametrize("count", [1, CHUNK_TOKENS, CHUNK_TOKENS + 3])
@pytest.mark.parametrize(("bias", "scale"), [(False, 1.0), (True, 1.0), (True, 0.25)])
def test_losses_and_gradients_equal_autograd(count: int, bias: bool, scale: float) -> None:
    ours = head(bias, scale)
    hidden = torch.randn(count, 16, requires_grad=True)
    targets, weights = torch.randint(0, 50, (count,)), torch.rand(count)
    losses, gradient = ours.losses(hidden.detach(), targets, weights)
    wanted = F.cross_entropy(ours.logits(hidden), targets, reduction="none")
    (wanted * weights).sum().backward()
    assert gradient is not None
    assert hidden.grad is not None
    assert torch.allclose(losses, wanted.detach(), atol=1e-5)
    assert torch.allclose(gradient, hidden.grad, atol=1e-5)


def test_a_tokens_bits_do_not_depend_on_its_place_or_company() -> None:
    ours = head()
    hidden, targets, weights = torch.randn(100, 16), torch.randint(0, 50, (100,)), torch.rand(100)
    losses, gradient = ours.losses(hidden, targets, weights)
    order = torch.randperm(100)[:71]
    moved_losses, moved_gradient = ours.losses(hidden[order], targets[order], weights[order])
    assert gradient is not None
    assert moved_gradient is not None
    assert torch.equal(moved_losses, losses[order])
    assert torch.equal(moved_gradient, gradient[order])


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_the_fitted_head_gives_the_models_own_logits(family: str) -> None:
    base = tiny_models.base(family)
    ids = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    if base.is_encoder_decoder:
        ids["decoder_input_ids"] = torch.tensor([[9, 10]])
    with torch.no_grad():
        output = base.model(**ids, output_hidden_states=True)
    states = output.decoder_hidden_states if base.is_encoder_decoder else output.hidden_states
    assert torch.allclose(base.head.logits(states[-1]), output.logits, atol=1e-4)
