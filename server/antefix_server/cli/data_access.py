"""How the operator's commands find a server's data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from antefix.common.cli import Version

HOME = Path("~/.antefix-server")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def place(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Option(envvar="ANTEFIX_DATA", help="The server's data.", show_default="~/.antefix-server"),
    ] = HOME,
    version: Version = False,
) -> None:
    """Remember where the data is, for every command."""
    context.obj = data.expanduser()


def do(context: typer.Context, operation: str, **arguments: Any) -> Any:
    """Do something with the data: through the running server, else here."""
    from antefix_server.admin.admin_socket import call

    return call(context.obj, operation, **arguments)


def say(as_json: bool, facts: Any, text: str) -> None:
    """A result on stdout."""
    typer.echo(json.dumps(facts, indent=2) if as_json else text)


def day(seconds: int) -> str:
    """A date from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns: on a terminal by rich, cut to its width; elsewhere plain and whole, for `cut` and `grep`."""
    # A device says its name itself: it must not say anything to the terminal.
    rows = [["".join(one if one.isprintable() else "?" for one in cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        return _rich(head, rows)
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    padded = [map(str.ljust, row, widths) for row in (head, *rows)]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _rich(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
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
