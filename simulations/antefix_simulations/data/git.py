"""Texts from the history of a git repository: its authors' commit messages, after the names of the files."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import IO

from antefix import Example
from antefix_simulations.data.jsonl import time_of
from antefix_simulations.data.text import Text
from antefix_simulations.data.user_texts import DataRefused

__all__ = ["read_git"]

_MOST_FILES = 12
# Messages and names may hold any letter but the zero byte, and no file is called //.
_NEXT = "//"
_FORMAT = f"{_NEXT}%x00%aN <%aE>%x00%aI%x00%B"  # mailmap's names


def read_git(folder: Path) -> Iterator[Text]:
    """Every commit that is no merge, oldest first.

    Raises:
        DataRefused: no repository, or no git.
    """
    words = ["git", "-C", str(folder), "-c", "log.showSignature=false", "log", "--no-merges", "--reverse"]
    words += ["--encoding=UTF-8", "-z", "--name-only", f"--format={_FORMAT}"]
    try:
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", errors="replace"
            ) as running,
        ):
            yield from _commits(_pieces(running.stdout))
            code = running.wait()
            errors.seek(0)
            why = errors.read(200).strip()
    except FileNotFoundError:
        raise DataRefused("git is not installed", "install it, or give JSON lines") from None
    if code:
        raise DataRefused(f"{folder} has no history: {why}", "give the folder of a repository")


def _pieces(output: IO[str] | None) -> Iterator[str]:
    """What is between zero bytes."""
    rest = ""
    while output is not None and (more := output.read(1 << 16)):
        *whole, rest = (rest + more).split("\0")
        yield from whole


def _commits(pieces: Iterator[str]) -> Iterator[Text]:
    next(pieces, None)
    while len(head := list(islice(pieces, 3))) == 3:
        author, when, message = head
        yield _commit(author, when, message, list(takewhile(lambda piece: piece != _NEXT, pieces)))


def _commit(author: str, when: str, message: str, files: Sequence[str]) -> Text:
    names = " ".join(name.removeprefix("\n") for name in files[:_MOST_FILES])
    return Text(author, time_of(when), Example(message.strip(), names + "\n" if names else ""))
