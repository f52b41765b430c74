"""A running batch generates for each row what that row would get alone, slowly and without any cache."""

import functools
import random
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from antefix import FrozenBase, Prefix
from antefix.data.tokenization import Row
from antefix.errors import InvalidArgument, PrefixMismatch, TextTooLong
from antefix.generation.generate import generate, run
from antefix.generation.request import Generated, GenerationRequest, Size, TokenizedRequest, tokenize
from antefix.generation.torch_engine import ContinuousBatch
from antefix.training.bucketing import Bucket
from antefix.training.micro_batch import forward_backward as score_rows
from tests.sdk.reference import OneRow
from tests.support import tiny_models
from tests.support.poisoned_prefix import poisoned

TEXT = "The roof is frozen, every house has an ornament of its own. An antefix is one. "


# One of each way that a base reads its past.
SEAMS = ("llama", "gpt2", "bart", "t5")


def prefix_for(base: FrozenBase, length: int, seed: int = 0) -> Prefix | None:
    if length == 0:
        return None
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(base.layout.size(length), generator=generator)
    return Prefix(values, base.layout, base.fingerprint)


def text_of(base: FrozenBase, tokens: Sequence[int]) -> str:
    return str(base.tokenizer.decode(list(tokens)))


def naive_logits(base: FrozenBase, prepared: TokenizedRequest, tokens: Sequence[int]) -> Tensor:
    """Logits [vocabulary] of the token after `tokens`, everything computed again."""
    prefix, start = prepared.request.prefix, prepared.length
    watcher = OneRow(base, base.layout.split(torch.zeros(0) if prefix is None else prefix.values))
    ids = torch.tensor([[*prepared.inputs, *tokens]])
    with torch.no_grad():
        encoded = None
        if prepared.source:
            places = start + torch.arange(len(prepared.source))[None]
            encoded = base.encode(torch.tensor([prepared.source]), places, watcher)
        hidden = base.decode(ids, start + torch.arange(ids.shape[1])[None], watcher, encoded)
        return base.head.logits(hidden[0, -1])


def naive_tokens(base: FrozenBase, prepared: TokenizedRequest) -> tuple[int, ...]:
    tokens: list[int] = []
    while len(tokens) < prepared.request.max_new_tokens:
        token = int(naive_logits(base, prepared, tokens).argmax())
        if token in prepared.stop_token_ids:
            break
        tokens.append(token)
    return tuple(tokens)


def watched(
    base: FrozenBase, prepared: Sequence[TokenizedRequest], *, max_rows: int, exact: bool
) -> tuple[dict[int, Generated], dict[int, list[Tensor]]]:
    """Results and all logits, by number of the request."""
    results: dict[int, Generated] = {}
    logits: dict[int, list[Tensor]] = {}

    def done(number: int, text: str, result: Generated | None) -> None:
        if result is not None:
            results[number] = result

    def on_logits(number: int, seen: Tensor) -> None:
        logits.setdefault(number, []).append(seen)

    run(base, prepared, max_rows, exact, done, on_logits=on_logits)
    return results, logits


def ragged(base: FrozenBase) -> list[GenerationRequest]:
    """Prefixes of 0 to 7, prompts of 1 to 30 characters, 2 to 14 tokens, in no order."""
    requests = [
        GenerationRequest(
            prompt=TEXT[n : n + 1 + n * 3],
            prefix=prefix_for(base, n % 8, seed=n),
            max_new_tokens=2 + n * 5 % 13,
        )
        for n in range(11)
    ]
    random.shuffle(requests)
    return requests


