"""Text that reads well in a terminal and in a pipe."""

from __future__ import annotations


def printable(text: str, width: int | None = None) -> str:
    """One line without control characters, which in a name or an answer could steer the terminal.

    Args:
        text: anything.
        width: cut to that many characters, the last one an ellipsis.
    """
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 user`, `2,000 users`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
