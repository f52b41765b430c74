"""The demo, whole, on a tiny base; and once on the real one."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from antefix import Example, Prefix
from antefix.errors import EmptyText, InvalidArgument, TextTooLong
from antefix_simulations import _demo, _demo_report
from antefix_simulations._data import SAMPLE, DataRefused, read_users
from antefix_simulations._demo import Demo, DemoResult, Writer, choose_writers, run_demo
from antefix_simulations._heatmap import draw
from antefix_simulations._losses import Losses
from antefix_simulations._output import file_stem, require_usable
from antefix_simulations._terminal import aligned, printable
from tests import tiny

ODD = ["otto", "OTTO", "shared", "../../etc/passwd", "Zoë $x_1$ \U0001f642\n\x1b[31m", "-rf", ""]
SMALL = Demo(length=3, steps=2, new_tokens=4)


def texts(user: str, count: int = 8) -> list[Example]:
    return [Example(f"{user} {number} was here", "Who was here?\n") for number in range(count)]


def small_demo(names: list[str]) -> DemoResult:
    users = {name: texts(f"u{number}") for number, name in enumerate(names)}
    return run_demo(tiny.base("llama"), choose_writers(users, SMALL, "x"), SMALL, progress=False)


@pytest.fixture(scope="module")
def result() -> DemoResult:
    return small_demo(ODD)


def test_every_file_is_written_whatever_users_are_called(result: DemoResult, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "demo"
    sizes = _demo_report.write(result, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(_demo_report.files(ODD))
    assert len(list(out.glob("*.safetensors"))) == len(ODD) + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]
    assert (out / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert all((path.stat().st_mode & 0o077) == 0 for path in out.iterdir())
    for user in ODD:
        path = out / f"{file_stem(user)}.safetensors"
        assert Prefix.load(path) == result.private[user].prefix
        assert path.stat().st_size == sizes[user]


def test_metrics_hold_the_whole_table(result: DemoResult, tmp_path: Path) -> None:
    _demo_report.write(result, tmp_path)
    run, *lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert run["run"] == "demo"
    assert run["users"] == ODD
    assert run["shared_users"] == ODD[:3]
    files = {line["user"]: line["prefix"] for line in lines if "prefix" in line}
    assert files == {None: "shared.safetensors"} | {u: f"{file_stem(u)}.safetensors" for u in ODD}
    table = {line["user"]: line for line in lines if "held_out_texts" in line}
    assert list(table) == ODD
    for user, line in table.items():
        others = [loss for other, loss in line["by_prefix"].items() if other != user]
        assert line["own"] == line["by_prefix"][user]
        assert line["others"] == pytest.approx(fmean(others))
        assert line["none"] > 0
        assert line["shared"] > 0
        assert line["held_out_texts"] == 2
    assert set(lines[-1]) == {"prompt", "none", "shared", "private"}
    assert len(lines[-1]["private"]) == 2


def test_the_printed_table_has_a_line_for_everyone(result: DemoResult, tmp_path: Path) -> None:
    sizes = _demo_report.write(result, tmp_path)
    lines = _demo_report.as_text(result, sizes, tmp_path).splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("user "))
    assert [line.split()[-1] for line in lines[head + 1 : head + 8]] == [f"{sizes[u]:,}" for u in ODD]
    assert [line.partition("  ")[0].endswith("*") for line in lines[head + 1 : head + 8]] == [True] * 3 + [
        False
    ] * 4
    assert "these 3 of 7 users" in "".join(lines)
    assert all(line.isprintable() for line in lines)


def test_held_out_texts_are_never_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Example] = []

    def watch(name: str) -> None:
        train: Any = getattr(_demo, name)

        def watched(base: object, examples: Mapping[str, Iterable[Example]], *rest: Any, **words: Any) -> Any:
            seen.extend(example for those in examples.values() for example in those)
            return train(base, examples, *rest, **words)

        monkeypatch.setattr(_demo, name, watched)

    watch("train")
    watch("train_shared")
    held_out = {e.completion for w in small_demo(["a", "b"]).writers.values() for e in w.held_out}
    assert held_out == {"u0 6 was here", "u0 7 was here", "u1 6 was here", "u1 7 was here"}
    assert len(seen) == 6 + 12
    assert held_out.isdisjoint(example.completion for example in seen)


def test_the_same_seed_gives_the_same_prefixes(result: DemoResult) -> None:
    again = small_demo(ODD)
    assert {u: t.prefix for u, t in again.private.items()} == {u: t.prefix for u, t in result.private.items()}
    assert again.losses == result.losses


def test_only_the_first_half_trains_the_shared_prefix() -> None:
    users = {name: texts(name) for name in "abcde"}
    assert [w.in_shared for w in choose_writers(users, Demo(), "x").values()] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert list(choose_writers(users, Demo(users=3), "x")) == ["a", "b", "c"]


def test_the_last_quarter_of_the_last_texts_is_held_out() -> None:
    users = {"a": texts("a", 100), "b": texts("b", 9)}
    writers = choose_writers(users, Demo(texts=40), "x")
    assert writers["a"].training == users["a"][60:90]
    assert writers["a"].held_out == users["a"][90:]
    assert writers["b"].held_out == users["b"][7:]


def test_too_few_users_or_texts_are_refused() -> None:
    with pytest.raises(DataRefused, match="f has one user"):
        choose_writers({"a": texts("a")}, Demo(), "f")
    with pytest.raises(DataRefused, match="user 'b' in f has 7 texts, and the demo needs 8"):
        choose_writers({"a": texts("a"), "b": texts("b", 7)}, Demo(), "f")


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        (Example("word " * 300), TextTooLong),
        (Example(" "), EmptyText),
        (Example("x", "ask " * 30), TextTooLong),
    ],
)
def test_held_out_texts_are_checked_before_anything_is_trained(
    held_out: Example, said: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_demo, "train_shared", lambda *_, **__: pytest.fail("something was trained"))
    users = {"a": texts("a"), "b": [*texts("b", 7), held_out]}
    settings = Demo(length=3, steps=1, new_tokens=240)
    with pytest.raises(said, match="of user 'b'"):
        run_demo(tiny.base("llama"), choose_writers(users, settings, "x"), settings, progress=False)


def test_a_training_that_diverged_is_told(result: DemoResult, tmp_path: Path) -> None:
    assert "diverged, and" not in _demo_report.as_text(result, dict.fromkeys(ODD, 1), tmp_path)
    private = {**result.private, "otto": replace(result.private["otto"], diverged=True)}
    lost = replace(result, private=private)
    told = "Training at learning rate 0.01 diverged, and the start was kept, for otto."
    assert told in _demo_report.as_text(lost, dict.fromkeys(ODD, 1), tmp_path)
    lines = _demo_report.records(lost, dict.fromkeys(ODD, 1), 1)
    assert [line["user"] for line in lines if line.get("diverged")] == ["otto"]


def test_a_prompt_that_neither_was_trained_on_is_preferred() -> None:
    first = Writer([Example("x", "known\n")], [Example("x", "also known\n"), Example("x", "new\n")], True)
    second = Writer([Example("x", "also known\n")], [Example("x", "known\n")], False)
    assert _demo._unseen_prompt([first, second]) == "new\n"
    assert _demo._unseen_prompt([second, second]) == "known\n"


def test_the_pair_that_loses_most_by_a_swap_is_shown() -> None:
    private = {
        "a": {"a": 1.0, "b": 1.1, "c": 2.0},
        "b": {"a": 1.1, "b": 1.0, "c": 1.2},
        "c": {"a": 1.9, "b": 1.2, "c": 1.0},
    }
    losses = Losses(dict.fromkeys("abc", 3.0), dict.fromkeys("abc", 2.0), private)
    assert losses.most_unlike() == ("a", "c")
    assert losses.others("a") == pytest.approx(1.55)


def test_file_names_are_plain_and_never_shared() -> None:
    names = [*ODD, "\ud800", "a/b", "a\\b", "a b", "x" * 300, "CON", ".", ".."]
    stems = [file_stem(name) for name in names]
    assert file_stem("otto") == "otto"
    assert len({stem.lower() for stem in stems}) == len(names)
    assert all(len(stem) <= 60 and stem.replace("-", "").replace("_", "").isalnum() for stem in stems)
    assert all(stem.isascii() and not stem.startswith("-") for stem in stems)


def test_a_folder_with_files_of_something_else_is_refused(result: DemoResult, tmp_path: Path) -> None:
    names = _demo_report.files(["otto"])
    assert require_usable(tmp_path, names, "demo") is False
    (tmp_path / "notes.txt").write_text("mine")
    assert require_usable(tmp_path, names, "demo") is False
    (tmp_path / "otto.safetensors").write_bytes(b"mine")
    with pytest.raises(InvalidArgument, match=r"already has otto\.safetensors, and no earlier demo wrote it"):
        require_usable(tmp_path, names, "demo")
    (tmp_path / "otto.safetensors").unlink()
    _demo_report.write(result, tmp_path)
    assert require_usable(tmp_path, names, "demo") is True
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_many_users_still_make_a_picture() -> None:
    names = [f"user {number} with a long name" for number in range(30)]
    losses = [[float((row * column) % 7) for column in range(32)] for row in range(30)]
    assert draw("t", names, ["no prefix", "shared"], losses).startswith(b"\x89PNG")
    assert draw("t", ["a", "b"], ["no prefix", "shared"], [[1.0] * 4] * 2).startswith(b"\x89PNG")


def test_lines_for_a_terminal_cannot_steer_it() -> None:
    assert printable("a\x1b[31m\nb") == "a [31m b"
    assert printable("abcdef", 4) == "abc…"
    assert aligned([["a", "1"], ["bcd", "22"]]) == ["a     1", "bcd  22"]


def test_the_sample_suits_the_demo() -> None:
    writers = choose_writers(read_users(SAMPLE), Demo(), SAMPLE)
    assert {(len(writer.training), len(writer.held_out)) for writer in writers.values()} == {(30, 10)}
    assert len(writers) == 8


@pytest.mark.real
@pytest.mark.slow
def test_real_prefixes_suit_their_own_writers_best(tmp_path: Path) -> None:
    words = ["demo", "--users", "4", "--steps", "6", "--out", str(tmp_path), "--json"]
    command = [sys.executable, "-m", "antefix_simulations", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    users = json.loads(done.stdout)["users"]
    assert fmean(user["own"] for user in users) < fmean(user["others"] for user in users)
    assert fmean(user["own"] for user in users) < fmean(user["none"] for user in users)
    assert (tmp_path / "heatmap.png").stat().st_size > 10_000


def test_steps_are_as_asked(result: DemoResult) -> None:
    assert {trained.steps for trained in [result.shared, *result.private.values()]} == {2}
