"""`antefix-server users …` and `antefix-server devices …`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from antefix.common.table import table
from antefix_server.cli.data_access import AsJson, day, do, say

Name = Annotated[str, typer.Argument(help="Name of the user.", show_default=False)]
Expires = Annotated[float, typer.Option(min=0.01, max=365, help="Days for which the invitation is good.")]


def register(app: typer.Typer) -> None:
    """Add the groups to a command line."""
    users = typer.Typer(no_args_is_help=True, help="Add, list, suspend and remove users.")
    for command in (add, invite, list_users, show, suspend, resume, remove):
        users.command(command.__name__.removesuffix("_users"))(command)
    app.add_typer(users, name="users")
    devices = typer.Typer(no_args_is_help=True, help="List and revoke the devices of a user.")
    for other in (list_devices, revoke):
        devices.command(other.__name__.removesuffix("_devices"))(other)
    app.add_typer(devices, name="devices")


def add(context: typer.Context, name: Name, expires: Expires = 7.0, as_json: AsJson = False) -> None:
    """Add a user. Prints an invitation for its first device, once."""
    _say_invitation(as_json, do(context, "add_user", name=name, invited_s=_seconds(expires)))


def invite(context: typer.Context, name: Name, expires: Expires = 7.0, as_json: AsJson = False) -> None:
    """Invite one more device of a user."""
    _say_invitation(as_json, do(context, "invite", name=name, invited_s=_seconds(expires)))


def list_users(context: typer.Context, as_json: AsJson = False) -> None:
    """List all users."""
    users = do(context, "list_users")
    rows = [
        (user["name"], user["id"], day(user["added"]), "suspended" if user["suspended"] else "")
        for user in users
    ]
    say(as_json, users, table(("name", "id", "added", ""), rows))


def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show a user with its devices."""
    user = do(context, "show_user", name=name)
    lines = [
        f"name       {user['name']}",
        f"id         {user['id']}",
        f"added      {day(user['added'])}",
        f"suspended  {'yes' if user['suspended'] else 'no'}",
        "",
        _device_table(user["devices"]),
    ]
    say(as_json, user, "\n".join(lines))


def suspend(context: typer.Context, name: Name) -> None:
    """Let a user's devices in no more for now. Its records stay."""
    do(context, "suspend", name=name, suspended=True)


def resume(context: typer.Context, name: Name) -> None:
    """Let a suspended user's devices in again."""
    do(context, "suspend", name=name, suspended=False)


def remove(
    context: typer.Context,
    name: Name,
    receipt: Annotated[
        Path | None, typer.Option(help="File for the receipt.", show_default="print it")
    ] = None,
) -> None:
    """Remove a user for good, with all that is known of it, and give the receipt."""
    from antefix.common.files import atomic_write
    from antefix.errors import InvalidArgument
    from antefix_server.storage.os_errors import files

    if receipt is not None and receipt.exists():
        raise InvalidArgument(f"{receipt} is there already", "choose a new path")
    text = do(context, "remove", name=name)["receipt"]
    if receipt is None:
        typer.echo(text, nl=False)
        return
    with files(receipt):
        atomic_write(receipt, text.encode())


def list_devices(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """List the devices of a user."""
    devices = do(context, "list_devices", name=name)
    say(as_json, devices, _device_table(devices))


def revoke(
    context: typer.Context,
    name: Name,
    device: Annotated[str, typer.Argument(help="Id of the device, 32 hex digits.", show_default=False)],
) -> None:
    """Let a device in no more, for good."""
    do(context, "revoke", name=name, device=device)


def _say_invitation(as_json: bool, facts: dict[str, str]) -> None:
    say(as_json, facts, "\n".join(f"{name:10}  {value}" for name, value in facts.items()))
    if not as_json:
        typer.echo("antefix-server: it is shown once, and good for one device", err=True)


def _seconds(days: float) -> int:
    return int(days * 86_400)


def _device_table(devices: Sequence[dict[str, Any]]) -> str:
    rows = [
        (device["id"], device["name"], day(device["enrolled"]), "revoked" if device["revoked"] else "")
        for device in devices
    ]
    return table(("device", "name", "enrolled", ""), rows)
