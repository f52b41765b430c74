"""`antefix-server vault …`: what an operator does with a vault."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from antefix.keys import RecoveryCode

Folder = Annotated[Path, typer.Argument(help="Folder of the vault.", show_default=False)]
Mirror = Annotated[
    Path | None, typer.Option(help="Second copy of the removal log, on another disk.", show_default="none")
]
Postgres = Annotated[
    str | None,
    typer.Option(
        help="URL of a PostgreSQL for the records.",
        envvar="ANTEFIX_POSTGRES",
        show_default="SQLite in the folder",
    ),
]
Origin = Annotated[str, typer.Option(help="Name of the removal log, best a domain you have.")]


def register(app: typer.Typer) -> None:
    """Add the group `vault` to a command line."""
    group = typer.Typer(
        no_args_is_help=True, help="Make, look at, back up and restore a vault; remove users."
    )
    for command in (init, status, remove, backup, restore):
        group.command()(command)
    app.add_typer(group, name="vault")


def init(
    folder: Folder, mirror: Mirror = None, postgres: Postgres = None, origin: Origin = "localhost/removals"
) -> None:
    """Make a vault. Prints the recovery code that its backups need, once, and the key of its removal log."""
    from antefix.keys import RecoveryCode
    from antefix_server.backups import operator_keys
    from antefix_server.settings import Settings
    from antefix_server.vault import Vault

    code = RecoveryCode.generate()
    settings = Settings(origin=origin, url=postgres, mirror=mirror)
    with Vault.create(folder, operator_keys(code).public, settings) as vault:
        typer.echo(f"recovery code  {code.text()}")
        typer.echo(f"log key        {vault.log_key.text()}")
    typer.echo("antefix-server: the recovery code is not kept anywhere: write it down", err=True)


def status(folder: Folder) -> None:
    """Say what is in a vault."""
    from antefix_server.vault import Vault

    with Vault.open(folder) as vault:
        typer.echo(f"vault     {vault.tenant.hex()}")
        typer.echo(f"records   {vault.shelf.count():,}")
        typer.echo(f"removals  {vault.checkpoint().size:,}")
        typer.echo(f"log key   {vault.log_key.text()}")


def remove(
    folder: Folder,
    user: Annotated[str, typer.Argument(help="Id of the user, 32 hex digits.", show_default=False)],
    receipt: Annotated[
        Path | None, typer.Option(help="File for the receipt.", show_default="print it")
    ] = None,
) -> None:
    """Remove a user for good, and give the receipt. The same again within 8 days gives the receipt again."""
    from antefix._files import write_whole
    from antefix_server._seam import files
    from antefix_server.vault import Vault

    who = _id(user)
    with Vault.open(folder) as vault:
        text = vault.remove(who).text()
    if receipt is None:
        typer.echo(text, nl=False)
        return
    with files(receipt):
        write_whole(receipt, text.encode())


def backup(
    folder: Folder,
    records: Annotated[
        Path | None,
        typer.Option(help="File for the records; keep it as long as you like.", show_default="none"),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File for the keys; delete it within 7 days.", show_default="none")
    ] = None,
) -> None:
    """Back up a vault into two files, which belong into two places."""
    from antefix_server.backups import backup_keys, backup_records
    from antefix_server.vault import Vault

    with Vault.open(folder) as vault:
        if records is not None:
            typer.echo(f"{backup_records(vault, records):,} records")
        if keys is not None:
            backup_keys(vault, keys)
            typer.echo("keys and removal log")


def restore(
    folder: Folder,
    records: Annotated[Path, typer.Option(help="Backup of the records.")],
    keys: Annotated[Path, typer.Option(help="Backup of the keys, 7 days old at most.")],
    mirror: Mirror = None,
    postgres: Postgres = None,
    origin: Origin = "localhost/removals",
    accept_lost_removals: Annotated[
        bool,
        typer.Option(
            "--accept-lost-removals", help="Without the newest mirror: users removed since come back."
        ),
    ] = False,
) -> None:
    """Make a vault from backups; users who were removed do not come back. Asks for the recovery code."""
    from antefix_server import backups
    from antefix_server.settings import Settings

    sources = backups.Sources(records, keys, mirror, accept_lost_removals)
    count = backups.restore(folder, sources, _code(), Settings(origin=origin, url=postgres))
    typer.echo(f"{count:,} records")


def _code() -> RecoveryCode:
    """From the terminal without showing it, else from standard input; never from the command line."""
    from antefix.keys import RecoveryCode

    typed = (
        typer.prompt("recovery code", hide_input=True, err=True)
        if sys.stdin.isatty()
        else sys.stdin.readline()
    )
    return RecoveryCode.parse(typed)


def _id(text: str) -> bytes:
    from antefix.errors import InvalidArgument

    if len(text) != 32 or set(text) - set("0123456789abcdef"):
        raise InvalidArgument(
            f"a user id of {len(text):,} characters", "it has 32 hex digits: 0-9, a-f; no names"
        )
    return bytes.fromhex(text)
