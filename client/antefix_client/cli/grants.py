"""`antefix grant`, `grants`, `revoke`, `token`: whether the server may generate under this user's prefix."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antefix_client.cli.options import HOME, AsJson, Folder, KeyFile
from antefix_client.cli.server import require_membership
from antefix_client.cli.unlocking import open_model

if TYPE_CHECKING:
    from antefix_client import PersonalModel
    from antefix_client.granting import ActiveGrant, Granting


_SHORTER_S = 300.0


def register(app: typer.Typer) -> None:
    """Add the commands to a command line."""
    for command in (grant, grants, revoke, token):
        app.command()(command)


def grant(
    hours: Annotated[
        float,
        typer.Option(min=0.01, help="How long, at most: the server's key ends it after 12 to 24 hours."),
    ] = 12.0,
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
    with open_model(folder, key_file) as model:
        active = _granting(model).grant(hours=hours, keep=keep)
    if active.until < time.time() + hours * 3600 - _SHORTER_S:
        hint = "" if keep else "; antefix grant --keep grants anew"
        typer.echo(f"antefix: shorter than asked: the server's key ends before{hint}", err=True)
    renewal = "; the versions after it, too, until antefix revoke" if keep else ""
    typer.echo(json.dumps(asdict(active)) if as_json else f"granted {_line(active)}{renewal}")


def grants(folder: Folder = HOME, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List what your server may use now."""
    with open_model(folder, key_file) as model:
        granting = _granting(model)
        active, keeping = granting.listed(), granting.keeping
    if as_json:
        typer.echo(json.dumps([asdict(active_grant) for active_grant in active], indent=2))
        return
    for active_grant in active:
        typer.echo(_line(active_grant))
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
    with open_model(folder, key_file) as model:
        count = _granting(model).revoke(id)
    typer.echo(f"{count} taken back")


def token(
    authority: Annotated[
        Path | None, typer.Option(help="Write the server's authority to this new file, for curl and openai.")
    ] = None,
    folder: Folder = HOME,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the token with which another program of yours asks the server, and where.

    The token goes to stdout alone, the address to stderr. It is secret: who has it may do on the server what
    this device may, until the operator revokes the device.
    """
    with open_model(folder, key_file) as model:
        access = _granting(model).access
    if authority is not None:
        _write(authority, access.authority)
    if as_json:
        typer.echo(json.dumps(asdict(access)))
        return
    typer.echo(f"OPENAI_BASE_URL={access.url}", err=True)
    typer.echo(access.token)


def _write(path: Path, authority: str) -> None:
    from antefix.errors import InvalidArgument
    from antefix_client.profile.os_errors import write_new

    if not authority:
        raise InvalidArgument(
            "the server's certificate is one that every machine knows", "leave --authority out"
        )
    write_new(path.expanduser(), authority.encode(), "give a new --authority")


def _granting(model: PersonalModel) -> Granting:
    require_membership(model)  # or says which extra is missing
    from antefix_client.granting import Granting

    return Granting(model)


def _line(grant: ActiveGrant) -> str:
    until = datetime.fromtimestamp(grant.until, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{grant.id}  version {grant.version}  until {until}"
