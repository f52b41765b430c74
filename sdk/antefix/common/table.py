"""Tables of commands: on a terminal by rich, elsewhere plain and whole, for `cut` and `grep`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["align", "table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text of a table for stdout.

    Args:
        head: names of the columns.
        rows: each as long as the head. What could steer the terminal is replaced: devices name themselves.
    """
    rows = [["".join(sign if sign.isprintable() else "?" for sign in cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        return _by_rich(head, rows)
    return "\n".join(align([head, *rows], left=len(head)))


def align(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
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


def _by_rich(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in head:
        shown.add_column(name, overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row))  # a name is a name, not markup
    console = Console()
    with console.capture() as captured:
        console.print(shown)
    return captured.get().strip("\n")
