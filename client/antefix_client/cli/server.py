"""`antefix join`, `sync`, `rounds`, `leave`: a profile on a server."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antefix_client.cli.options import HOME, AsJson, Folder, KeyFile, Yes
from antefix_client.cli.unlocking import ask_passphrase, confirm, open_model, read_key

if TYPE_CHECKING:
    from antefix_client import PersonalModel
    from antefix_client.membership import Membership

ROUNDS_EXPLAINED = """\
In a round this device trains a copy of the shared prefix on its texts and sends what changed:
clipped, sealed to the round, added up with what others send. The server's operator could read a single
device's change in the server's memory, and something of the texts can be made out from it. Without rounds
nothing that was computed from your texts leaves this device but sealed."""
TakePart = Annotated[
    bool | None,
    typer.Option("--rounds/--no-rounds", help="Take part in rounds, or not.", show_default="ask; no"),
]


def register(app: typer.Typer) -> None:
    """Add the commands to a command line."""
    for command in (join, sync, rounds, leave):
        app.command()(command)


def join(
    code: Annotated[str, typer.Argument(help="Invitation, as the operator gave it.", show_default=False)],
    server: Annotated[str, typer.Option(help="Address: https://example.com:8443.", show_default=False)],
    name: Annotated[str, typer.Option(help="What the operator sees of this device.")] = "",
    take_part: TakePart = None,
    then_serve: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Serve afterwards, until Ctrl-C, as `antefix serve`.")
    ] = True,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Join a server: the sealed versions of your devices are kept there and follow each other.

    The server cannot read them. Makes a profile if there is none; then fetches the server's base, syncs, and
    serves, which keeps the device in step.
    """
    from antefix_client.cli.serve import require_service, serve_model

    folder = folder.expanduser()
    if then_serve:
        require_service()
    with _profile(folder, key_file) as model:
        membership = require_membership(model)
        place = membership.join(code, server, name=name)
        typer.echo(f"joined {place.url} as user {place.user}")
        if take_part is None:
            take_part = _ask_consent()
        membership.take_part(take_part)
        version = membership.follow()
        if version is not None:
            typer.echo(f"release {version} is in use")
        _say_synced(membership)
        if then_serve:
            serve_model(model, folder, None)


def sync(folder: Folder = HOME, key_file: KeyFile = None) -> None:
    """Take what your other devices have learned, and hand on what this one has.

    After `antefix grant --keep` it also grants what is due.
    """
    with open_model(folder, key_file) as model:
        _say_synced(require_membership(model))


def rounds(
    take_part: Annotated[
        bool | None, typer.Option("--yes/--no", help="Take part, or not.", show_default="say how it is")
    ] = None,
    folder: Folder = HOME,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Say whether this device takes part in rounds, which improve the shared prefix; or change it."""
    from antefix_client.errors import NotJoined

    with open_model(folder, key_file) as model:
        membership = require_membership(model)
        place = membership.place if take_part is None else membership.take_part(take_part)
    if place is None:
        raise NotJoined
    yes = "yes" if place.rounds else "no"
    typer.echo(f'{{"rounds": {"true" if place.rounds else "false"}}}' if as_json else yes)
    if take_part:
        typer.echo(f"antefix: {ROUNDS_EXPLAINED}", err=True)


def leave(
    yes: Yes = False,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Forget the server and keep the profile. What the server has of you its operator removes."""
    with open_model(folder, key_file) as model:
        if not yes:
            confirm("leave the server?")
        require_membership(model).leave()
    typer.echo("left")


def _profile(folder: Path, key_file: Path | None) -> PersonalModel:
    """The one there, or a new one that the same passphrase or key will unlock."""
    from antefix_client import PersonalModel
    from antefix_client.profile.manifest import NAME

    if (folder / NAME).exists():
        return open_model(folder, key_file)
    model = PersonalModel.create(
        folder, unlock=lambda: ask_passphrase(new=True) if key_file is None else read_key(key_file)
    )
    typer.echo(f"made {folder}")
    return model


def require_membership(model: PersonalModel) -> Membership:
    from antefix.errors import InvalidArgument

    try:
        from antefix_client.membership import Membership
    except ImportError:
        raise InvalidArgument(
            "what talks to a server is not installed", "pip install 'antefix[federated]'"
        ) from None
    return Membership(model)


def _ask_consent() -> bool:
    """No where nobody can answer."""
    typer.echo(f"antefix: {ROUNDS_EXPLAINED}", err=True)
    return sys.stdin.isatty() and typer.confirm("take part in rounds?", default=False, err=True)


def _say_synced(membership: Membership) -> None:
    result = membership.sync()
    parts = [
        f"received version {result.received}" if result.received else "",
        f"sent version {result.sent}" if result.sent else "",
        "another device's version waits: antefix versions, antefix roll-back" if result.conflict else "",
        f"granted version {result.granted}" if result.granted else "",
        f"granted nothing: {result.problem}" if result.problem else "",
    ]
    now = datetime.now(UTC).strftime("%H:%M:%S UTC")
    typer.echo("; ".join(filter(None, parts)) or f"nothing new at {now}")
