"""The paper's variants of a prefix, each against a plain loop that knows nothing of how ours is computed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antefix import Example, FrozenBase, GenerationRequest, Prefix, PrefixSpec, TrainingPlan, generate, train
from antefix.data.tokenization import Row, encode_user, prompt_tokens
from antefix.errors import InvalidArgument
from antefix.training.bucketing import Bucket
from antefix.training.initialization import activations, keys_and_values
from antefix.training.micro_batch import forward_backward as run_rows
from tests.sdk.reference import OneRow
from tests.support import tiny_models

TEXTS = [
    Example(prompt=f"An ornament {word}", completion=f"is {word} and {word}")
    for word in ("red", "blue", "green", "small")
]
PLAN = TrainingPlan(max_steps=12, batch_size=2, learning_rate=0.05, validation_fraction=0.0)
EMBEDDED = PrefixSpec(length=4, layers="embedding", start="words", words="An ornament is")


def lead(base: FrozenBase) -> list[int]:
    """BOS and the words, as a prefix starts."""
    bos: Any = base.tokenizer.bos_token_id
    ids = list(base.tokenizer("An ornament is", add_special_tokens=False)["input_ids"])
    return ([bos, *ids] * 4)[:1] + (ids * 4)[:3] if bos is not None and ids[0] != bos else (ids * 4)[:4]


def loss_of(base: FrozenBase, vectors: Tensor, row: Row) -> Tensor:
    """Through the model as transformers has it: vectors in front of the text's own, no cache, no prefix."""
    inputs = torch.tensor([row.inputs])
    table: Any = base.model.get_input_embeddings()
    body: Any = base.model.get_decoder()
    whole = torch.cat([vectors[None], table(inputs)], 1)
    hidden = body(inputs_embeds=whole, use_cache=False).last_hidden_state[0]
    logits = base.head.logits(hidden[-len(row.targets) :])
    return F.cross_entropy(logits, torch.tensor(row.targets), reduction="sum")


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "qwen2", "gemma", "mistral"])
def test_embedding_only_starts_on_what_the_base_computes_on_the_words(family: str) -> None:
    base = tiny_models.base(family)
    tokens = torch.tensor(lead(base))
    (real,) = activations(base, [tuple(tokens.tolist())])
    with torch.no_grad():
        ours = keys_and_values(base, base.embed(tokens))
    torch.testing.assert_close(ours, real, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_embedding_only_has_the_gradient_of_the_whole_model(family: str) -> None:
    base = tiny_models.base(family)
    rows = list(encode_user(base, "me", TEXTS, length=4, max_prompt_tokens=None))
    one = TEXTS[:1]
    plan = PLAN.model_copy(update={"max_steps": 1, "batch_size": 1, "clip_norm": 1e9})
    trained = train(base, {"me": one}, EMBEDDED, plan, progress=False)["me"]
    vectors = base.embed(torch.tensor(lead(base))).detach().float().requires_grad_()
    loss = loss_of(base, vectors, rows[0]) / len(rows[0].targets)
    assert trained.loss_before == pytest.approx(loss.item(), abs=1e-4)
    (gradient,) = torch.autograd.grad(loss, vectors)
    gradient[0] = 0
    moved = vectors.detach() - plan.learning_rate * gradient / (gradient.abs() + plan.epsilon)  # Adam's first
    with torch.no_grad():
        wanted = keys_and_values(base, moved)
    assert (trained.prefix.values - wanted).norm() <= 1e-3 * wanted.norm()


@pytest.mark.slow
def test_embedding_only_learns_and_what_comes_of_it_is_a_prefix_like_any_other() -> None:
    base = tiny_models.base("llama")
    plan = PLAN.model_copy(update={"max_steps": 60})
    everywhere = EMBEDDED.model_copy(update={"layers": "all"})
    embedded = train(base, {"me": TEXTS}, EMBEDDED, plan, progress=False)["me"]
    whole = train(base, {"me": TEXTS}, everywhere, plan, progress=False)["me"]
    assert embedded.loss_before == pytest.approx(whole.loss_before, abs=1e-5)
    assert embedded.loss_after < embedded.loss_before - 1
    assert embedded.prefix != whole.prefix
    assert embedded.prefix.layout == whole.prefix.layout
    first = zip(
        base.layout.split(embedded.prefix.values), base.layout.split(whole.prefix.values), strict=True
    )
    assert all(torch.allclose(ours[:, :, 0], theirs[:, :, 0], atol=1e-5) for ours, theirs in first)


def test_what_embedding_only_cannot_be() -> None:
    with pytest.raises(InvalidArgument, match="no MLP"):
        PrefixSpec(layers="embedding", mlp_width=8)
    with pytest.raises(InvalidArgument, match="encoder-decoder"):
        train(tiny_models.base("bart"), {"me": TEXTS}, EMBEDDED, PLAN, progress=False)
    base = tiny_models.base("llama")
    start = train(base, {"me": TEXTS}, PrefixSpec(length=4), PLAN, progress=False)["me"].prefix
    with pytest.raises(InvalidArgument, match="input vectors"):
        train(
            base, {"me": TEXTS}, PrefixSpec(length=4, layers="embedding"), PLAN, start=start, progress=False
        )


def infix_logits(base: FrozenBase, flat: Tensor, row: Row, blind: int) -> Tensor:
    """As the definition has it: a prefix that the first `blind` tokens do not see; of the targets."""

    class Watcher(OneRow):
        def attend(
            self,
            module: nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            scaling: float | None,
            extra: Any,
        ) -> Tensor:
            seeing = super().attend(module, query, key, value, scaling, extra)
            parts, self.parts = self.parts, [part[:, :, :0] for part in self.parts]
            not_seeing = super().attend(module, query, key, value, scaling, extra)
            self.parts = parts
            return torch.cat([not_seeing[:, :blind], seeing[:, blind:]], 1)

    watcher, length = Watcher(base, base.layout.split(flat)), flat.numel() // base.layout.width
    positions = length + torch.arange(len(row.inputs))[None]
    hidden = base.decode(torch.tensor([row.inputs]), positions, watcher)[0]
    return base.head.logits(hidden[-len(row.targets) :])


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("padded", [False, True])
def test_an_infix_has_the_loss_and_gradient_of_its_definition(family: str, padded: bool) -> None:
    base = tiny_models.base(family)
    rows = [row.with_infix for row in encode_user(base, "me", TEXTS, length=5, max_prompt_tokens=None)]
    assert all(row.prefix_hidden_until > 1 for row in rows)
    flat = torch.randn(len(rows), base.layout.size(5)) * 0.3
    shape = Bucket(128, 0, len(rows) + 1, 32) if padded else Bucket(128, 0, 0, 0)
    ours = run_rows(base, shape, rows, flat, [1.0] * len(rows))
    assert ours.gradients is not None
    for number, row in enumerate(rows):
        leaf = flat[number].clone().requires_grad_()
        logits = infix_logits(base, leaf, row, row.prefix_hidden_until)
        loss = F.cross_entropy(logits, torch.tensor(row.targets), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert ours.losses[number] == pytest.approx(loss.item(), rel=1e-5)
        assert (ours.gradients[number] - gradient).norm() <= 1e-4 * gradient.norm()
        seen = run_rows(base, shape, [replace(row, prefix_hidden_until=0)], flat[number : number + 1], None)
        assert seen.losses[0] != pytest.approx(ours.losses[number], rel=1e-4)


@pytest.mark.parametrize("exact", [False, True])
def test_generating_under_an_infix_is_reading_the_whole_text_under_it(exact: bool) -> None:
    base = tiny_models.base("llama")
    spec = PrefixSpec(length=5, place="infix")
    prefix = train(base, {"me": TEXTS}, spec, PLAN, progress=False)["me"].prefix
    asked = [
        GenerationRequest(prompt=prompt, prefix=prefix, infix=infix, max_new_tokens=8, ignore_eos=True)
        for prompt in ("An ornament", "A tile of the temple is red")
        for infix in (True, False)
    ]
    for request, found in zip(asked, generate(base, asked, exact=exact), strict=True):
        inputs = tuple(prompt_tokens(base, request.prompt))
        for count, token in enumerate(found.tokens):
            row = Row((*inputs, *found.tokens[:count]), (token,))
            blind = len(inputs) - 1 if request.infix else 0
            logits = infix_logits(base, prefix.values, row, blind)
            assert token == int(logits[0].argmax())


def test_beams_see_an_infix_from_the_end_of_the_prompt_on() -> None:
    base = tiny_models.base("llama")
    strong = Prefix(torch.randn(base.layout.size(5)) * 2, base.layout, base.fingerprint)
    asked = GenerationRequest(
        prompt="A tile of the temple is red", prefix=strong, infix=True, max_new_tokens=8, num_beams=3
    )
    inputs = tuple(prompt_tokens(base, asked.prompt))
    infix, prefix = generate(base, [asked, asked.model_copy(update={"infix": False})])
    assert infix.tokens != prefix.tokens

    def likelihood(tokens: tuple[int, ...]) -> float:
        row = Row((*inputs, *tokens[:-1]), tokens)
        logits = infix_logits(base, strong.values, row, len(inputs) - 1)
        return -F.cross_entropy(logits, torch.tensor(row.targets), reduction="mean").item()

    assert likelihood(infix.tokens) > likelihood(prefix.tokens)


def test_an_infix_is_for_causal_bases() -> None:
    bart = tiny_models.base("bart")
    with pytest.raises(InvalidArgument, match="encoder-decoder"):
        train(bart, {"me": TEXTS}, PrefixSpec(length=4, place="infix"), PLAN, progress=False)
    with pytest.raises(InvalidArgument, match="encoder-decoder"):
        generate(bart, [GenerationRequest(prompt="An ornament", infix=True)])
