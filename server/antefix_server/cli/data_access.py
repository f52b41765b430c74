"""How the operator's commands find a server's data."""

from __future__ import annotations

import json
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
