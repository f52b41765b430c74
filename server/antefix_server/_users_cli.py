"""`antefix-server users …` and `antefix-server devices …`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from antefix_server._opening import AsJson, opened, say

if TYPE_CHECKING:
    from antefix.wire import Invitation
    from antefix_server.registry import Device, User

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
    from antefix_server.registry import Registry

    with opened(context) as vault:
        added = Registry(vault).add(name, invited_s=_seconds(expires))
    _say_invitation(as_json, {"id": added.user.id.hex()}, added.invitation)


def invite(context: typer.Context, name: Name, expires: Expires = 7.0, as_json: AsJson = False) -> None:
    """Invite one more device of a user."""
    from antefix_server.registry import Registry

    with opened(context) as vault:
        invitation = Registry(vault).invite(name, invited_s=_seconds(expires))
    _say_invitation(as_json, {}, invitation)


def list_users(context: typer.Context, as_json: AsJson = False) -> None:
    """List all users."""
    from antefix_server.registry import Registry

    with opened(context) as vault:
        found = list(Registry(vault).users())
    rows = [(one.name, one.id.hex(), _day(one.added), "suspended" if one.suspended else "") for one in found]
    say(as_json, [_facts(one) for one in found], _table(("name", "id", "added", ""), rows))


def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show a user with its devices."""
    from antefix_server.registry import Registry

    with opened(context) as vault:
        registry = Registry(vault)
        user, devices = registry.find(name), registry.devices(name)
    lines = [
        f"name       {user.name}",
        f"id         {user.id.hex()}",
        f"added      {_day(user.added)}",
        f"suspended  {'yes' if user.suspended else 'no'}",
        "",
        _device_table(devices),
    ]
    say(as_json, {**_facts(user), "devices": [_device(one) for one in devices]}, "\n".join(lines))


def suspend(context: typer.Context, name: Name) -> None:
    """Let a user's devices in no more for now. Its records stay."""
    _suspended(context, name, True)


def resume(context: typer.Context, name: Name) -> None:
    """Let a suspended user's devices in again."""
    _suspended(context, name, False)


def remove(
    context: typer.Context,
    name: Name,
    receipt: Annotated[
        Path | None, typer.Option(help="File for the receipt.", show_default="print it")
    ] = None,
) -> None:
    """Remove a user for good, with all that is known of it, and give the receipt."""
    from antefix._files import write_whole
    from antefix.errors import InvalidArgument
    from antefix_server._seam import files
    from antefix_server.registry import Registry

    if receipt is not None and receipt.exists():
        raise InvalidArgument(f"{receipt} is there already", "choose a new path")
    with opened(context) as vault:
        text = Registry(vault).remove(name).text()
    if receipt is None:
        typer.echo(text, nl=False)
        return
    with files(receipt):
        write_whole(receipt, text.encode())


def list_devices(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """List the devices of a user."""
    from antefix_server.registry import Registry

    with opened(context) as vault:
        found = Registry(vault).devices(name)
    say(as_json, [_device(one) for one in found], _device_table(found))


def revoke(
    context: typer.Context,
    name: Name,
    device: Annotated[str, typer.Argument(help="Id of the device, 32 hex digits.", show_default=False)],
) -> None:
    """Let a device in no more, for good."""
    from antefix.errors import InvalidArgument
    from antefix_server.registry import Registry

    if len(device) != 32 or set(device) - set("0123456789abcdef"):
        raise InvalidArgument(
            f"a device id of {len(device):,} characters", "it has 32 hex digits: antefix-server devices list"
        )
    with opened(context) as vault:
        Registry(vault).revoke(name, bytes.fromhex(device))


def _suspended(context: typer.Context, name: str, suspended: bool) -> None:
    from antefix_server.registry import Registry

    with opened(context) as vault:
        Registry(vault).suspend(name, suspended)


def _say_invitation(as_json: bool, facts: dict[str, Any], invitation: Invitation) -> None:
    code = invitation.text()
    lines = [*(f"{name:10}  {value}" for name, value in facts.items()), f"invitation  {code}"]
    say(as_json, {**facts, "invitation": code}, "\n".join(lines))
    if not as_json:
        typer.echo("antefix-server: it is shown once, and good for one device", err=True)


def _seconds(days: float) -> int:
    return int(days * 86_400)


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _facts(user: User) -> dict[str, Any]:
    return {"name": user.name, "id": user.id.hex(), "added": user.added, "suspended": user.suspended}


def _device(one: Device) -> dict[str, Any]:
    return {"id": one.id.hex(), "name": one.name, "enrolled": one.enrolled, "revoked": one.revoked}


def _device_table(devices: Sequence[Device]) -> str:
    rows = [(one.id.hex(), one.name, _day(one.enrolled), "revoked" if one.revoked else "") for one in devices]
    return _table(("device", "name", "enrolled", ""), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what is in them; a person or `cut` reads them."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    padded = [map(str.ljust, row, widths) for row in (head, *rows)]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
