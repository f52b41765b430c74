"""How likely each generated token was: by every way of computing it, and in OpenAI's form."""

import json

import pytest

from antefix.errors import InvalidArgument
from antefix.generation.detokenizer import token_text
from antefix.generation.generate import generate
from antefix.generation.request import Generated, GenerationRequest, TokenLogprob, tokenize
from antefix.http.openai import ChatCompletionRequest, CompletionRequest, ResponseBuilder
from tests.sdk.generation.test_generation import SEAMS, naive_logits, prefix_for
from tests.support import tiny_models

FOUND = Generated(
    "an  é",
    (5, 6),
    "length",
    (
        TokenLogprob(5, -0.5, ((5, -0.5), (7, -1.5))),
        TokenLogprob(6, float("-inf"), ((7, -0.25), (6, float("-inf")))),
    ),
)
WORDS = {5: "an", 6: "  é", 7: "the"}


@pytest.mark.parametrize("family", SEAMS)
def test_logprobs_are_those_of_the_whole_text_computed_again(family: str) -> None:
    base = tiny_models.base(family)
    requests = [
        GenerationRequest(prompt="An ornament", prefix=prefix_for(base, 3), max_new_tokens=5, logprobs=4),
        GenerationRequest(prompt="The roof is", max_new_tokens=4),
        GenerationRequest(prompt="Every house", max_new_tokens=4, temperature=1.5, seed=3, logprobs=0),
    ]
    found = generate(base, requests)
    assert found[1].logprobs == ()
    for request, one in zip(requests, found, strict=True):
        if request.logprobs is None:
            continue
        prepared = tokenize(base, request)
        assert [entry.token for entry in one.logprobs] == list(one.tokens)
        for at, entry in enumerate(one.logprobs):
            wanted = naive_logits(base, prepared, one.tokens[:at]).float().log_softmax(-1)
            assert entry.logprob == pytest.approx(float(wanted[entry.token]), abs=1e-3)
            assert len(entry.top) == request.logprobs
            best = wanted.topk(request.logprobs).values.tolist()
            assert [value for _, value in entry.top] == pytest.approx(best, abs=1e-3)
    assert all(entry.top[0] == (entry.token, entry.logprob) for entry in found[0].logprobs)  # it was greedy


def test_logprobs_of_a_request_do_not_depend_on_others() -> None:
    base = tiny_models.base("llama")
    asked = GenerationRequest(prompt="An ornament", prefix=prefix_for(base, 3), max_new_tokens=5, logprobs=2)
    others = [
        GenerationRequest(prompt="b " * n, prefix=prefix_for(base, n, n), max_new_tokens=9) for n in (1, 4)
    ]
    alone = generate(base, [asked], exact=True, max_rows=4)[0]
    assert generate(base, [others[0], asked, others[1]], exact=True, max_rows=4)[1] == alone


def test_a_beam_search_has_no_logprobs() -> None:
    with pytest.raises(InvalidArgument, match="logprobs"):
        GenerationRequest(prompt="a", num_beams=2, logprobs=1)


def test_a_completion_in_openais_form() -> None:
    from openai.types import Completion  # a second, which whoever collects tests need not wait for

    answer = ResponseBuilder(chat=False, model="m", prompt_tokens=3, word=WORDS.__getitem__)
    found = Completion.model_validate(answer.response(FOUND)).choices[0].logprobs
    assert found is not None
    assert found.tokens == ["an", "  é"]
    assert found.token_logprobs == [-0.5, -9999.0]
    assert found.top_logprobs == [{"an": -0.5, "the": -1.5}, {"the": -0.25, "  é": -9999.0}]
    assert found.text_offset == [0, 2]


def test_a_chat_in_openais_form() -> None:
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    answer = ResponseBuilder(chat=True, model="m", prompt_tokens=3, word=WORDS.__getitem__)
    found = ChatCompletion.model_validate(answer.response(FOUND)).choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert [(one.token, one.bytes) for one in found.content] == [
        ("an", [97, 110]),
        ("  é", [32, 32, 195, 169]),
    ]
    assert [top.token for top in found.content[0].top_logprobs] == ["an", "the"]
    chunk = ChatCompletionChunk.model_validate(answer.chunk("an", None, FOUND.logprobs[:1], first=True))
    assert chunk.choices[0].logprobs is not None
    assert chunk.choices[0].logprobs.content is not None
    assert chunk.choices[0].logprobs.content[0].token == "an"


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_what_is_no_number_in_json_is_none_in_an_answer(number: float) -> None:
    found = Generated("an", (5,), "length", (TokenLogprob(5, number, ((5, number),)),))
    for chat in (True, False):
        answer = ResponseBuilder(chat=chat, model="m", prompt_tokens=3, word=WORDS.__getitem__)
        assert "-9999.0" in json.dumps(answer.response(found), allow_nan=False)


def test_an_answer_that_was_not_asked_for_logprobs_has_none() -> None:
    assert (
        ResponseBuilder(chat=True, model="m", prompt_tokens=3).response(FOUND)["choices"][0]["logprobs"]
        is None
    )


def test_what_is_asked_becomes_a_number_of_alternatives() -> None:
    turn = [{"role": "user", "content": "a"}]
    assert ChatCompletionRequest.model_validate({"messages": turn}).settings["logprobs"] is None
    assert (
        ChatCompletionRequest.model_validate({"messages": turn, "logprobs": True}).settings["logprobs"] == 0
    )
    more = {"messages": turn, "logprobs": True, "top_logprobs": 7}
    assert ChatCompletionRequest.model_validate(more).settings["logprobs"] == 7
    assert CompletionRequest.model_validate({"prompt": "a", "logprobs": 2}).settings["logprobs"] == 2
    with pytest.raises(ValueError, match="goes with logprobs"):
        ChatCompletionRequest.model_validate({"messages": turn, "top_logprobs": 7})


def test_the_text_of_a_token_has_its_space() -> None:
    tokenizer = tiny_models.base("llama").tokenizer
    tokens = tokenizer("An ornament of a roof", add_special_tokens=False)["input_ids"]
    assert "".join(token_text(tokenizer, token) for token in tokens).strip() == "An ornament of a roof"
