"""Text that reads well in a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence


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


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Rows as lines with columns of equal width, all but the first `left` of them flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
