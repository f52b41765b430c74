"""Per-user training against a plain loop, and everything a user may set."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from antefix import Example, FrozenBase, Prefix, PrefixSpec, TrainingPlan, score, train, train_shared
from antefix.data.tokenization import encode
from antefix.errors import (
    AntefixError,
    CheckpointMismatch,
    ExampleError,
    InvalidArgument,
    PrefixMismatch,
    TextTooLong,
)
from antefix.training import adam, micro_batch, trainer
from antefix.training.config import Start
from antefix.training.user_state import split_rows
from tests.sdk.reference import row_loss
from tests.support import tiny_models

TEXTS = [Example(prompt=f"number {i}: ", completion="tile " * (i % 4 + 1) + str(i)) for i in range(10)]
PLAN = TrainingPlan(max_steps=6, batch_size=4, learning_rate=0.02, micro_batch_tokens=128, workers=1)


def plain_loop(base: FrozenBase, spec: PrefixSpec, plan: TrainingPlan, start: Prefix) -> torch.Tensor:
    """What `train` should do for one user, with torch's own Adam, one row at a time."""
    rows, _, _ = split_rows([encode(base, example, None) for example in TEXTS], plan)
    flat = start.values.requires_grad_()
    steps = plan.steps_for(len(rows))
    optimizer = torch.optim.Adam(
        [flat], lr=plan.learning_rate, betas=(plan.beta1, plan.beta2), eps=plan.epsilon
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (steps - step) / steps)
    per_pass = math.ceil(len(rows) / plan.batch_size)
    for step in range(steps):
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step // per_pass)
        order = torch.randperm(len(rows), generator=generator).tolist()
        at = step % per_pass * plan.batch_size
        batch = [rows[i] for i in order[at : at + plan.batch_size]]
        loss = sum((row_loss(base, row, flat) for row in batch), torch.zeros(()))
        loss = loss / sum(len(row.targets) for row in batch)
        optimizer.zero_grad()
        loss.backward()
        assert flat.grad is not None
        for part in base.layout.split(flat.grad):
            part[:, :, 0] = 0
        torch.nn.utils.clip_grad_norm_([flat], plan.clip_norm)
        optimizer.step()
        schedule.step()
    return flat.detach()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", *tiny_models.slow("gpt2", "bart", "t5")])
@pytest.mark.parametrize("batching", ["shared", "per-user"])
def test_training_among_others_equals_a_plain_loop(family: str, batching: str) -> None:
    base = tiny_models.base(family)
    spec = PrefixSpec(length=4)
    plan = PLAN.model_copy(update={"batching": batching, "validation_fraction": 0.0})
    start = train(base, {"me": TEXTS}, spec, plan.model_copy(update={"max_steps": 1}), progress=False)[
        "me"
    ].prefix
    wanted = plain_loop(base, spec, plan, start)
    others = {f"u{i}": TEXTS[i : i + 3] for i in range(5)}
    ours = train(base, {**others, "me": TEXTS}, spec, plan, start=start, progress=False)["me"].prefix.values
    moved = (wanted - start.values).norm()
    assert moved > 0.1
    assert (ours - wanted).norm() <= 1e-4 * moved


@pytest.mark.slow
def test_training_lowers_the_loss_and_keeps_the_better_of_start_and_end() -> None:
    base = tiny_models.base("llama")
    good = train(
        base, {"u": TEXTS}, PrefixSpec(length=4), PLAN.model_copy(update={"max_steps": 40}), progress=False
    )
    assert good["u"].loss_after < good["u"].loss_before - 0.3


@pytest.mark.slow
def test_training_that_makes_it_worse_is_thrown_away() -> None:
    base = tiny_models.base("llama")
    texts = [Example(completion="tile tile tile")] * 5 + [Example(completion="QUITE ANOTHER TEXT!")]
    texts += texts[:4]  # the sixth of ten is the validation text
    spec, plan = PrefixSpec(length=4), PLAN.model_copy(update={"max_steps": 60, "learning_rate": 0.1})
    start = train(base, {"u": texts[5:6]}, spec, plan, progress=False)["u"].prefix
    kept = train(base, {"u": texts}, spec, plan, start=start, progress=False)["u"]
    assert kept.validated
    assert kept.prefix == start
    assert kept.loss_after == kept.loss_before


@pytest.mark.slow
def test_users_stop_early_on_their_own_validation_texts() -> None:
    plan = PLAN.model_copy(update={"max_steps": 60, "evaluate_every": 2, "patience": 1, "learning_rate": 1.0})
    done = train(
        tiny_models.base("llama"), {"a": TEXTS, "b": TEXTS[:6]}, PrefixSpec(length=3), plan, progress=False
    )
    assert min(user.steps for user in done.values()) < 60


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "bart"])
def test_mlp_starts_exactly_at_the_start_and_is_dropped(family: str) -> None:
    base = tiny_models.base(family)
    direct = train(
        base, {"u": TEXTS}, PrefixSpec(length=4), PLAN.model_copy(update={"max_steps": 1}), progress=False
    )
    start = direct["u"].prefix
    spec = PrefixSpec(length=4, mlp_width=16)
    through = train(
        base, {"u": TEXTS}, spec, PLAN.model_copy(update={"max_steps": 30}), start=start, progress=False
    )
    assert through["u"].loss_before == score_before(base, start)
    assert through["u"].loss_after < through["u"].loss_before
    assert through["u"].prefix.length == 4
    sinks = zip(base.layout.split(through["u"].prefix.values), base.layout.split(start.values), strict=True)
    assert all(torch.equal(a[:, :, 0], b[:, :, 0]) for a, b in sinks)


