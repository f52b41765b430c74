"""The README is run, not only read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from antefix import FrozenBase
from tests.client.people import NOTES
from tests.help_pages import commands, help_of, said


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_something_to_type_stands_in_the_first_twenty_lines(repository: Path) -> None:
    head = (repository / "README.md").read_text().splitlines()[:20]
    assert any(line.startswith("make demo") for line in head)
    assert any(line.startswith("make test") for line in head)


def test_every_make_target_it_names_exists(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", (repository / "README.md").read_text()))
    assert named <= targets


def test_every_link_leads_somewhere(repository: Path) -> None:
    for page in [repository / "README.md", *repository.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.slow
def test_the_page_of_commands_says_what_help_says(repository: Path) -> None:
    page = (repository / "docs" / "commands.md").read_text()
    found = re.findall(r"^## ([^\n]+)\n\n```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    shown = {tuple(title.split()): text for title, text in found}
    assert list(shown) == list(commands())
    for words, text in shown.items():
        assert said(text) == said(help_of(words)), f"{' '.join(words)} has changed: make docs"


def test_every_command_that_a_page_names_exists(repository: Path) -> None:
    known = {words[:2] for words in commands()}
    for page in [repository / "README.md", *repository.glob("docs/**/*.md")]:
        for named in re.findall(r"antefix-(?:sim|server)(?: [a-z]+)?", page.read_text()):
            assert tuple(named.split()) in known, f"{page.name} names {named!r}"


@pytest.mark.real
@pytest.mark.slow
def test_every_python_block_runs(repository: Path, tmp_path: Path) -> None:
    FrozenBase.load("smollm2-135m-q4", progress=False)  # its first fetch takes longer than the block may
    (tmp_path / "notes.txt").write_text("\n\n".join(NOTES), "utf-8")
    for block in blocks((repository / "README.md").read_text(), "python"):
        done = subprocess.run(
            [sys.executable, "-c", block],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
