"""The command line: quick help, errors in two lines, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from antefix_simulations import _data
from antefix_simulations.cli import app
from tests import tiny

COMMANDS = [[], ["demo"], ["quality"], ["bench"], ["bench", "train"], ["bench", "serve"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base on disk."""
    path = tmp_path_factory.mktemp("base")
    tiny.model("llama").save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def texts_of(path: Path, counts: dict[str, int]) -> Path:
    rows = [
        {"user": u, "text": f"{u} says {n}", "prompt": "say"}
        for u, many in counts.items()
        for n in range(many)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "antefix-sim")
def test_help_comes_without_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom antefix_simulations.cli import app\n"
        f"try:\n    app([*{words!r}, '--help'], prog_name='antefix-sim')\n"
        "except SystemExit as end:\n    sys.exit(end.code or 3 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Usage: {' '.join(['antefix-sim', *words])}" in done.stdout


@pytest.mark.slow
def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "antefix_simulations", "demo", "--data", "/no/such/file"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "antefix-sim: error: /no/such/file cannot be read: No such file or directory",
        "antefix-sim: hint: check the path and the file",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo", "--base", "no-such-base"], "no-such-base"),
        (["demo", "--device", "nowhere"], "nowhere"),
        (["quality", "--data", "{few}"], "64 users with 88 texts each are wanted"),
        (["demo", "--data", "{few}"], "user 'bo' in {few} has 3 texts, and the demo needs 8 of each"),
        (["demo", "--data", "{one}"], "{one} has one user"),
        (["demo", "--out", "{few}"], "{few} is not a folder"),
        (["quality", "--data", "{few}", "--learning-rate", "0"], "Quality.learning_rate is 0"),
        (["bench", "train", "--data", "/no/such/file"], "/no/such/file cannot be read"),
    ],
)
def test_an_error_is_two_lines_and_exit_code_1(words: list[str], said: str, tmp_path: Path) -> None:
    files = {
        "few": str(texts_of(tmp_path / "few.jsonl", {"al": 9, "bo": 3})),
        "one": str(texts_of(tmp_path / "one.jsonl", {"al": 9})),
    }
    out = [] if "--out" in words or words[0] == "bench" else ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [word.format(**files) for word in words] + out)
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith("antefix-sim: error: ")
    assert said.format(**files) in lines[0]
    assert len(lines) == 1 or lines[1].startswith("antefix-sim: hint: ")
    assert len(lines) <= 2


@pytest.mark.parametrize(
    "words", [["demo", "--users", "1"], ["demo", "--lenght", "8"], ["quality"], ["bench", "fly"], ["party"]]
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_an_interrupt_is_one_line_and_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_data, "read_users", interrupted)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 130
    assert result.stderr == "antefix-sim: interrupted\n"


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(_data, "read_users", broken)
    assert isinstance(CliRunner().invoke(app, ["demo"]).exception, ZeroDivisionError)


def test_demo_prints_results_to_stdout_and_progress_to_stderr(folder: Path, tmp_path: Path) -> None:
    data = texts_of(tmp_path / "texts.jsonl", {"al": 8, "bo": 9})
    words = [
        "demo",
        "--data",
        str(data),
        "--base",
        str(folder),
        "--out",
        str(tmp_path / "out"),
        "--steps",
        "1",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "Own beats shared for" in result.stdout
    assert "training" not in result.stdout.replace("training texts", "")
    assert "antefix-sim: training a shared prefix on texts of 1 of the 2 users" in result.stderr
    again = CliRunner().invoke(app, [*words, "--json"])
    assert "will be replaced" in again.stderr
    assert [user["user"] for user in json.loads(again.stdout)["users"]] == ["al", "bo"]


def test_quality_prints_a_table_and_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    data, out = texts_of(tmp_path / "texts.jsonl", {"al": 6, "bo": 6, "cy": 6}), tmp_path / "out"
    sizes = "--users 2 --shared-users 1 --train-texts 4 --held-out 2 --others 1 --length 3 --context 64"
    words = ["quality", "--data", str(data), "--base", str(folder), "--out", str(out), *sizes.split()]
    result = CliRunner().invoke(app, [*words, "--seeds", "1", "--passes", "1", "--lone"])
    assert result.exit_code == 0, result.output
    assert "private, from the shared one" in result.stdout
    assert "private, from own texts alone" in result.stdout
    assert json.loads((out / "report.json").read_text())["settings"]["train_texts"] == 4
    other = CliRunner().invoke(app, [*words, "--seeds", "1", "--passes", "2"])
    assert other.exit_code == 1
    assert "is of a run with another passes: 1.0, now 2.0" in other.stderr