def score_before(base: FrozenBase, start: Prefix) -> float:
    plan = PLAN.model_copy(update={"max_steps": 1})
    return train(base, {"u": TEXTS}, PrefixSpec(length=4), plan, start=start, progress=False)["u"].loss_before


@pytest.mark.slow
@pytest.mark.parametrize("start", ["examples", "words", "zeros", "random"])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_every_start_keeps_the_sink(start: Start, family: str) -> None:
    base = tiny_models.base(family)
    words = "an ornament" if start == "words" else None
    spec = PrefixSpec(length=5, start=start, words=words)
    prefix = train(base, {"u": TEXTS}, spec, PLAN, progress=False)["u"].prefix
    other = train(base, {"u": TEXTS[::-1]}, spec, PLAN, progress=False)["u"].prefix
    for slot in range(len(base.layout.slots)):
        assert torch.equal(prefix.layer(slot)[0][:, 0], other.layer(slot)[0][:, 0])
    assert prefix != other


def test_a_shared_prefix_goes_on_as_a_private_one() -> None:
    base = tiny_models.base("llama")
    spec = PrefixSpec(length=4)
    shared = train_shared(base, {"a": TEXTS[:5], "b": TEXTS[5:]}, spec, PLAN, progress=False)
    private = train(base, {"c": TEXTS}, spec, PLAN, start=shared.prefix, progress=False)["c"]
    assert private.steps == 6
    assert score(base, TEXTS, private.prefix) < score(base, TEXTS, None)


class Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    base, spec = tiny_models.base("llama"), PrefixSpec(length=3)
    users = {"a": TEXTS, "b": TEXTS[:5], "c": TEXTS[3:]}
    whole = train(base, users, spec, PLAN, progress=False)
    calls, real = [0], micro_batch.forward_backward

    def failing(*args: object) -> object:
        calls[0] += 1
        if calls[0] == 9:
            raise Interrupted
        return real(*args)  # type: ignore[arg-type]  # passes through whatever it was given

    monkeypatch.setattr(trainer, "forward_backward", failing)
    with pytest.raises(Interrupted):
        train(base, users, spec, PLAN, checkpoint=str(tmp_path), progress=False)
    monkeypatch.setattr(trainer, "forward_backward", real)
    resumed = train(base, users, spec, PLAN, checkpoint=str(tmp_path), progress=False)
    assert {user: done.prefix for user, done in resumed.items()} == {u: d.prefix for u, d in whole.items()}
    again = train(base, users, spec, PLAN, checkpoint=str(tmp_path), progress=False)  # nothing left to do
    assert again["a"] == whole["a"]
    with pytest.raises(CheckpointMismatch, match="belongs to another run"):
        train(base, {"a": TEXTS[1:]}, spec, PLAN, checkpoint=str(tmp_path), progress=False)


def test_without_evaluation_every_text_trains_and_nothing_is_judged() -> None:
    base, plan = (
        tiny_models.base("llama"),
        TrainingPlan(**{**PLAN.model_dump(), "evaluate": False, "passes": 1}),
    )
    rows, judging, validated = split_rows([encode(base, example, None) for example in TEXTS], plan)
    assert (len(rows), judging, validated) == (len(TEXTS), [], False)
    done = train(base, {"u": TEXTS}, PrefixSpec(length=3), plan, progress=False)["u"]
    assert (done.validated, done.diverged, done.steps) == (False, False, 3)
    assert done.tokens == sum(row.tokens for row in rows)
    assert math.isnan(done.loss_before)
    assert math.isnan(done.loss_after)


def test_a_refusal_of_a_shared_prefix_names_whose_text_it_is() -> None:
    users = {"ann": TEXTS, "bob": [TEXTS[0], Example("secret " * 200)]}
    with pytest.raises(TextTooLong, match="example 1 of user 'bob'"):
        train_shared(tiny_models.base("llama"), users, PrefixSpec(length=3), PLAN, progress=False)
    with pytest.raises(InvalidArgument, match="example 0 of user 'bob' is a str"):
        train_shared(tiny_models.base("llama"), {"ann": TEXTS, "bob": ["x"]}, progress=False)  # type: ignore[list-item]  # the mistake


def test_a_shared_prefix_takes_texts_that_can_be_read_once() -> None:
    base, spec = tiny_models.base("llama"), PrefixSpec(length=3)
    lists = train_shared(base, {"a": TEXTS, "b": TEXTS[:3]}, spec, PLAN, progress=False)
    once = {"a": iter(TEXTS), "b": (text for text in TEXTS[:3])}
    assert train_shared(base, once, spec, PLAN, progress=False) == lists


