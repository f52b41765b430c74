"""`antefix device …` and `antefix receive`: two devices of one user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from antefix_client._opening import HOME, Folder, KeyFile, opened

_LONGEST_MESSAGE = 2**18
_LONGEST_RECORD = 2**27

Compared = Annotated[
    str,
    typer.Option("--device", help="Fingerprint, as the other device itself shows it.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the group `device` and the command `receive` to a command line."""
    group = typer.Typer(no_args_is_help=True, help="Link two devices of yours.")
    group.callback()(_group)
    for command in (show, request, admit, join):
        group.command()(command)
    app.add_typer(group, name="device")
    app.command()(receive)


def _group() -> None:
    """Link two devices of yours."""


def show(folder: Folder = HOME, key_file: KeyFile = None) -> None:
    """Print this device's fingerprint."""
    with opened(folder, key_file) as model:
        typer.echo(model.device)


def request(
    file: Annotated[Path, typer.Argument(help="New file for the request.", show_default=False)],
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """On the new device: ask to be let in. Carry the file to the old one, by any way."""
    with opened(folder, key_file) as model:
        _write(file, model.link_request())
        typer.echo(f"wrote {file}; this device is {model.device}")


def admit(
    request: Annotated[Path, typer.Argument(help="Request of the new device.", show_default=False)],
    welcome: Annotated[Path, typer.Argument(help="New file for the welcome.", show_default=False)],
    device: Compared,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """On the old device: let the new one in. It will read every version, and write new ones."""
    with opened(folder, key_file) as model:
        _require_new(welcome)
        _write(welcome, model.admit(_content(request, _LONGEST_MESSAGE), device=device))
        typer.echo(f"wrote {welcome}; this device is {model.device}")


def join(
    welcome: Annotated[Path, typer.Argument(help="Welcome from the old device.", show_default=False)],
    device: Compared,
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """On the new device: join the old one. The texts that are here stay here."""
    with opened(folder, key_file) as model:
        model.join(_content(welcome, _LONGEST_MESSAGE), device=device)
    typer.echo("joined")


def receive(
    record: Annotated[
        Path,
        typer.Argument(help="Record of another device: antefix export --what record.", show_default=False),
    ],
    folder: Folder = HOME,
    key_file: KeyFile = None,
) -> None:
    """Keep a version of another device of yours; if both have made one, this device's stays in use."""
    with opened(folder, key_file) as model:
        received = model.receive(_content(record, _LONGEST_RECORD))
        in_use = model.status().version
    if not received.beside:
        typer.echo(f"received version {received.number}; version {in_use} is in use")
        return
    typer.echo(f"kept {received.name} beside: version {in_use} of this device stays in use")
    typer.echo(f"antefix: to choose: antefix roll-back {received.name}", err=True)


def _content(path: Path, most: int) -> bytes:
    from antefix.errors import InvalidArgument

    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}", "check the path") from None
    if len(content) > most:
        raise InvalidArgument(f"{path} has more than {most:,} bytes", "check the path")
    return content


def _write(path: Path, content: bytes) -> None:
    from antefix._files import write_whole
    from antefix_client._seam import files

    _require_new(path)
    with files(path):
        write_whole(path, content)


def _require_new(path: Path) -> None:
    from antefix.errors import InvalidArgument

    if path.exists():
        raise InvalidArgument(f"{path} is there already", "choose a new path")
