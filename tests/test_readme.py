"""The README is run, not only read. What else it names is held to by `test_docs`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from antefix import FrozenBase

LINES, WIDTH = 80, 120


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_something_to_type_stands_in_the_first_twenty_lines(repository: Path) -> None:
    head = "\n".join((repository / "README.md").read_text("utf-8").splitlines()[:20])
    assert "\n```sh\npip install " in head
    assert "make demo" in head
    assert "make test" in head


def test_it_is_short(repository: Path) -> None:
    lines = (repository / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= LINES
    assert [line for line in lines if len(line) > WIDTH] == []


@pytest.mark.real
@pytest.mark.slow
def test_its_python_runs(repository: Path, tmp_path: Path) -> None:
    """As one program, since the second block uses names of the first; with few steps, unless thorough."""
    program = "\n".join(blocks((repository / "README.md").read_text("utf-8"), "python"))
    assert "max_steps=60" in program
    if "ANTEFIX_THOROUGH" not in os.environ:
        program = program.replace("max_steps=60", "max_steps=6")
    FrozenBase.load("smollm2-135m-q4", progress=False)  # its first fetch takes longer than the program may
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Version 1, learned from ")
    assert re.findall(r"^(\w+): ", done.stdout, re.MULTILINE) == ["mira", "petra", "rosie"]
