"""The quality study on a tiny base: who takes part, what is scored, and that it goes on."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antefix import Example, score
from antefix._examples import encode
from antefix.errors import InvalidArgument, TextTooLong
from antefix_simulations import _quality
from antefix_simulations._bootstrap import interval
from antefix_simulations._data import DataRefused
from antefix_simulations._in_context import examples_that_fit
from antefix_simulations._ledger import Key, Ledger
from antefix_simulations._panel import Panel, choose_panel, read_by_date
from antefix_simulations._quality import Quality, rotation, run_quality
from antefix_simulations._quality_report import report
from tests import tiny

NAMES = [f"user {number}" for number in range(9)]
SMALL = Quality(
    users=5,
    shared_users=3,
    train_texts=4,
    held_out=2,
    seeds=2,
    length=3,
    passes=1,
    shared_passes=1,
    others=2,
    context=64,
    lone=True,
)


def texts(user: str, count: int) -> list[Example]:
    return [Example(f"{user} wrote {number}", "write\n") for number in range(count)]


def small_panel() -> Panel:
    """`user 2` has too few texts; `user 0` and the last have more than are wanted."""
    counts = {0: 9, 2: 5, 8: 7}
    users = {name: texts(name, counts.get(number, 6)) for number, name in enumerate(NAMES)}
    return choose_panel(users, SMALL, "x")


def study(out: Path, settings: Quality = SMALL) -> Ledger:
    return run_quality(tiny.base("llama"), small_panel(), settings, out, progress=False)


def test_nobody_is_evaluated_who_trains_the_shared_prefix() -> None:
    panel = small_panel()
    assert list(panel.evaluated) == ["user 0", "user 1", "user 3", "user 4", "user 5"]
    assert list(panel.contributors) == ["user 6", "user 7", "user 8"]


def test_the_newest_texts_are_held_out_and_those_right_before_train() -> None:
    split = small_panel().evaluated["user 0"]
    assert [example.completion[-1] for example in split.training] == ["3", "4", "5", "6"]
    assert [example.completion[-1] for example in split.held_out] == ["7", "8"]
    assert [example.completion[-1] for example in small_panel().contributors["user 8"]] == [
        "1",
        "2",
        "3",
        "4",
    ]


def test_too_few_users_are_refused_with_both_numbers() -> None:
    users = {name: texts(name, 6) for name in NAMES[:7]}
    with pytest.raises(DataRefused, match=r"8 users with 6 texts each are wanted .* x has 7 of 7"):
        choose_panel(users, SMALL, "x")


def test_texts_are_sorted_by_date_where_there_is_one(tmp_path: Path) -> None:
    rows = [
        {"user": "a", "text": "third", "date": "2024-03-01"},
        {"user": "b", "text": "one", "date": "2024-03-01"},
        {"user": "a", "text": "first", "date": "2023-12-31"},
        {"user": "a", "text": "second", "date": "2023-12-31"},
        {"user": "b", "text": "two"},
    ]
    path = tmp_path / "dated.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    users = read_by_date(path)
    assert [example.completion for example in users["a"]] == ["first", "second", "third"]
    assert [example.completion for example in users["b"]] == ["one", "two"]


def test_held_out_texts_are_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: dict[str, set[str]] = {}

    def watch(name: str) -> None:
        real: Any = getattr(_quality, name)

        def watched(base: object, examples: Mapping[str, Iterable[Example]], *rest: Any, **words: Any) -> Any:
            found = {example.completion for those in examples.values() for example in those}
            trained.setdefault(name, set()).update(found)
            return real(base, examples, *rest, **words)

        monkeypatch.setattr(_quality, name, watched)

    watch("train")
    watch("train_shared")
    study(tmp_path)
    panel = small_panel()
    own = {example.completion for split in panel.evaluated.values() for example in split.training}
    held_out = {example.completion for split in panel.evaluated.values() for example in split.held_out}
    assert trained["train"] == own
    assert trained["train_shared"] == {e.completion for those in panel.contributors.values() for e in those}
    assert held_out.isdisjoint(trained["train"] | trained["train_shared"])


def test_every_arm_has_a_result_for_everyone(tmp_path: Path) -> None:
    ledger = study(tmp_path)
    users = list(small_panel().evaluated)
    wanted: set[Key] = {(arm, None, user) for arm in ("none", "in_context") for user in users}
    wanted |= {(arm, s, u) for arm in ("shared", "own", "others", "lone") for s in (0, 1) for u in users}
    assert set(ledger.lines) == wanted
    assert all(line["nats_per_token"] > 0 for line in ledger.lines.values())
    found = report(ledger, SMALL)
    assert set(found.losses) == {"none", "in_context", "shared", "lone", "own", "others"}
    assert set(found.as_json()["gains"]) == {
        "shared - own",
        "others - own",
        "in_context - own",
        "in_context - shared",
        "none - shared",
        "lone - own",
    }
    assert "Own beats the mean of 2 others'" in found.as_text()
    assert all(line.isprintable() for line in found.as_text().splitlines())


def test_in_context_examples_can_be_left_to_few_users_or_none(tmp_path: Path) -> None:
    few = SMALL.model_copy(update={"seeds": 1, "lone": False, "in_context_users": 2})
    found = report(study(tmp_path / "few", few), few)
    assert list(found.losses["in_context"]) == ["user 0", "user 1"]
    none = few.model_copy(update={"in_context_users": 0})
    found = report(study(tmp_path / "none", none), none)
    assert "in_context" not in found.losses
    assert found.texts_in_context is None
    assert "In context" not in found.as_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[Key, dict[str, Any]]:
    """Results of a run that nothing interrupted."""
    return study(tmp_path_factory.mktemp("whole")).lines


@pytest.mark.parametrize("after", [4, 14])
def test_an_interrupted_run_goes_on_where_it_was(
    after: int, whole: dict[Key, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _quality.__dict__["score"]
    calls = 0

    def interrupted(*words: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return real(*words)

    monkeypatch.setattr(_quality, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "cut")
    before = (tmp_path / "cut" / "metrics.jsonl").read_text()
    (tmp_path / "cut" / "metrics.jsonl").write_text(before + '{"arm": "half a li')
    monkeypatch.setattr(_quality, "score", real)
    assert study(tmp_path / "cut").lines == whole
    after_all = (tmp_path / "cut" / "metrics.jsonl").read_text()
    assert after_all.startswith(before)
    assert len(after_all.splitlines()) == 1 + len(whole)


def test_a_finished_run_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = study(tmp_path).lines
    for name in ("score", "train", "train_shared"):
        monkeypatch.delattr(_quality, name)
    assert study(tmp_path).lines == whole


def test_a_run_can_be_given_more_seeds_but_not_other_texts(tmp_path: Path) -> None:
    one = SMALL.model_copy(update={"seeds": 1, "lone": False})
    first = study(tmp_path, one).lines
    assert first.items() <= study(tmp_path, SMALL).lines.items()
    panel = small_panel()
    panel.evaluated["user 0"].training[0] = Example("something else", "write\n")
    with pytest.raises(InvalidArgument, match="of a run with another texts"):
        run_quality(tiny.base("llama"), panel, SMALL, tmp_path, progress=False)


def test_metrics_of_something_else_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"run": "demo"}\n{"prefix": "a"}\n')
    with pytest.raises(InvalidArgument, match="not the metrics of a quality run"):
        study(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"run": "demo"}\n{"prefix": "a"}\n'


def test_more_others_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="others is 5 and there are 5 users"):
        study(tmp_path, SMALL.model_copy(update={"others": 5}))


def test_the_newest_examples_that_fit_stand_in_front_of_a_text() -> None:
    base = tiny.base("llama")
    training, held_out = texts("a", 9), [Example("goal", "last prompt\n"), Example("g", "p")]
    found = examples_that_fit(base, training, held_out, 100)
    assert 1 < found.texts < 9
    front = "".join(f"{each.prompt}{each.completion}</s>" for each in training[9 - found.texts :])
    assert base.tokenizer.decode(found.tokens) == front
    longest = encode(base, held_out[0], None).tokens
    assert len(found.tokens) + longest <= 100
    more = encode(base, training[8 - found.texts], None).tokens + 1
    assert len(found.tokens) + more + longest > 100
    assert examples_that_fit(base, training, held_out, 64).texts < found.texts


def test_examples_in_front_are_read_as_one_text() -> None:
    base = tiny.base("llama")
    training, goal = texts("a", 3), Example("goal", "last prompt\n")
    found = examples_that_fit(base, training, [goal], None)
    assert found.texts == 3
    ids = torch.tensor([[*found.tokens, *encode(base, goal, None).inputs]])
    targets = torch.tensor(encode(base, goal, None).targets)
    logits = tiny.model("llama")(ids).logits[0, -len(targets) :]
    expected = torch.nn.functional.cross_entropy(logits, targets).item()
    assert score(base, [goal], found.prefix(base)) == pytest.approx(expected, abs=1e-5)
    assert examples_that_fit(base, training, [goal], 20).prefix(base) is None


def test_more_context_than_the_base_has_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="context is 512, and base 'tiny-llama' sees 256"):
        examples_that_fit(tiny.base("llama"), texts("a", 2), texts("b", 1), 512)


def test_everybody_reads_others_and_is_read_as_often() -> None:
    users = [f"u{number}" for number in range(7)]
    readers = rotation(users, 3, seed=1)
    assert set(readers) == set(users)
    assert all(user not in others and len(set(others)) == 3 for user, others in readers.items())
    assert all(sum(user in others for others in readers.values()) == 3 for user in users)
    assert rotation(users, 3, seed=1) == readers
    assert rotation(users, 3, seed=2) != readers


def test_the_interval_of_known_numbers() -> None:
    same = interval([0.5] * 10)
    assert (same.mean, same.low, same.high) == (0.5, 0.5, 0.5)
    values = np.arange(100.0)
    found = interval(list(values))
    margin = 1.96 * values.std() / 10  # the mean of 100 is as good as normal
    assert found.mean == 49.5
    assert found.low == pytest.approx(49.5 - margin, abs=0.3)
    assert found.high == pytest.approx(49.5 + margin, abs=0.3)
    assert found.excludes_zero
    assert not interval([-1.0, 1.0, -2.0, 2.0]).excludes_zero
    assert interval([1.0, 2.0, 4.0]) == interval([1.0, 2.0, 4.0])


def test_seeds_are_averaged_within_a_user_first(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"seeds": 2})
    ledger = Ledger(tmp_path, {"run": "quality"})
    for user, gain in [("a", 0.1), ("b", 0.3), ("c", -0.1)]:
        for seed in (0, 1, 2):  # the third is of an earlier run with more seeds
            ledger.add("shared", seed, user, 2.0 + seed)
            ledger.add("own", seed, user, 2.0 + seed - gain)
            ledger.add("others", seed, user, 2.0 + seed)
    found = report(ledger, settings)
    assert found.losses["shared"] == {"a": 2.5, "b": 2.5, "c": 2.5}
    assert found.gains["shared", "own"].mean == pytest.approx(0.1)
    assert found.own_wins == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"context": 100_000}, InvalidArgument),
        ({"others": 9}, InvalidArgument),
        ({"length": 254}, TextTooLong),
        ({"passes": 1e300}, InvalidArgument),
        ({"shared_batch_size": 2**40}, InvalidArgument),
    ],
)
def test_settings_that_do_not_work_leave_no_run_behind(
    change: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    """Else the right ones would be refused in that folder, as another run."""
    out = tmp_path / "run"
    with pytest.raises(error):
        study(out, Quality(**{**SMALL.model_dump(), **change}))
    assert not out.exists()


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{}\n", b'{"run": "quality"}\n{"arm": "own", "seed": 0, "user": "a"}\n']
)
def test_a_ledger_of_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(InvalidArgument, match="is not the metrics of a quality run"):
        study(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == content


def test_prefixes_that_diverged_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    settings = Quality(**{**SMALL.model_dump(), "learning_rate": 1e38, "passes": 4, "seeds": 1})
    run_quality(tiny.base("llama"), small_panel(), settings, tmp_path, say=said.append, progress=False)
    assert "seed 0: 5 of 5 prefixes diverged, and count as their start" in said
