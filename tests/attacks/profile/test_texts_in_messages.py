"""No message and no repr holds a user's text: they end up in logs."""

import traceback
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from antefix import Example, FrozenBase, GenerationRequest, PrefixSpec, TrainingPlan, generate, score, train
from antefix.errors import AntefixError, BaseUnsuitable
from tests.support import tiny_models

SECRET = "the secret garden"
BROKEN = SECRET + "\ud800"  # half of a surrogate pair, as JSON can hold it


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (GenerationRequest, {"prompt": SECRET, "chat": SECRET}, "chat is a str"),
        (GenerationRequest, {"prompt": [SECRET]}, "prompt is a list, not a str"),
        (GenerationRequest, {"prompt": BROKEN}, "prompt holds half of a surrogate pair"),
        (GenerationRequest, {"prompt": "a", "stop": (BROKEN,)}, "stop holds half of a surrogate pair"),
        (GenerationRequest, {"prompt": "a", "stop": SECRET}, "stop is not a tuple"),
        (GenerationRequest, {"prompt": "a", "max_new_tokens": SECRET}, "max_new_tokens is a str"),
        (PrefixSpec, {"words": SECRET}, "words is given"),
        (PrefixSpec, {"words": [SECRET]}, "words is a list"),
        (PrefixSpec, {"words": BROKEN, "start": "words"}, "words holds half of a surrogate pair"),
        (PrefixSpec, {"start": SECRET}, "start is a str"),
        (TrainingPlan, {"max_prompt_tokens": SECRET}, "max_prompt_tokens is a str"),
        (TrainingPlan, {"batching": SECRET}, "batching is a str: input should be 'shared'"),
        (Example, {"completion": BROKEN}, "Example.completion holds half of a surrogate pair"),
        (Example, {"completion": "a", "prompt": BROKEN}, "Example.prompt holds half of a surrogate pair"),
        (Example, {"completion": [SECRET]}, "completion is a list"),
    ],
)
def test_no_refusal_quotes_a_text(kind: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(AntefixError, match=said) as caught:
        kind(**settings)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_a_text_in_the_wrong_place_is_not_quoted() -> None:
    request: Any = GenerationRequest
    with pytest.raises(AntefixError, match="takes keywords only") as caught:
        request(SECRET)
    assert "secret" not in str(caught.value)


def test_pydantics_own_way_in_quotes_no_text_either() -> None:
    with pytest.raises((AntefixError, ValidationError)) as caught:
        GenerationRequest.model_validate_json(f'"{SECRET}"')
    assert "secret" not in str(caught.value)


def test_an_example_shows_lengths() -> None:
    example = Example(SECRET, prompt="two words\n")
    assert repr(example) == "Example(completion: 17 characters, prompt: 10)"
    assert "secret" not in f"{[example]} {example!s}"


def test_texts_that_no_base_sees_whole_are_not_quoted() -> None:
    base = tiny_models.base("llama")
    long = Example(SECRET * 40)
    plan = TrainingPlan(max_steps=1)
    calls: list[Callable[[], object]] = [
        lambda: train(base, {"u": [long]}, PrefixSpec(length=2), plan),
        lambda: score(base, [long]),
        lambda: generate(base, [GenerationRequest(prompt=SECRET * 40)]),
    ]
    for call in calls:
        with pytest.raises(AntefixError, match="tokens") as caught:
            call()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "template", ["{{", "{{ messages[9].content.x }}", "{{ raise_exception(messages[0].content) }}"]
)
def test_a_chat_template_that_fails_quotes_no_prompt(template: str) -> None:
    tokenizer: Any = tiny_models.tokenizer()
    own = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>")
    own.chat_template = template
    base = FrozenBase.from_model(tiny_models.model("llama"), own, name="odd")
    with pytest.raises(BaseUnsuitable, match="chat template of base 'odd' fails with") as caught:
        generate(base, [GenerationRequest(prompt=SECRET, chat=True)])
    assert "secret" not in "".join(traceback.format_exception(caught.value))
