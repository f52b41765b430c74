"""Prefixes of an encoder-decoder's three kinds of attention, together and alone, against a plain loop."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from antefix import (
    Example,
    FrozenBase,
    GenerationRequest,
    Prefix,
    PrefixSpec,
    TrainingPlan,
    generate,
    score,
    train,
)
from antefix.data.tokenization import Row, encode_user
from antefix.errors import InvalidArgument, PrefixMismatch
from antefix.model.kv_layout import Kind
from antefix.training.bucketing import Bucket
from antefix.training.micro_batch import forward_backward as run_rows
from tests.sdk.reference import OneRow
from tests.support import tiny_models

ALL: tuple[Kind, ...] = ("encoder", "decoder", "cross")
SOME = [some for count in (1, 2) for some in itertools.combinations(ALL, count)]
FAMILIES = ["bart", "t5"]
LENGTH = 5
TEXTS = [
    Example(prompt=f"An ornament {word}", completion=f"is {word} and {word}")
    for word in ("red", "blue", "green", "small")
]


def prefix_of(base: FrozenBase, kinds: tuple[Kind, ...], seed: int = 0, strength: float = 0.5) -> Prefix:
    layout = base.layout.only(kinds)
    dice = torch.Generator().manual_seed(seed)
    values = torch.randn(layout.size(LENGTH), generator=dice) * strength
    return Prefix(values, layout, base.fingerprint)


def reference_hidden(
    base: FrozenBase, flat: Tensor, kinds: tuple[Kind, ...], row: Row
) -> tuple[Tensor, Tensor]:
    """Encoder's output and the decoder's, one row, each slot's prefix or nothing."""
    layout = base.layout.only(kinds)
    watcher = OneRow(base, base.layout.spread(layout, layout.split(flat)))
    begins = {kind: LENGTH if kind in kinds else 0 for kind in ALL}
    places = begins["encoder"] + torch.arange(len(row.source))[None]
    encoded = base.encode(torch.tensor([row.source]), places, watcher)
    positions = begins["decoder"] + torch.arange(len(row.inputs))[None]
    return encoded, base.decode(torch.tensor([row.inputs]), positions, watcher, encoded)[0]


def reference_loss(base: FrozenBase, flat: Tensor, kinds: tuple[Kind, ...], row: Row) -> Tensor:
    _, hidden = reference_hidden(base, flat, kinds, row)
    logits = base.head.logits(hidden[-len(row.targets) :])
    return F.cross_entropy(logits, torch.tensor(row.targets), reduction="sum")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kinds", [*SOME, ALL], ids="+".join)
@pytest.mark.parametrize("padded", [False, True])
def test_loss_and_gradient_are_those_of_the_definition(
    family: str, kinds: tuple[Kind, ...], padded: bool
) -> None:
    base = tiny_models.base(family)
    rows = encode_user(base, "me", TEXTS, length=LENGTH, max_prompt_tokens=None)
    layout = base.layout.only(kinds)
    flat = torch.randn(len(rows), layout.size(LENGTH)) * 0.3
    shape = Bucket(128, 128, len(rows) + 1, 32) if padded else Bucket(128, 128, 0, 0)
    ours = run_rows(base, shape, rows, flat, [1.0] * len(rows), layout)
    assert ours.gradients is not None
    for number, row in enumerate(rows):
        leaf = flat[number].clone().requires_grad_()
        loss = reference_loss(base, leaf, kinds, row)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert ours.losses[number] == pytest.approx(loss.item(), rel=1e-5)
        assert (ours.gradients[number] - gradient).norm() <= 1e-4 * gradient.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_each_kind_changes_what_it_should_and_nothing_before(family: str) -> None:
    base = tiny_models.base(family)
    (row,) = encode_user(base, "me", TEXTS[:1], length=LENGTH, max_prompt_tokens=None)
    for kind in ALL:
        flat = prefix_of(base, (kind,)).values
        encoded, decoded = reference_hidden(base, flat, (kind,), row)
        assert torch.equal(encoded, encoded_without(base, row)) == (kind != "encoder")
        assert not torch.allclose(decoded, decoded_without(base, row), atol=1e-3)


def encoded_without(base: FrozenBase, row: Row) -> Tensor:
    return base.encode(torch.tensor([row.source]), torch.arange(len(row.source))[None], empty(base))


def decoded_without(base: FrozenBase, row: Row) -> Tensor:
    positions = torch.arange(len(row.inputs))[None]
    return base.decode(torch.tensor([row.inputs]), positions, empty(base), encoded_without(base, row))[0]


