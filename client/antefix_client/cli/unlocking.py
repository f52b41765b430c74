"""How the command line finds a profile and unlocks it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from antefix_client import PersonalModel
    from antefix_client.profile.unlock_slots import Unlock

PASSPHRASE = "ANTEFIX_PASSPHRASE"


def open_model(
    folder: Path, key_file: Path | None, device: str = "cpu", dtype: str = "fp32"
) -> PersonalModel:
    """The profile, unlocked."""
    from antefix_client import PersonalModel

    folder = folder.expanduser()
    return PersonalModel.open(folder, unlock=find_unlock(folder, key_file), device=device, dtype=dtype)


def find_unlock(folder: Path, key_file: Path | None) -> Unlock:
    """What unlocks a profile: a key file, its keyring, or a passphrase that is asked for."""
    from antefix_client import Keyring
    from antefix_client.profile.manifest import ProfileManifest

    kinds = {slot.kind: slot for slot in ProfileManifest.read(folder).slots}
    if key_file is not None:
        return read_key(key_file)
    if "keyring" in kinds:
        return Keyring(kinds["keyring"].service or "antefix")
    return ask_passphrase()


def ask_passphrase(*, new: bool = False, variable: str = PASSPHRASE) -> str:
    """From the environment, the terminal without showing it, else standard input; never an argument.

    An argument would stand in the list of processes and in the shell's history.
    """
    from antefix.errors import InvalidArgument

    if given := os.environ.get(variable):
        return given
    if not sys.stdin.isatty():
        raise InvalidArgument(
            "there is no terminal to ask for the passphrase", f"set {variable}, or use a key file"
        )
    typed: str = typer.prompt("passphrase", hide_input=True, confirmation_prompt=new, err=True)
    return typed


def confirm(question: str) -> None:
    """Ask; anything but yes ends the command."""
    try:
        meant = typer.confirm(question, err=True)
    except typer.Abort:
        if not sys.stdin.isatty():
            from antefix.errors import InvalidArgument

            raise InvalidArgument("nobody answered", "say --yes") from None
        raise
    if not meant:
        raise typer.Abort


def check_base(name: str) -> None:
    """Refuse what cannot be a base before a profile is made for it; say where it will come from."""
    from antefix.loading.names import origin_of

    if origin_of(name) == "hub":
        typer.echo(f"antefix: base {name!r} will be fetched from the Hugging Face hub", err=True)


def read_key(path: Path) -> bytes:
    """The key in a file."""
    from antefix.common.files import readable

    with readable(path), path.open("rb") as file:
        return file.read(1024)


def require_outside(folder: Path, key_file: Path) -> None:
    """Refuse a key in the profile: whoever copies the folder would have it, and its files replace each other.

    Raises:
        InvalidArgument.
    """
    from antefix.errors import InvalidArgument

    if key_file.resolve().is_relative_to(folder.expanduser().resolve()):
        raise InvalidArgument(
            f"the key file {key_file} is in the profile's folder", "keep the key in another folder"
        )


def create_key(path: Path) -> bytes:
    """A fresh key, written to a new file that its owner alone can read."""
    from antefix_client.profile.os_errors import write_new

    key = os.urandom(32)
    write_new(path, key, "choose a new path for the key")
    return key
