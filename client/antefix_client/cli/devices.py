"""`antefix device …` and `antefix receive`: the devices of one user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antefix_client.cli.options import HOME, AsJson, ComparedDevice, Folder, KeyFile, Yes
from antefix_client.cli.unlocking import confirm, open_model

if TYPE_CHECKING:
    from antefix_client import PersonalModel
    from antefix_client.membership import Membership

_LONGEST_MESSAGE = 2**18
_LONGEST_CHANGES = 2**23


def register(app: typer.Typer) -> None:
    """Add the group `device` and the command `receive` to a command line."""
    group = typer.Typer(no_args_is_help=True, help="Link devices of yours, and remove them.")
    group.callback()(_group)
    for command in (show, request, admit, join, list_devices, remove, changes, follow):
        group.command(command.__name__.removesuffix("_devices"))(command)
    app.add_typer(group, name="device")
    app.command()(receive)


def _group() -> None:
    """Link devices of yours, and remove them."""


def show(folder: Folder = HOME, key_file: KeyFile = None) -> None:
    """Print this device's fingerprint."""
    with open_model(folder, key_file) as model:
        typer.echo(model.device)


def request(
    file: Annotated[Path, typer.Argument(help="New file for the request.", show_default=False)],
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """On the new device: ask to be let in. Carry the file to the old one, by any way."""
    with open_model(folder, key_file) as model:
        _write(file, model.link_request())
        typer.echo(f"wrote {file}; this device is {model.device}")


def admit(
    request: Annotated[Path, typer.Argument(help="Request of the new device.", show_default=False)],
    welcome: Annotated[Path, typer.Argument(help="New file for the welcome.", show_default=False)],
    device: ComparedDevice,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """On the old device: let the new one in. It will read every version, and write new ones."""
    from antefix.common.files import ensure_absent

    with open_model(folder, key_file) as model:
        ensure_absent(welcome)  # before the new device is let in
        _write(welcome, model.admit(_content(request, _LONGEST_MESSAGE), device=device))
        typer.echo(f"wrote {welcome}; this device is {model.device}")


def join(
    welcome: Annotated[Path, typer.Argument(help="Welcome from the old device.", show_default=False)],
    device: ComparedDevice,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """On the new device: join the old one. The texts that are here stay here."""
    with open_model(folder, key_file) as model:
        model.join(_content(welcome, _LONGEST_MESSAGE), device=device)
    typer.echo("joined")


def list_devices(folder: Folder = HOME, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List the fingerprints of your devices, as far as this one has heard of them."""
    with open_model(folder, key_file) as model:
        found, own = model.devices(), model.device
    rows = [{"device": device, "this": device == own} for device in found]
    lines = [f"{device}{'  (this one)' if device == own else ''}" for device in found]
    typer.echo(json.dumps(rows, indent=2) if as_json else "\n".join(lines))


def remove(
    device: Annotated[
        str, typer.Argument(help="Its fingerprint, as antefix device list shows it.", show_default=False)
    ],
    yes: Yes = False,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Remove another device. It opens no version that is made from now on; what it has, it keeps.

    On a server the others hear of it with their next sync, and the removed one is let in no more. Without
    one, carry it to them: antefix device changes.
    """
    with open_model(folder, key_file) as model:
        if not yes:
            confirm(f"remove device {device}?")
        membership = _membership(model)
        if membership is None:
            model.remove_device(device)
        else:
            membership.remove_device(device)
        left = len(model.devices())
    typer.echo("removed")
    if membership is None and left > 1:
        typer.echo("antefix: for your other devices: antefix device changes FILE", err=True)


def changes(
    file: Annotated[Path, typer.Argument(help="New file for the changes.", show_default=False)],
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Write what this device has changed in the list of devices, where no server carries it."""
    with open_model(folder, key_file) as model:
        content = model.device_changes()
    if not content:
        typer.echo("nothing that another device has not heard of")
        return
    _write(file, content)
    typer.echo(f"wrote {file}")


def follow(
    file: Annotated[Path, typer.Argument(help="Of antefix device changes.", show_default=False)],
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Take over what another device of yours has changed in the list of devices."""
    with open_model(folder, key_file) as model:
        model.follow_devices(_content(file, _LONGEST_CHANGES))
        typer.echo(f"{len(model.devices())} devices")


def receive(
    record: Annotated[
        Path,
        typer.Argument(help="Record of another device: antefix export --what record.", show_default=False),
    ],
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Keep a version of another device of yours; if both have made one, this device's stays in use."""
    from antefix.records.header import RECORD_LIMIT

    with open_model(folder, key_file) as model:
        received = model.receive(_content(record, RECORD_LIMIT))
        in_use = model.status().version
    if not received.beside:
        typer.echo(f"received version {received.number}; version {in_use} is in use")
        return
    typer.echo(f"kept {received.name} beside: version {in_use} of this device stays in use")
    typer.echo(f"antefix: to choose: antefix roll-back {received.name}", err=True)


def _membership(model: PersonalModel) -> Membership | None:
    """Of a profile that is on a server."""
    from antefix_client.cli.server import require_membership
    from antefix_client.errors import NotJoined
    from antefix_client.remote.server_state import ServerState

    try:
        with model.session.locked() as profile:
            ServerState.read(profile.sealed)
    except NotJoined:
        return None
    return require_membership(model)


def _content(path: Path, most: int) -> bytes:
    from antefix.common.files import readable
    from antefix.errors import InvalidArgument

    with readable(path), path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InvalidArgument(f"{path} has more than {most:,} bytes", "check the path")
    return content


def _write(path: Path, content: bytes) -> None:
    from antefix_client.profile.os_errors import write_new

    write_new(path, content)
