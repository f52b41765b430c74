"""The personal model: remembers, learns, writes."""

import json
import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from antefix import Example, GenerationRequest, Prefix, generate, score
from antefix.errors import InvalidArgument, PrefixMismatch
from antefix.training.neutral_prefix import is_neutral, neutral_prefix
from antefix_client import Budget, PersonalModel
from antefix_client.errors import (
    BaseChanged,
    ProfileAbsent,
    ProfileClosed,
    ProfileExists,
    TextRefused,
    TooFewTexts,
)
from antefix_client.learning import learn as learn_module
from antefix_client.learning.hyperparameters import BATCH, PREFIX_LENGTH, default_plan
from antefix_client.learning.text_split import TextSnapshot
from tests.client.people import KEY, NOTES, opened, reopened
from tests.support import tiny_models

pytestmark = pytest.mark.slow


def test_remembers_learns_and_writes(model: PersonalModel) -> None:
    assert model.remember(NOTES) == len(NOTES)
    before = model.score(NOTES[:4])
    report = model.learn(progress=False)
    assert report.kept
    assert report.version == 1
    assert report.loss_after < report.loss_before
    assert report.texts + report.judged_on == len(NOTES)
    assert "Version 1, learned from" in str(report)
    assert model.score(NOTES[:4]) < before
    text = model.generate("Note 3:", max_new_tokens=8)
    assert text == "".join(model.stream("Note 3:", max_new_tokens=8))
    with reopened(model) as again:
        assert again.generate("Note 3:", max_new_tokens=8) == text
        assert [version.number for version in again.versions()] == [1]


def test_generates_under_its_own_prefix(model: PersonalModel, tmp_path: Path) -> None:
    model.remember(NOTES)
    model.learn(progress=False)
    prefix = Prefix.load(model.export(tmp_path / "mine.safetensors"))
    base = tiny_models.base("llama")
    (wanted,) = generate(base, [GenerationRequest(prompt="Note", prefix=prefix, max_new_tokens=12)])
    assert model.generate("Note", max_new_tokens=12) == wanted.text
    assert model.score(NOTES) == pytest.approx(score(base, [Example(note) for note in NOTES], prefix))