@pytest.mark.slow
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    "family",
    ["llama", *tiny_models.slow(*tiny_models.FAMILIES[1:])],
)
def test_rows_that_join_and_leave_get_what_each_gets_alone(family: str, exact: bool) -> None:
    base = tiny_models.base(family)
    prepared = [tokenize(base, request) for request in ragged(base)]
    results, logits = watched(base, prepared, max_rows=3, exact=exact)
    for number, one in enumerate(prepared):
        tokens = results[number].tokens
        assert tokens == naive_tokens(base, one)
        for at, seen in enumerate(logits[number]):
            torch.testing.assert_close(seen, naive_logits(base, one, tokens[:at]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_generation_sees_what_training_saw(family: str) -> None:
    """The logits of a generated text give the loss that training computes for it."""
    base = tiny_models.base(family)
    request = GenerationRequest(prompt="The roof", prefix=prefix_for(base, 5), max_new_tokens=9)
    prepared = replace(tokenize(base, request), stop_token_ids=frozenset())
    results, logits = watched(base, [prepared], max_rows=1, exact=False)
    targets = results[0].tokens
    row = Row((*prepared.inputs, *targets[:-1]), targets, prepared.source)
    values = prefix_for(base, 5)
    assert values is not None
    shape = Bucket(64, 64 if row.source else 0)
    (loss,) = score_rows(base, shape, [row], values.values[None], None).losses
    nats = torch.nn.functional.cross_entropy(torch.stack(logits[0]), torch.tensor(targets), reduction="sum")
    assert nats.item() == pytest.approx(loss, rel=1e-4)


def test_a_longer_request_makes_a_running_batch_grow() -> None:
    base = tiny_models.base("llama")
    short = tokenize(base, GenerationRequest(prompt="An", prefix=prefix_for(base, 3), max_new_tokens=40))
    long = tokenize(base, GenerationRequest(prompt=TEXT * 2, prefix=prefix_for(base, 7), max_new_tokens=20))
    batch = ContinuousBatch(base, 2, short.size)
    results = {}
    tickets = [batch.add(short)]
    for step in range(100):
        if step == 3:
            tickets.append(batch.add(long))
        results.update({piece.request_id: piece.result for piece in batch.step() if piece.result})
        if step > 3 and not batch.busy:
            break
    assert [results[ticket].tokens for ticket in tickets] == [
        naive_tokens(base, one) for one in (short, long)
    ]


def test_a_prompt_is_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antefix.generation.forward.CHUNK", 16)
    base = tiny_models.base("llama")
    prepared = tokenize(base, GenerationRequest(prompt=TEXT, prefix=prefix_for(base, 3), max_new_tokens=5))
    assert len(prepared.inputs) > 32
    results, _ = watched(base, [prepared], max_rows=1, exact=False)
    assert results[0].tokens == naive_tokens(base, prepared)


def test_a_full_batch_takes_nobody() -> None:
    base = tiny_models.base("llama")
    prepared = tokenize(base, GenerationRequest(prompt="An", max_new_tokens=4))
    batch = ContinuousBatch(base, 1, prepared.size)
    assert batch.free == 1
    batch.add(prepared)
    assert batch.free == 0
    with pytest.raises(InvalidArgument, match="all 1 rows are taken"):
        batch.add(prepared)
    while batch.busy:
        batch.step()
    assert (batch.free, batch.step()) == (1, [])


def test_an_exact_batch_takes_no_other_size() -> None:
    base = tiny_models.base("llama")
    batch = ContinuousBatch(base, 2, Size(64), exact=True)
    with pytest.raises(InvalidArgument, match="exact batch"):
        batch.add(tokenize(base, GenerationRequest(prompt="An", max_new_tokens=100)))


# --- exact mode

NEIGHBOUR = st.fixed_dictionaries(
    {
        "prompt": st.integers(0, 40),
        "length": st.integers(0, 7),
        "spread": st.sampled_from([0.0, 1.0, 1e4, float("nan"), float("inf")]),
        "tokens": st.integers(1, 12),
        "temperature": st.sampled_from([0.0, 1.5]),
        "seed": st.integers(0, 3),
    }
)


def neighbour(base: FrozenBase, drawn: dict[str, float]) -> GenerationRequest:
    found = prefix_for(base, int(drawn["length"]), int(drawn["seed"]))
    if found is not None:
        found = poisoned(base, found.values * drawn["spread"])
    return GenerationRequest(
        prompt=TEXT[: int(drawn["prompt"])],
        prefix=found,
        max_new_tokens=int(drawn["tokens"]),
        temperature=drawn["temperature"],
        seed=int(drawn["seed"]),
    )


def subjects(base: FrozenBase) -> list[GenerationRequest]:
    ask: dict[str, Any] = {"prompt": "An ornament", "max_new_tokens": 10}
    return [
        GenerationRequest(**ask, prefix=prefix_for(base, 4)),
        GenerationRequest(**ask, prefix=prefix_for(base, 2), temperature=1.2, top_p=0.9, seed=7),
        GenerationRequest(**ask),
    ]


@functools.cache
def alone(family: str, exact: bool) -> list[tuple[Generated, Tensor]]:
    """What each subject gets with nobody else there."""
    base = tiny_models.base(family)
    runs = [watched(base, [tokenize(base, one)], max_rows=4, exact=exact) for one in subjects(base)]
    return [(results[0], torch.stack(logits[0])) for results, logits in runs]


def among(
    family: str, exact: bool, before: list[dict[str, float]], after: list[dict[str, float]]
) -> list[tuple[Generated, Tensor]]:
    """What each subject gets among neighbours."""
    base = tiny_models.base(family)
    others = [neighbour(base, drawn) for drawn in before], [neighbour(base, drawn) for drawn in after]
    prepared = [tokenize(base, request) for request in (*others[0], *subjects(base), *others[1])]
    results, logits = watched(base, prepared, max_rows=4, exact=exact)
    return [(results[n], torch.stack(logits[n])) for n in range(len(before), len(before) + 3)]


CROWD = {"before": st.lists(NEIGHBOUR, max_size=6), "after": st.lists(NEIGHBOUR, max_size=4)}


@pytest.mark.parametrize("family", ["llama", pytest.param("t5", marks=pytest.mark.slow)])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(**CROWD)
def test_neighbours_change_not_one_bit_in_exact_mode(
    family: str, before: list[dict[str, float]], after: list[dict[str, float]]
) -> None:
    for found, wanted in zip(among(family, True, before, after), alone(family, True), strict=True):
        assert found[0] == wanted[0]
        assert torch.equal(found[1], wanted[1])


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(**CROWD)
def test_poisoned_neighbours_change_only_roundings(
    before: list[dict[str, float]], after: list[dict[str, float]]
) -> None:
    for found, wanted in zip(among("llama", False, before, after), alone("llama", False), strict=True):
        assert found[0] == wanted[0]
        torch.testing.assert_close(found[1], wanted[1], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_exact_rows_of_other_sizes_change_nothing() -> None:
    base = tiny_models.base("llama")
    ask = GenerationRequest(prompt="An ornament", prefix=prefix_for(base, 4), max_new_tokens=10)
    longer = [ask.model_copy(update={"max_new_tokens": n}) for n in (60, 130, 200)]
    _, single = watched(base, [tokenize(base, ask)], max_rows=2, exact=True)
    _, mixed = watched(base, [tokenize(base, r) for r in (*longer, ask)], max_rows=2, exact=True)
    assert torch.equal(torch.stack(mixed[3]), torch.stack(single[0]))


@pytest.mark.real
def test_exact_mode_holds_on_a_real_base(real_base: FrozenBase) -> None:
    base = real_base
    ask = GenerationRequest(prompt="A roof is", prefix=prefix_for(base, 4), max_new_tokens=5)
    others = [
        GenerationRequest(prompt=TEXT[:n], prefix=prefix_for(base, n, n), max_new_tokens=n) for n in (2, 3, 5)
    ]
    _, single = watched(base, [tokenize(base, ask)], max_rows=4, exact=True)
    for order in ([*others, ask], [others[0], ask, others[1]]):
        _, mixed = watched(base, [tokenize(base, request) for request in order], max_rows=4, exact=True)
        assert torch.equal(torch.stack(mixed[order.index(ask)]), torch.stack(single[0]))


# --- what callers see


@pytest.mark.slow
def test_results_come_in_the_order_of_requests() -> None:
    base = tiny_models.base("llama")
    requests = ragged(base)
    found = generate(base, requests, max_rows=2)
    assert found == [generate(base, [request])[0] for request in requests]
    assert [len(one.tokens) for one in found] == [request.max_new_tokens for request in requests]
    assert {one.finish for one in found} == {"length"}
    assert generate(base, []) == []


def test_drawing_is_repeatable_and_follows_the_seed() -> None:
    base = tiny_models.base("llama")
    ask = GenerationRequest(prompt="An", max_new_tokens=20, temperature=1.5)
    requests = [ask.model_copy(update={"seed": seed}) for seed in (0, 1, 0, 2)]
    found = [one.tokens for one in generate(base, requests, max_rows=3)]
    assert found[0] == found[2]
    assert len(set(found)) == 3
    assert found == [one.tokens for one in generate(base, requests)]


@pytest.mark.slow
@pytest.mark.parametrize("exact", [False, True])
def test_pieces_add_up_to_the_text(exact: bool) -> None:
    base = tiny_models.base("llama")
    ask = GenerationRequest(prompt="An", max_new_tokens=40, temperature=2.0)
    requests = [ask.model_copy(update={"seed": seed, "stop": ("e", "xyz")}) for seed in range(12)]
    pieces: dict[int, str] = {}

    def on_token(number: int, piece: str) -> None:
        assert piece
        pieces[number] = pieces.get(number, "") + piece

    found = generate(base, requests, max_rows=5, exact=exact, on_token=on_token)
    assert [pieces.get(number, "") for number in range(12)] == [one.text for one in found]
    assert found == generate(base, requests, max_rows=5, exact=exact)


def test_a_text_ends_at_the_end_token() -> None:
    base = tiny_models.base("llama")
    prepared = tokenize(base, GenerationRequest(prompt="An", max_new_tokens=12))
    whole, _ = watched(base, [prepared], max_rows=1, exact=False)
    end = whole[0].tokens[5]
    first = whole[0].tokens.index(end)
    found, _ = watched(base, [replace(prepared, stop_token_ids=frozenset({end}))], max_rows=1, exact=False)
    assert (found[0].tokens, found[0].finish) == (whole[0].tokens[:first], "end")
    assert found[0].text == text_of(base, whole[0].tokens[:first])


def test_the_end_token_can_be_ignored() -> None:
    base = tiny_models.base("llama")
    prepared = tokenize(base, GenerationRequest(prompt="An", ignore_eos=True))
    assert prepared.stop_token_ids == frozenset()
    assert tokenize(base, GenerationRequest(prompt="An")).stop_token_ids == {base.tokenizer.eos_token_id}


def test_a_text_ends_before_the_stop_text() -> None:
    base = tiny_models.base("llama")
    ask = GenerationRequest(prompt="An", max_new_tokens=30, temperature=1.0)
    whole = generate(base, [ask])[0]
    stop = whole.text[8:11]
    found = generate(base, [ask.model_copy(update={"stop": ("no such text", stop)})])[0]
    assert found.text == whole.text[: whole.text.index(stop)]
    assert found.finish == "stop"
    assert len(found.tokens) < 30


def test_a_chat_template_is_filled_in() -> None:
    tokenizer = deepcopy(tiny_models.tokenizer())
    tokenizer.chat_template = "<s>{% for turn in messages %}{{ turn.content }}{% endfor %}>"
    base = FrozenBase.from_model(tiny_models.model("llama"), tokenizer)
    prepared = tokenize(base, GenerationRequest(prompt="An ornament", chat=True))
    assert text_of(base, prepared.inputs) == "<s>An ornament>"
    cut = tokenize(base, GenerationRequest(prompt="An ornament", chat=True, max_prompt_tokens=1))
    assert len(cut.inputs) == 3
    assert cut.inputs[::2] == prepared.inputs[:: len(prepared.inputs) - 1]


def test_a_base_without_a_chat_template_has_none() -> None:
    with pytest.raises(InvalidArgument, match="has no chat template"):
        generate(tiny_models.base("llama"), [GenerationRequest(prompt="An", chat=True)])


@pytest.mark.real
def test_a_chat_prompt_is_one_turn_of_the_user(real_base: FrozenBase) -> None:
    base = real_base
    plain = tokenize(base, GenerationRequest(prompt="What is a roof?", chat=True))
    text = text_of(base, plain.inputs)
    assert text.endswith("<|im_start|>user\nWhat is a roof?<|im_end|>\n<|im_start|>assistant\n")
    cut = tokenize(base, GenerationRequest(prompt="What is a roof?", chat=True, max_prompt_tokens=2))
    assert text_of(base, cut.inputs).endswith("user\nWhat is<|im_end|>\n<|im_start|>assistant\n")
    assert base.tokenizer.eos_token_id in plain.stop_token_ids


# --- refusals


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_too_long_is_refused_before_anything_is_generated(family: str) -> None:
    base = tiny_models.base(family)
    assert base.context is not None
    short = GenerationRequest(prompt="An", max_new_tokens=4)
    long = GenerationRequest(
        prompt="secret " * (base.context // 7), prefix=prefix_for(base, 7), max_new_tokens=base.context
    )
    with pytest.raises(TextTooLong, match=r"request 1 with its \d+ new tokens") as caught:
        generate(base, [short, long], on_token=lambda *_: pytest.fail("something was generated"))
    assert "secret" not in str(caught.value)


def test_a_prefix_of_another_base_is_refused() -> None:
    request = GenerationRequest(prompt="An", prefix=prefix_for(tiny_models.base("llama"), 3))
    with pytest.raises(PrefixMismatch):
        generate(tiny_models.base("qwen2"), [request])


def test_wrong_calls_are_refused() -> None:
    base = tiny_models.base("llama")
    request = GenerationRequest(prompt="An")
    with pytest.raises(TypeError, match="unexpected keyword argument 'adapter_names'"):
        generate(base, [request], adapter_names=["a"])  # type: ignore[call-arg]  # the point of the test
    with pytest.raises(InvalidArgument, match="put it in a list"):
        generate(base, request)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(InvalidArgument, match="request 1 is a str"):
        generate(base, [request, "An"])  # type: ignore[list-item]  # the point of the test
    with pytest.raises(InvalidArgument, match="max_rows is 0"):
        generate(base, [request], max_rows=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_tokens": 4}, "did you mean 'max_new_tokens'"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 4}, "temperature 0 draws nothing"),
        ({"top_p": 1.5, "temperature": 1.0}, "top_p is 1.5"),
        ({"num_beams": 2, "temperature": 1.0}, "beam search"),
        ({"num_beams": 2, "stop": ("x",)}, "beam search"),
        ({"stop": "x"}, "stop is not a tuple"),
        ({"stop": ("",)}, "stop is not a tuple"),
        ({"prefix": torch.zeros(3)}, "prefix is a Tensor, not a Prefix"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        GenerationRequest(prompt="An", **wrong)


def test_no_message_and_no_repr_shows_a_text() -> None:
    with pytest.raises(InvalidArgument) as caught:
        GenerationRequest(prompt=b"secret")  # type: ignore[arg-type]  # the point of the test
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidArgument, match="prompt is missing"):
        GenerationRequest()  # type: ignore[call-arg]  # the point of the test
    request = GenerationRequest(prompt="secret", stop=("secret",))
    assert "secret" not in repr(request)
    prepared = tokenize(tiny_models.base("llama"), request)
    assert "secret" not in repr(prepared)
    assert str(prepared.inputs[0]) not in repr(prepared)
