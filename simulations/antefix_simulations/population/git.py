"""Texts from the history of a git repository: its authors' commit messages, after the names of the files."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from antefix import Example
from antefix_simulations._data import DataRefused
from antefix_simulations.population.lines import time_of
from antefix_simulations.population.text import Text

__all__ = ["read_git"]

_MOST_FILES = 12
_FORMAT = "%x01%aN <%aE>%x02%aI%x02%B%x02"  # mailmap's names; no such letters are in a message that git shows


def read_git(folder: Path) -> Iterator[Text]:
    """Every commit that is no merge, oldest first.

    Raises:
        DataRefused: no repository, or no git.
    """
    words = [
        "git",
        "-C",
        str(folder),
        "log",
        "--no-merges",
        "--reverse",
        "--name-only",
        f"--format={_FORMAT}",
    ]
    try:
        with (
            tempfile.TemporaryFile("w+", errors="replace") as said,
            subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=said, text=True, errors="replace"
            ) as running,
        ):
            yield from map(_commit, _pieces(running.stdout or iter(())))
            code = running.wait()
            said.seek(0)
            why = said.read(200).strip()
    except FileNotFoundError:
        raise DataRefused("git is not installed", "install it, or give JSON lines") from None
    if code:
        raise DataRefused(f"{folder} has no history: {why}", "give the folder of a repository")


def _pieces(lines: Iterable[str]) -> Iterator[str]:
    """The text of one commit after the other."""
    held: list[str] = []
    for line in lines:
        if line.startswith("\x01") and held:
            yield "".join(held)
            held = []
        held.append(line)
    if held:
        yield "".join(held)


def _commit(piece: str) -> Text:
    author, when, message, files = piece.removeprefix("\x01").split("\x02", 3)
    names = " ".join([name for name in files.split("\n") if name][:_MOST_FILES])
    return Text(author, time_of(when), Example(message.strip(), names + "\n" if names else ""))
