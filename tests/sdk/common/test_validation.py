"""What cannot be meant is refused by name, as an error of ours, before anything is computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

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
    train_shared,
)
from antefix.errors import AntefixError, InvalidArgument
from antefix.peft import export_peft, import_peft
from tests.support import tiny_models

TEXTS = [Example("a text")]
SPEC, PLAN = PrefixSpec(length=2), TrainingPlan(max_steps=1)
REQUEST = GenerationRequest(prompt="An")
Call = Callable[[FrozenBase, Prefix, Any], object]


@pytest.fixture(scope="module")
def prefix() -> Prefix:
    base = tiny_models.base("llama")
    return Prefix(torch.zeros(base.layout.size(2)), base.layout, base.fingerprint)


NOTHING_LIKE_IT = [None, 5, 2.5, b"x", object(), ("a", 1)]
CALLS: dict[str, Call] = {
    "Example.completion": lambda b, p, x: Example(x),
    "Example.prompt": lambda b, p, x: Example("a", x),
    "Prefix.values": lambda b, p, x: Prefix(x, b.layout, b.fingerprint),
    "Prefix.layout": lambda b, p, x: Prefix(p.values, x, b.fingerprint),
    "Prefix.base_fingerprint": lambda b, p, x: Prefix(p.values, b.layout, x),
    "Prefix.save": lambda b, p, x: p.save(x),
    "Prefix.save dtype": lambda b, p, x: p.to_bytes(dtype=x),
    "Prefix.load": lambda b, p, x: Prefix.load(x),
    "FrozenBase.load": lambda b, p, x: FrozenBase.load(x),
    "FrozenBase.load dtype": lambda b, p, x: FrozenBase.load("nowhere", dtype=x),
    "FrozenBase.load device": lambda b, p, x: FrozenBase.load("nowhere", device=x),
    "FrozenBase.from_model": lambda b, p, x: FrozenBase.from_model(x, b.tokenizer),
    "FrozenBase.from_model tokenizer": lambda b, p, x: FrozenBase.from_model(b.model, x),
    "train base": lambda b, p, x: train(x, {"u": TEXTS}, SPEC, PLAN),
    "train examples": lambda b, p, x: train(b, x, SPEC, PLAN),
    "train user": lambda b, p, x: train(b, {x: TEXTS}, SPEC, PLAN),
    "train texts": lambda b, p, x: train(b, {"u": x}, SPEC, PLAN),
    "train one text": lambda b, p, x: train(b, {"u": [x]}, SPEC, PLAN),
    "train one plan": lambda b, p, x: train(b, {"u": TEXTS}, SPEC, {"u": x}),
    "train one start": lambda b, p, x: train(b, {"u": TEXTS}, SPEC, PLAN, start={"u": x}),
    "train_shared base": lambda b, p, x: train_shared(x, {"u": TEXTS}, SPEC, PLAN),
    "train_shared examples": lambda b, p, x: train_shared(b, x, SPEC, PLAN),
    "train_shared texts": lambda b, p, x: train_shared(b, {"u": x}, SPEC, PLAN),
    "score base": lambda b, p, x: score(x, TEXTS),
    "score examples": lambda b, p, x: score(b, x),
    "score texts": lambda b, p, x: score(b, {"u": x}),
    "generate base": lambda b, p, x: generate(x, [REQUEST]),
    "generate requests": lambda b, p, x: generate(b, x),
    "generate one request": lambda b, p, x: generate(b, [x]),
    "generate max_rows": lambda b, p, x: generate(b, [REQUEST], max_rows=x, exact=True),
    "export_peft prefix": lambda b, p, x: export_peft(x, b, "nowhere"),
    "export_peft base": lambda b, p, x: export_peft(p, x, "nowhere"),
    "export_peft folder": lambda b, p, x: export_peft(p, b, x),
    "import_peft base": lambda b, p, x: import_peft("nowhere", x),
    "import_peft folder": lambda b, p, x: import_peft(x, b),
}
OPTIONAL: dict[str, Call] = {
    "Prefix.load base": lambda b, p, x: Prefix.load("nowhere", base_fingerprint=x),
    "request prefix": lambda b, p, x: GenerationRequest(prompt="a", prefix=x),
    "train spec": lambda b, p, x: train(b, {"u": TEXTS}, x, PLAN),
    "train plan": lambda b, p, x: train(b, {"u": TEXTS}, SPEC, x),
    "train start": lambda b, p, x: train(b, {"u": TEXTS}, SPEC, PLAN, start=x),
    "train checkpoint": lambda b, p, x: train(b, {"u": TEXTS}, SPEC, PLAN, checkpoint=x),
    "train_shared spec": lambda b, p, x: train_shared(b, {"u": TEXTS}, x, PLAN),
    "train_shared plan": lambda b, p, x: train_shared(b, {"u": TEXTS}, SPEC, x),
    "score prefix": lambda b, p, x: score(b, TEXTS, x),
    "score one prefix": lambda b, p, x: score(b, {"u": TEXTS}, {"u": x}),
    "score max_prompt_tokens": lambda b, p, x: score(b, TEXTS, max_prompt_tokens=x),
}


@pytest.mark.parametrize("wrong", NOTHING_LIKE_IT, ids=lambda wrong: type(wrong).__name__)
@pytest.mark.parametrize("name", [*CALLS, *OPTIONAL])
def test_what_has_another_type_is_refused(name: str, wrong: object, prefix: Prefix) -> None:
    if (name in OPTIONAL and wrong is None) or (name.split()[-1].startswith("max_") and wrong == 5):
        return  # right here
    with pytest.raises(AntefixError):
        (CALLS | OPTIONAL)[name](tiny_models.base("llama"), prefix, wrong)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("Prefix.load", "", "path is empty"),
        ("Prefix.save", "a\0b", "has a zero in it"),
        ("Prefix.save dtype", [], "dtype is a list, not a str"),
        ("FrozenBase.load dtype", [], "dtype is a list, not a str"),
        ("train examples", TEXTS, "examples is a list, not a Mapping; write {user: …}"),
        ("train user", 5, "the name of a user is an int, not a str"),
        ("train texts", TEXTS[0], r"examples\['u'\] is an Example, not an Iterable; write a list"),
        ("train spec", {}, "spec is a dict, not a PrefixSpec"),
        ("train plan", 3, "plan is an int, not a Mapping"),
        ("score max_prompt_tokens", 0, "max_prompt_tokens is 0; use 1 or more, or None"),
        ("score examples", TEXTS[0], "examples is an Example, not an Iterable"),
        ("generate requests", None, "requests is a NoneType, not an Iterable"),
        ("generate max_rows", 2.5, "max_rows is a float, not an int"),
        pytest.param("generate max_rows", 10**5000, "max_rows is above 2,147,483,648", id="digits"),
        ("generate max_rows", 2**31, "there is no memory for 2147483648 rows"),
        ("FrozenBase.load device", "mps", "device is 'mps', which nothing here was tried on"),
        ("FrozenBase.load device", "meta", "use 'cpu' or 'cuda'"),
    ],
)
def test_the_message_names_the_argument_and_the_type(
    name: str, wrong: object, said: str, prefix: Prefix
) -> None:
    with pytest.raises(InvalidArgument, match=said):
        (CALLS | OPTIONAL)[name](tiny_models.base("llama"), prefix, wrong)


def test_settings_take_keywords_only() -> None:
    kind: Any = PrefixSpec
    with pytest.raises(
        InvalidArgument, match=r"PrefixSpec\(\) takes keywords only; name what you set: length"
    ):
        kind(8)
    with pytest.raises(InvalidArgument, match="has no setting 'self'"):
        kind(**{"self": 8})


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (PrefixSpec, {"length": 10**5000}),
        (PrefixSpec, {"length": 10**9}),
        (TrainingPlan, {"max_steps": 10**5000}),
        (TrainingPlan, {"passes": 1e308}),
        (TrainingPlan, {"epsilon": 1e308}),
        (TrainingPlan, {"workers": 10**9}),
        (GenerationRequest, {"prompt": "a", "max_new_tokens": 10**30}),
    ],
)
def test_sizes_that_no_machine_has_are_refused(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="less than or equal to"):
        kind(**wrong)


def test_a_temperature_that_would_overflow_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="temperature is 1e-38; use 0, or 1e-6 and more"):
        GenerationRequest(prompt="a", temperature=1e-38)
    request = GenerationRequest(prompt="An ornament", temperature=1e-6, max_new_tokens=4, seed=1)
    greedy = GenerationRequest(prompt="An ornament", max_new_tokens=4)
    found, wanted = generate(tiny_models.base("llama"), [request, greedy])
    assert found == wanted


def test_settings_that_do_nothing_without_evaluation_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="need evaluate=True"):
        TrainingPlan(evaluate=False, evaluate_every=2, patience=3)
    with pytest.raises(InvalidArgument, match="need evaluate=True"):
        TrainingPlan(evaluate=False, evaluate_every=2)


def test_what_cannot_be_called_is_refused_before_training() -> None:
    with pytest.raises(InvalidArgument, match="on_finished"):
        train(tiny_models.base("llama"), {"a": TEXTS}, SPEC, PLAN, on_finished=3)  # type: ignore[arg-type]


def test_a_user_may_be_called_anything(tmp_path: Path) -> None:
    names = ["", "\ud800", "a\0b", "../x"]
    plan = TrainingPlan(max_steps=1, micro_batch_tokens=64, workers=1)
    done = train(
        tiny_models.base("llama"),
        dict.fromkeys(names, TEXTS),
        SPEC,
        plan,
        checkpoint=tmp_path,
        progress=False,
    )
    assert list(done) == names
    assert len(list(tmp_path.iterdir())) == 4
