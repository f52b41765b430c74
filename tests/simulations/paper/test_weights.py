"""Baselines that train weights: how many, that they begin as the base, learn, and leave the base alone."""

from typing import Any

import pytest
import torch

from antefix import Example, FrozenBase, GenerationRequest, generate, score
from antefix.data.tokenization import encode
from antefix.generation.request import tokenize
from antefix_simulations.arms.weights import Schedule, all_weights
from antefix_simulations.paper.weights import KINDS, adapters, top_layers
from tests.support import tiny_models

pytestmark = pytest.mark.slow

TEXTS = [Example(f"An ornament {word}\n", f" is {word}") for word in ("red", "blue", "green", "small")]


def base_of(family: str) -> FrozenBase:
    return FrozenBase.from_model(tiny_models.model(family), tiny_models.tokenizer())


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma", "bart", "t5"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_begins_as_the_base_learns_and_leaves_the_base_alone(kind: str, family: str) -> None:
    base = base_of(family)
    before = score(base, TEXTS)
    weights, rows = KINDS[kind](base, 0), [encode(base, text, None) for text in TEXTS]
    assert weights.read(rows) == pytest.approx(before, rel=1e-4)
    start = weights.keep()
    weights.train(rows, Schedule(30, 2, 3e-3, 0))
    after = weights.read(rows)
    assert after < before - 0.01
    assert score(base, TEXTS) == before
    weights.restore(start)
    assert weights.read(rows) == pytest.approx(before, rel=1e-4)


def test_what_is_trained_is_what_the_name_says() -> None:
    base = base_of("llama")
    whole = sum(one.numel() for one in base.model.parameters())
    assert all_weights(base).numbers == whole
    model: Any = base.model
    layers = [sum(one.numel() for one in layer.parameters()) for layer in model.model.layers]
    assert top_layers(base, 1).numbers == layers[-1]
    for share in (0.03, 0.1):
        step = len(layers) * (2 * base.head.weight.shape[1] + 1)
        assert abs(adapters(base, share).numbers - share * whole) <= step


@pytest.mark.parametrize("family", ["llama", "gpt2", "bart", "t5"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["fine-tuning", "LoRA"])
def test_writing_together_is_writing_alone_and_what_the_base_writes(
    family: str, beams: int, kind: str
) -> None:
    base, prompts = base_of(family), ("A tile", "The roof of the temple is red", "An")
    # As some bases bring; no method may use it.
    vars(base.model.generation_config)["repetition_penalty"] = 1.5
    weights = KINDS[kind](base, 0)
    asked = [GenerationRequest(prompt=prompt, max_new_tokens=8, num_beams=beams) for prompt in prompts]
    prepared = [tokenize(base, one) for one in asked]
    together = weights.write(prepared)
    assert together == [weights.write([one])[0] for one in prepared]
    assert together == [list(one.tokens) for one in generate(base, asked)]


def test_training_is_the_same_for_the_same_seed() -> None:
    base = base_of("llama")
    rows = [encode(base, text, None) for text in TEXTS]
    found = []
    for seed in (0, 0, 1):
        weights = KINDS["adapters 3 %"](base, seed)
        weights.train(rows, Schedule(5, 2, 1e-2, seed))
        found.append(torch.tensor(weights.read(rows)))
    assert found[0] == found[1] != found[2]
