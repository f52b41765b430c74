"""`antefix grant`, `grants`, `revoke`: whether the server may generate under this user's prefix."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from antefix_client._opening import HOME, AsJson, Folder, KeyFile, opened
from antefix_client._server_cli import membership_of

if TYPE_CHECKING:
    from antefix_client import PersonalModel
    from antefix_client.granting import Granted, Granting


def register(app: typer.Typer) -> None:
    """Add the commands to a command line."""
    for command in (grant, grants, revoke):
        app.command()(command)


def grant(
    hours: Annotated[float, typer.Option(min=0.01, help="How long, at most.")] = 12.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="And the versions after it, with sync and serve, until revoked.")
    ] = False,
    folder: Folder = HOME,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Let your server generate under the version in use, for some hours.

    It opens that version in its memory, and could remember it. It gets no text, no key and no other version.
    With --keep, `antefix sync` and `antefix serve` grant anew, for as long again, when another version came
    into use or half of the time is over; `antefix revoke` ends that, and `antefix grant` without --keep.
    """
    with opened(folder, key_file) as model:
        found = _granting(model).grant(hours=hours, keep=keep)
    kept = "; the versions after it, too, until antefix revoke" if keep else ""
    typer.echo(json.dumps(asdict(found)) if as_json else f"granted {_line(found)}{kept}")


def grants(folder: Folder = HOME, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List what your server may use now."""
    with opened(folder, key_file) as model:
        granting = _granting(model)
        found, keeping = granting.listed(), granting.keeping
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        typer.echo(_line(one))
    if keeping:
        typer.echo("new versions are granted, too; antefix revoke ends that")


def revoke(
    id: Annotated[str | None, typer.Argument(help="Of one grant.", show_default="all")] = None,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Take back what your server may use. What it generates under it ends within a second.

    From then on none of your devices grants anew by itself.
    """
    with opened(folder, key_file) as model:
        count = _granting(model).revoke(id)
    typer.echo(f"{count} taken back")


def _granting(model: PersonalModel) -> Granting:
    membership_of(model)  # or says which extra is missing
    from antefix_client.granting import Granting

    return Granting(model)


def _line(one: Granted) -> str:
    until = datetime.fromtimestamp(one.until, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{one.id}  version {one.version}  until {until}"