def test_a_checkpoint_that_is_no_folder_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match=r"checkpoint is .*file: File exists"):
        train(tiny_models.base("llama"), {"a": TEXTS}, checkpoint=tmp_path / "file", progress=False)


def test_an_interrupt_within_a_step_leaves_no_half_step_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, spec = tiny_models.base("llama"), PrefixSpec(length=3)
    whole = train(base, {"a": TEXTS}, spec, PLAN, progress=False)
    calls, real = [0], adam.learning_rate

    def interrupted(*args: Any) -> float:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(adam, "learning_rate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(base, {"a": TEXTS}, spec, PLAN, checkpoint=tmp_path, progress=False)
    monkeypatch.setattr(adam, "learning_rate", real)
    assert train(base, {"a": TEXTS}, spec, PLAN, checkpoint=tmp_path, progress=False) == whole


@pytest.mark.parametrize(
    ("users", "length", "error", "said"),
    [
        ({"ann": []}, 4, ExampleError, "user 'ann' has no examples"),
        ({"ann": [Example(completion="  ")]}, 4, ExampleError, "example 0 of user 'ann'"),
        ({"ann": [Example(completion="secret " * 200)]}, 4, TextTooLong, "the base sees 252"),
        ({"ann": ["text"]}, 4, InvalidArgument, "is a str, not an Example"),
        ({"ann": TEXTS}, 400, TextTooLong, "prefix of 400 leaves no room .* the base sees 256 tokens in all"),
    ],
)
def test_bad_texts_are_refused_before_any_training(
    users: dict[str, list[Example]], length: int, error: type[AntefixError], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        train(tiny_models.base("llama"), users, PrefixSpec(length=length), PLAN, progress=False)
    assert "secret" not in str(caught.value)


def test_bad_settings_are_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match=r"no setting 'lenght'; did you mean 'length'\?"):
        PrefixSpec(lenght=3)  # type: ignore[call-arg]  # the mistake
    with pytest.raises(InvalidArgument, match=r"PrefixSpec.length is 0"):
        PrefixSpec(length=0)
    with pytest.raises(InvalidArgument, match="leaves nothing to train"):
        PrefixSpec(length=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'adapter_names'"):
        train(tiny_models.base("llama"), {"a": TEXTS}, adapter_names=["a"])  # type: ignore[call-arg]  # the mistake
    with pytest.raises(TypeError, match="unexpected keyword argument 'user'"):
        score(tiny_models.base("llama"), TEXTS, user="a")  # type: ignore[call-overload]  # the mistake
    with pytest.raises(InvalidArgument, match="hand one user's text to everybody"):
        train_shared(tiny_models.base("llama"), {"a": TEXTS}, PrefixSpec(start="examples"))


def test_a_start_of_another_base_or_length_is_refused() -> None:
    llama, gpt2 = tiny_models.base("llama"), tiny_models.base("gpt2")
    prefix = train(llama, {"u": TEXTS}, PrefixSpec(length=3), PLAN, progress=False)["u"].prefix
    with pytest.raises(PrefixMismatch, match="the base in use is"):
        train(gpt2, {"u": TEXTS}, PrefixSpec(length=3), PLAN, start=prefix, progress=False)
    with pytest.raises(PrefixMismatch, match="length 3, the spec says 4"):
        train(llama, {"u": TEXTS}, PrefixSpec(length=4), PLAN, start=prefix, progress=False)
    with pytest.raises(PrefixMismatch):
        score(gpt2, TEXTS, prefix)


def test_own_plans_per_user() -> None:
    plans = {"a": PLAN, "b": PLAN.model_copy(update={"max_steps": 2, "learning_rate": 0.1})}
    done = train(
        tiny_models.base("llama"), {"a": TEXTS, "b": TEXTS}, PrefixSpec(length=3), plans, progress=False
    )
    assert (done["a"].steps, done["b"].steps) == (6, 2)
    with pytest.raises(InvalidArgument, match="no plan for user 'b'"):
        train(tiny_models.base("llama"), {"b": TEXTS}, PrefixSpec(length=3), {"a": PLAN}, progress=False)
    plans["b"] = PLAN.model_copy(update={"micro_batch_tokens": 256})
    with pytest.raises(InvalidArgument, match="plans differ"):
        train(
            tiny_models.base("llama"), {"a": TEXTS, "b": TEXTS}, PrefixSpec(length=3), plans, progress=False
        )


def test_score_of_many_equals_score_of_one() -> None:
    base = tiny_models.base("llama")
    done = train(base, {"a": TEXTS, "b": TEXTS[:5]}, PrefixSpec(length=3), PLAN, progress=False)
    prefixes = {user: result.prefix for user, result in done.items()}
    many = score(base, {"a": TEXTS, "b": TEXTS[5:]}, prefixes)
    assert many == {"a": score(base, TEXTS, prefixes["a"]), "b": score(base, TEXTS[5:], prefixes["b"])}