def empty(base: FrozenBase) -> OneRow:
    return OneRow(base, base.layout.split(torch.zeros(0)))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
def test_generating_is_reading_under_the_same_kinds_in_any_company(family: str, beams: int) -> None:
    base = tiny_models.base(family)
    asked = [
        GenerationRequest(
            prompt=prompt,
            prefix=None if kinds is None else prefix_of(base, kinds, seed),
            max_new_tokens=6,
            num_beams=beams,
        )
        for seed, kinds in enumerate([*SOME, ALL, None])
        for prompt in ("An ornament", "A tile of the temple is red")
    ]
    together = generate(base, asked)
    alone = [generate(base, [one])[0] for one in asked]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert len({one.tokens for one in together}) > 3
    if beams > 1:
        return
    for request, found in zip(asked, together, strict=True):
        (row,) = encode_user(
            base, "me", [Example(prompt=request.prompt, completion="a")], length=0, max_prompt_tokens=None
        )
        for count, token in enumerate(found.tokens):
            before = Row((row.inputs[0], *found.tokens[:count]), (token,), row.source)
            prefix = request.prefix
            if prefix is None:
                hidden = decoded_without(base, before)
            else:
                _, hidden = reference_hidden(base, prefix.values, prefix.layout.kinds, before)
            assert token == int(base.head.logits(hidden[-1:])[0].argmax())


@pytest.mark.parametrize("family", FAMILIES)
def test_scoring_many_is_scoring_each(family: str) -> None:
    base = tiny_models.base(family)
    prefixes = {"+".join(kinds): prefix_of(base, kinds) for kinds in [*SOME, ALL]}
    together = score(base, dict.fromkeys(prefixes, TEXTS), prefixes)
    assert together == {name: score(base, TEXTS, prefix) for name, prefix in prefixes.items()}
    assert len(set(together.values())) == len(prefixes)


def test_a_prefix_of_some_kinds_is_kept_in_less_and_read_back(tmp_path: Path) -> None:
    base = tiny_models.base("bart")
    spec = PrefixSpec(length=LENGTH, kinds=("decoder",))
    plan = TrainingPlan(max_steps=2, validation_fraction=0.0)
    prefix = train(base, {"me": TEXTS}, spec, plan, progress=False)["me"].prefix
    assert prefix.layout == base.layout.only(["decoder"])
    again = Prefix.load(prefix.save(tmp_path / "prefix.safetensors"), base_fingerprint=base.fingerprint)
    assert again == prefix
    assert score(base, TEXTS, again) == score(base, TEXTS, prefix)
    whole = prefix_of(base, ALL).save(tmp_path / "whole.safetensors")
    assert (tmp_path / "prefix.safetensors").stat().st_size < 0.5 * whole.stat().st_size


def test_what_cannot_be_is_refused() -> None:
    bart, llama = tiny_models.base("bart"), tiny_models.base("llama")
    plan = TrainingPlan(max_steps=1)
    with pytest.raises(InvalidArgument, match="'encoder', and base 'tiny-llama' has decoder alone"):
        train(llama, {"me": TEXTS}, PrefixSpec(length=4, kinds=("encoder",)), plan, progress=False)
    with pytest.raises(InvalidArgument, match="kinds"):
        PrefixSpec(kinds=())
    start = prefix_of(bart, ("decoder",))
    with pytest.raises(PrefixMismatch, match="is for decoder, the spec for encoder, decoder, cross"):
        train(bart, {"me": TEXTS}, PrefixSpec(length=LENGTH), plan, start=start, progress=False)
    lying = Prefix(torch.zeros(bart.layout.size(2)), bart.layout, llama.fingerprint)
    with pytest.raises(PrefixMismatch, match="shapes"):
        score(llama, TEXTS, lying)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_all_three_learn_a_toy_task_better_than_the_decoders_alone(family: str) -> None:
    """The prompt's word decides the completion; the same positions, steps and rate for both."""
    base = tiny_models.base(family)
    words = ("red", "blue", "green", "small", "big", "old", "new", "far")
    texts = [Example(prompt=f"the {word} roof of a {word} house", completion=word * 2) for word in words]
    plan = TrainingPlan(max_steps=60, batch_size=8, learning_rate=0.03, validation_fraction=0.0)
    losses = {}
    for kinds in (ALL, ("decoder",)):
        spec = PrefixSpec(length=8, kinds=kinds)
        losses[kinds] = train(base, {"me": texts}, spec, plan, progress=False)["me"].loss_after
    assert losses[ALL] < losses["decoder",] - 0.1
