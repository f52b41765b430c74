"""Pieces of Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; an empty one is no text at all."""
    lines = [_row(row) for row in rows]
    return "\n".join([_row(head), _row(["---"] * len(head)), *lines]) + "\n" if lines else ""


def code(text: object) -> str:
    """Text as code; nothing stays nothing."""
    return f"`{text}`" if str(text) else ""


def plain(text: str | None) -> str:
    """Text of a docstring or a help on one line, in which no HTML is read."""
    parts = re.split(r"(`[^`]*`)", " ".join((text or "").split()))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def attributes(docstring: str) -> dict[str, str]:
    """What the section `Attributes` of a docstring says of each; several names may share a line."""
    _, _, section = inspect.cleandoc(docstring).partition("Attributes:\n")
    found = {}
    for names, text in re.findall(r"^    (\w[\w,\s]*?):\s+(.+(?:\n {8}.+)*)", section, re.MULTILINE):
        found.update(dict.fromkeys(re.split(r"[,\s]+", names), text))
    return found


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
