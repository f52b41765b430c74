"""The command line: quick help, errors in two lines, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from antefix_simulations import settings
from antefix_simulations.cli import app
from tests.support import tiny_models

pytestmark = pytest.mark.slow

COMMANDS = [[], ["demo"], ["run"], ["bench"], ["bench", "train"], ["bench", "serve"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base on disk."""
    path = tmp_path_factory.mktemp("base")
    tiny_models.model("llama").save_pretrained(path)
    tiny_models.tokenizer().save_pretrained(path)
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
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert f"Usage: {' '.join(['antefix-sim', *words])}" in done.stdout


@pytest.mark.slow
def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "antefix_simulations", "demo", "--data", "/no/such/file"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
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
        (
            ["demo", "--base", "{base}", "--data", "{few}"],
            "1 users with 8 training texts are wanted, {few} has 0 of 2",
        ),
        (["demo", "--base", "{base}", "--data", "{one}"], "{one} has 1 users, the demo tells of 2 to 32"),
        (["demo", "--base", "{base}", "--out", "{few}"], "{few} is not a folder"),
        (["demo", "-c", "private-learning-rate=0"], "private-learning-rate"),
        (["bench", "train", "--data", "/no/such/file"], "/no/such/file cannot be read"),
    ],
)
def test_an_error_is_two_lines_and_exit_code_1(
    words: list[str], said: str, folder: Path, tmp_path: Path
) -> None:
    files = {
        "base": str(folder),
        "few": str(texts_of(tmp_path / "few.jsonl", {"al": 9, "bo": 3})),
        "one": str(texts_of(tmp_path / "one.jsonl", {"al": 19})),
    }
    out = [] if "--out" in words or words[0] == "bench" else ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [word.format(**files) for word in words] + out)
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    while not lines[0].startswith("antefix-sim: error: "):
        lines.pop(0)  # what was taken of the texts
    assert said.format(**files) in lines[0]
    assert len(lines) == 1 or lines[1].startswith("antefix-sim: hint: ")
    assert len(lines) <= 2


@pytest.mark.parametrize(
    "words", [["demo", "--users", "-1"], ["demo", "--lenght", "8"], ["bench", "fly"], ["party"]]
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_an_interrupt_is_one_line_and_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(settings.RunSettings, "read", interrupted)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 130
    assert result.stderr == "antefix-sim: interrupted\n"


def test_an_interrupted_run_says_that_it_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("antefix_simulations.run.driver.Run.go", interrupted)
    result = CliRunner().invoke(app, ["run", "--base", str(folder), "--out", str(tmp_path)])
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-2:] == [
        f"what is finished is in {tmp_path}; the same command goes on",
        "antefix-sim: interrupted",
    ]


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(settings.RunSettings, "read", broken)
    assert isinstance(CliRunner().invoke(app, ["demo"]).exception, ZeroDivisionError)


@pytest.mark.slow
def test_demo_prints_results_to_stdout_and_progress_to_stderr(folder: Path, tmp_path: Path) -> None:
    data = texts_of(tmp_path / "texts.jsonl", {"al": 16, "bo": 17})
    words = ["demo", "--data", str(data), "--base", str(folder), "--out", str(tmp_path / "out")]
    words += ["-c", "num-server-rounds=1", "-c", "steps=1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "Own beats shared for" in result.stdout
    assert "antefix-sim: removing one user" in result.stderr
    again = CliRunner().invoke(app, [*words, "--json"])
    assert "is replaced" in again.stderr
    assert {user["user"] for user in json.loads(again.stdout)["users"]} == {"al", "bo"}