def test_no_gain_keeps_the_old_version(model: PersonalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.remember(NOTES)
    model.learn(progress=False)
    monkeypatch.setattr(learn_module, "default_plan", useless_rule)
    report = model.learn(progress=False)
    assert not report.kept
    assert report.version == 1
    assert "No gain" in str(report)
    assert "version 1 stays" in str(report)
    assert len(model.versions()) == 1


def useless_rule(texts: int, *, warm: bool):  # type: ignore[no-untyped-def]
    from antefix import PrefixSpec, TrainingPlan

    return PrefixSpec(length=8), TrainingPlan(max_steps=1, learning_rate=1e-30, batching="per-user")


def test_judging_texts_never_train(model: PersonalModel) -> None:
    """Not even later, when there are more."""
    trained: set[str] = set()
    for count in range(4, len(NOTES) + 1, 4):
        model.remember(NOTES[:count])
        split = TextSnapshot.take(model.session.profile).split()
        judging = {text.completion for text in split.validation}
        training = {text.completion for text in split.training}
        assert judging
        assert training
        assert not judging & training
        assert judging | training == set(NOTES[:count])
        assert not judging & trained
        if count > 8:
            trained |= training


def test_too_few_texts_are_refused(model: PersonalModel) -> None:
    model.remember(NOTES[:3])
    with pytest.raises(TooFewTexts, match="3 texts are remembered, 4 are needed"):
        model.learn(progress=False)


def test_a_text_is_kept_once(model: PersonalModel) -> None:
    assert model.remember(["one", "two", "one"]) == 2
    assert model.remember(["two", Example("two", "prompt")]) == 1
    with reopened(model) as again:
        assert again.remember(["one"]) == 0
        assert [text.completion for text in again.texts().values()] == ["one", "two", "two"]


def test_no_text_that_trained_judges_after_a_removal(model: PersonalModel) -> None:
    """33 texts have fewer that judge than 32 would: the share is of all that were ever remembered."""
    model.remember([f"A text of number {number}." for number in range(33)])
    before = TextSnapshot.take(model.session.profile).split()
    model.remove_texts(list(model.texts())[:1])
    with reopened(model) as again:
        after = TextSnapshot.take(again.session.profile).split()
    assert not {*after.validation} & {*before.training}
    assert {*after.validation} == {*before.validation} - {Example(completion="A text of number 0.")}


def test_texts_can_be_removed(model: PersonalModel) -> None:
    model.remember(["one", "two", "three"])
    numbers = list(model.texts())
    assert model.remove_texts([numbers[1], 777]) == 1
    with reopened(model) as again:
        assert [text.completion for text in again.texts().values()] == ["one", "three"]
        again.remember(["four"])
        assert len(again.texts()) == 3


@pytest.mark.parametrize("texts", ["one text", [7], [None], 7, [b"bytes"]])
def test_what_is_no_text_is_refused(texts: object, model: PersonalModel) -> None:
    with pytest.raises(InvalidArgument):
        model.remember(texts)  # type: ignore[arg-type]
    assert model.texts() == {}


def test_a_text_that_is_too_long_is_refused_and_nothing_kept(model: PersonalModel) -> None:
    with pytest.raises(TextRefused, match="text 1 has 100,001 characters, more than 100,000"):
        model.remember(["fine", "x" * 100_001])
    assert model.texts() == {}


def test_an_empty_text_is_refused(model: PersonalModel) -> None:
    with pytest.raises(TextRefused, match="text 0 is empty"):
        model.remember([" \n"])


def test_the_oldest_are_dropped_above_the_limit(model: PersonalModel) -> None:
    model.session.profile.texts.max_texts = 20
    model.remember([f"text {number}" for number in range(30)])
    kept = [text.completion for text in model.texts().values()]
    assert kept == [f"text {number}" for number in range(12, 30)]  # nine tenths of the limit


def test_rolling_back_seals_the_older_one_anew(model: PersonalModel, tmp_path: Path) -> None:
    model.remember(NOTES[:12])
    model.learn(progress=False)
    first = Prefix.load(model.export(tmp_path / "first"))
    with pytest.raises(InvalidArgument, match="no version before the one in use"):
        model.roll_back()
    model.remember(NOTES)
    assert model.learn(progress=False).version == 2
    assert Prefix.load(model.export(tmp_path / "second")) != first
    back = model.roll_back()
    assert (back.number, back.how, back.of) == (3, "rolled back", 1)
    assert Prefix.load(model.export(tmp_path / "third")) == first
    with pytest.raises(InvalidArgument, match="no version 9"):
        model.roll_back(9)
    with reopened(model) as again:
        assert [one.number for one in again.versions()] == [1, 2, 3]
        assert Prefix.load(again.export(tmp_path / "fourth")) == first
        assert again.roll_back(2).number == 4


def test_a_few_versions_are_kept(model: PersonalModel) -> None:
    model.remember(NOTES)
    model.learn(progress=False)
    model.remember(["one more text than before"])
    model.learn(progress=False)
    for _ in range(6):
        model.roll_back()
    numbers = [one.number for one in model.versions()]
    assert len(numbers) == 5
    files = sorted((model.status().folder / "versions").iterdir())
    assert [int(path.name[:8]) for path in files] == numbers


def test_exports(model: PersonalModel, tmp_path: Path) -> None:
    model.remember([*NOTES, Example("Grüße", "Prompt: ")])
    with pytest.raises(InvalidArgument, match="nothing was learned yet"):
        model.export(tmp_path / "prefix")
    model.learn(progress=False)
    exported = model.export(tmp_path / "texts", what="texts").read_text("utf-8")
    rows = [json.loads(line) for line in exported.splitlines()]
    assert rows[-1] == {"prompt": "Prompt: ", "completion": "Grüße"}
    assert len(rows) == 25
    assert model.export(tmp_path / "record", what="record").read_bytes()[:4] != b""
    assert (model.export(tmp_path / "peft", what="peft") / "adapter_config.json").is_file()
    with pytest.raises(InvalidArgument, match="is there already"):
        model.export(tmp_path / "record")
    with pytest.raises(InvalidArgument, match="use one of prefix, peft, record, texts"):
        model.export(tmp_path / "new", what="keys")  # type: ignore[arg-type]


def test_another_base_is_refused_until_it_is_wanted(model: PersonalModel, tmp_path: Path) -> None:
    model.remember(NOTES)
    model.learn(progress=False)
    folder = model.status().folder
    model.close()
    other = tiny_models.base("qwen2")
    with PersonalModel.open(folder, unlock=KEY, base=other) as changed:
        with pytest.raises(BaseChanged, match=other.fingerprint[:16]):
            changed.generate("Note", max_new_tokens=2)
        with pytest.raises(BaseChanged):
            changed.learn(progress=False)
        changed.change_base(other)
        with pytest.raises(BaseChanged, match="version 1 was trained on base"):
            changed.generate("Note", max_new_tokens=2)
        assert changed.learn(progress=False).version == 2
        changed.generate("Note", max_new_tokens=2)
        with pytest.raises(BaseChanged):
            changed.roll_back(1)


def test_a_shared_prefix_is_the_start(model: PersonalModel, tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    torch.manual_seed(0)
    shared = Prefix(torch.randn(base.layout.size(5)) * 0.1, base.layout, base.fingerprint)
    model.use_shared(shared.save(tmp_path / "shared"))
    assert model.score(NOTES) == pytest.approx(score(base, [Example(note) for note in NOTES], shared))
    model.remember(NOTES)
    assert model.learn(progress=False).length == 5
    other = tiny_models.base("qwen2")
    foreign = Prefix(torch.zeros(other.layout.size(5)), other.layout, other.fingerprint)
    with pytest.raises(PrefixMismatch):
        model.use_shared(foreign.save(tmp_path / "foreign"))


def test_a_shared_prefix_that_nobody_trained_is_no_start(model: PersonalModel, tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    made = neutral_prefix(base, 5)
    elsewhere = Prefix(made.values * (1 + 1e-5), base.layout, base.fingerprint)  # another processor's sums
    moved = Prefix(made.values + 0.1, base.layout, base.fingerprint)
    assert [is_neutral(base, one) for one in (made, elsewhere, moved)] == [True, True, False]
    model.use_shared(elsewhere.save(tmp_path / "shared"))
    model.remember(NOTES)
    report = model.learn(progress=False)
    assert report.length == PREFIX_LENGTH  # as without any, for as long
    afresh, warm = (default_plan(len(NOTES), warm=warm)[1].passes or 0.0 for warm in (False, True))
    assert afresh > warm
    assert report.steps > warm * len(NOTES) / BATCH


def test_a_budget_of_tokens_is_kept(model: PersonalModel) -> None:
    model.remember(NOTES)
    whole = model.learn(progress=False)
    assert not whole.shortened
    report = model.learn(budget=Budget(tokens=whole.tokens // 3), progress=False)
    assert report.shortened
    assert 0 < report.tokens <= whole.tokens // 3 * 1.2
    with pytest.raises(InvalidArgument, match="below one step"):
        model.learn(budget=Budget(tokens=1), progress=False)


def test_a_budget_of_seconds_is_kept(model: PersonalModel) -> None:
    model.remember(NOTES)
    report = model.learn(budget=Budget(seconds=0.5), progress=False)
    assert report.seconds < 2


def test_a_budget_of_memory_is_kept_or_refused(model: PersonalModel) -> None:
    model.remember(NOTES)
    with pytest.raises(
        InvalidArgument,
        match=r"the budget is 10 MB of memory; this base, with a text of [0-9]+ tokens, needs about",
    ):
        model.learn(budget=Budget(memory_mb=10), progress=False)
    assert model.learn(budget=Budget(memory_mb=4000), progress=False).finished


class Stop(Exception):
    pass


def test_an_interrupted_run_goes_on_to_the_same_bytes(model: PersonalModel, tmp_path: Path) -> None:
    model.remember(NOTES)
    folder = model.status().folder
    model.close()
    shutil.copytree(folder, tmp_path / "copy")

    def stop(done: int, steps: int) -> None:
        if done >= steps // 2:
            raise Stop

    with opened(folder) as first, pytest.raises(Stop):
        first.learn(progress=stop)
    calls: list[int] = []
    with opened(folder) as again:
        assert again.status().interrupted
        report = again.learn(progress=lambda done, steps: calls.append(done))
        assert report.resumed
        assert not again.status().interrupted
        found = Prefix.load(again.export(tmp_path / "resumed"))
    assert 0 < len(calls) < report.steps
    with opened(tmp_path / "copy") as other:
        assert not other.learn(progress=False).resumed
        assert Prefix.load(other.export(tmp_path / "whole")) == found


def test_an_interrupted_run_on_other_texts_starts_anew(model: PersonalModel) -> None:
    model.remember(NOTES)

    def stop(done: int, steps: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        model.learn(progress=stop)
    model.remember(["another text"])
    report = model.learn(progress=False)
    assert not report.resumed
    assert report.finished


def test_out_of_time_is_reported_and_resumed(model: PersonalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.remember(NOTES)
    monkeypatch.setattr(learn_module, "fit_to_budget", lambda budget, base, plan, tokens: plan)
    report = model.learn(budget=Budget(seconds=0.01), progress=False)
    assert not report.finished
    assert math.isnan(report.loss_after)
    assert "learn again to go on" in str(report)
    assert model.status().interrupted
    assert model.learn(progress=False).resumed


def test_many_threads_generate_while_one_learns(model: PersonalModel) -> None:
    model.remember(NOTES)
    model.learn(progress=False)
    wanted = model.generate("Note 1", max_new_tokens=6)
    found: list[str] = []
    failed: list[BaseException] = []

    def read() -> None:
        try:
            found.extend(model.generate("Note 1", max_new_tokens=6) for _ in range(5))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    model.remember(["a new text"])
    for thread in threads:
        thread.join()
    assert failed == []
    assert set(found) == {wanted}


def test_a_closed_model_says_so(model: PersonalModel) -> None:
    model.close()
    model.close()
    for call in (
        model.texts,
        model.versions,
        model.status,
        lambda: model.generate("a"),
        lambda: model.learn(),
    ):
        with pytest.raises(ProfileClosed):
            call()


def test_forgetting_leaves_no_folder(model: PersonalModel) -> None:
    model.remember(NOTES)
    model.learn(progress=False)
    folder = model.status().folder
    model.forget()
    assert not folder.exists()
    with pytest.raises(ProfileClosed):
        model.status()
    with pytest.raises(ProfileAbsent):
        opened(folder)


def test_a_profile_is_not_made_over_something(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ProfileExists):
        PersonalModel.create(tmp_path, unlock=KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_wrong_arguments_are_named(model: PersonalModel) -> None:
    with pytest.raises(InvalidArgument, match="did you mean 'max_new_tokens'"):
        model.generate("a", max_new_token=3)
    with pytest.raises(InvalidArgument, match="has its own prefix"):
        model.generate("a", prefix=None)


def test_what_cannot_be_meant_is_named(model: PersonalModel, tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: PersonalModel.create(tmp_path / "a", unlock=KEY, base=3),  # type: ignore[arg-type]
        lambda: PersonalModel.create(tmp_path / "b", unlock=KEY, base="\ud800"),
        lambda: PersonalModel.create(tmp_path / "c", unlock="\ud800"),
        lambda: PersonalModel.open(tmp_path / "d", unlock=KEY, base="a name"),  # type: ignore[arg-type]
        lambda: model.change_base(None),  # type: ignore[arg-type]
        lambda: model.score("abc"),
        lambda: model.remember({}),
        lambda: model.remember(b"abc"),  # type: ignore[arg-type]
        lambda: model.remember(Example("abc")),  # type: ignore[arg-type]
        lambda: PersonalModel.create(tmp_path / "e", unlock=KEY, cost=3),  # type: ignore[arg-type]
        lambda: model.remove_texts(3),  # type: ignore[arg-type]
        lambda: model.remove_texts([True]),
        lambda: model.remove_texts("ab"),  # type: ignore[arg-type]
        lambda: model.remove_texts([[]]),  # type: ignore[list-item]
    ]
    for call in calls:
        with pytest.raises(InvalidArgument):
            call()


@pytest.mark.parametrize("odd", ["word " * 3000, "\u200b"])
def test_a_text_that_the_base_cannot_take_is_left_out(odd: str, model: PersonalModel) -> None:
    """It is within what can be remembered; it must not make every `learn` fail."""
    model.remember([*NOTES[:6], odd, *NOTES[6:]])
    report = model.learn(progress=False)
    wanted = (7,) if report.texts + report.judged_on == len(NOTES) else ()
    assert report.skipped == wanted
    assert report.kept
    if odd.startswith("word"):
        assert wanted == (7,)
        assert "does not fit the base and was left out" in str(report)


def test_texts_that_the_base_cannot_take_do_not_count(model: PersonalModel) -> None:
    model.remember([*NOTES[:3], "word " * 3000])
    with pytest.raises(TooFewTexts, match=r"3 texts are remembered \(1 more are too long for the base\), 4"):
        model.learn(progress=False)
