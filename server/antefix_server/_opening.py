"""How the operator's commands find a server's data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from antefix_server.vault import Vault

HOME = Path("~/.antefix-server")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def place(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Option(envvar="ANTEFIX_DATA", help="The server's data.", show_default="~/.antefix-server"),
    ] = HOME,
) -> None:
    """Remember where the data is, for every command."""
    context.obj = data.expanduser()


def opened(context: typer.Context) -> Vault:
    """The vault there; use it in a `with` block."""
    from antefix_server.vault import Vault

    folder: Path = context.obj
    return Vault.open(folder)


def say(as_json: bool, facts: Any, text: str) -> None:
    """A result on stdout."""
    typer.echo(json.dumps(facts, indent=2) if as_json else text)
