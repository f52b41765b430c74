"""A packed micro-batch gives what each row gives by itself."""

import pytest
import torch

from antefix import FrozenBase
from antefix.data.tokenization import Row
from antefix.training.bucketing import Bucket
from antefix.training.micro_batch import forward_backward
from tests.sdk.reference import row_loss
from tests.support import tiny_models


def rows_for(base: FrozenBase, sizes: list[tuple[int, int]], seed: int = 0) -> list[Row]:
    """Random rows of (inputs, targets) tokens."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, tiny_models.VOCABULARY - 1, (count,), generator=generator).tolist())

    source = base.is_encoder_decoder
    return [Row(tokens(n), tokens(t), tokens(n + 3) if source else ()) for n, t in sizes]


@pytest.mark.slow
@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("at_once", [{}, {"rows": 6, "width": 32}], ids=["row by row", "at once"])
def test_packed_losses_and_gradients_equal_the_sequential_ones(
    family: str, length: int, at_once: dict[str, int]
) -> None:
    base = tiny_models.base(family)
    rows = rows_for(base, [(9, 4), (3, 1), (17, 17), (9, 2)])
    prefixes = torch.randn(len(rows), base.layout.size(length)) * 0.3
    weights = [0.5, 2.0, 0.1, 1.0]
    shape = Bucket(64, 64 if base.is_encoder_decoder else 0, **at_once)
    outcome = forward_backward(base, shape, rows, prefixes, weights)
    assert outcome.gradients is not None
    assert outcome.gradients.shape == prefixes.shape
    for number, row in enumerate(rows):
        leaf = prefixes[number].clone().requires_grad_()
        loss = row_loss(base, row, leaf)
        (gradient,) = torch.autograd.grad(loss * weights[number], leaf)
        assert outcome.losses[number] == pytest.approx(loss.item(), rel=1e-5)
        assert (outcome.gradients[number] - gradient).norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("at_once", [{}, {"rows": 3, "width": 16}], ids=["row by row", "at once"])
def test_no_prefix_is_the_plain_model(family: str, at_once: dict[str, int]) -> None:
    base = tiny_models.base(family)
    row = rows_for(base, [(7, 7)])[0]
    shape = Bucket(64, 64 if row.source else 0, **at_once)
    (loss,) = forward_backward(base, shape, [row], torch.zeros(1, 0), None).losses
    ids = torch.tensor([row.inputs])
    with torch.no_grad():
        if base.is_encoder_decoder:
            logits = base.model(input_ids=torch.tensor([row.source]), decoder_input_ids=ids).logits
        else:
            logits = base.model(input_ids=ids).logits
    wanted = torch.nn.functional.cross_entropy(logits[0], torch.tensor(row.targets), reduction="sum")
    assert loss == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_activation_checkpointing_changes_no_bit(family: str) -> None:
    base = tiny_models.base(family)
    rows = rows_for(base, [(9, 4), (12, 3)])
    prefixes = torch.randn(2, base.layout.size(4))
    shape = Bucket(64, 64 if base.is_encoder_decoder else 0)
    plain = forward_backward(base, shape, rows, prefixes, [1.0, 1.0])
    with base.activation_checkpointing(True):
        again = forward_backward(base, shape, rows, prefixes, [1.0, 1.0])
    assert plain.losses == again.losses
    assert plain.gradients is not None
    assert again.gradients is not None
    assert torch.equal(plain.gradients, again.gradients)


def test_no_parameter_of_the_base_gets_a_gradient() -> None:
    base = tiny_models.base("llama")
    forward_backward(base, Bucket(64), rows_for(base, [(9, 4)]), torch.randn(1, base.layout.size(4)), [1.0])
    assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())
