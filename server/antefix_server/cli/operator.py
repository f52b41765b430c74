"""`antefix-server init`, `status`, `backup`, `restore`: what an operator does with the whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antefix_server.cli.data_access import AsJson, do, say

if TYPE_CHECKING:
    from antefix.keys import RecoveryCode

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
    """Add the commands to a command line."""
    for command in (init, status, backup, restore):
        app.command()(command)
    log = typer.Typer(no_args_is_help=True, help="The removal log: who was removed, what was released.")
    log.callback()(_log)
    log.command()(verify)
    app.add_typer(log, name="log")


def init(
    folder: Annotated[Path, typer.Argument(help="New or empty folder.", show_default=False)],
    mirror: Mirror = None,
    postgres: Postgres = None,
    origin: Origin = "localhost/removals",
) -> None:
    """Make a server's data. Prints, once, the recovery code that backups need, and the removal log's key."""
    from antefix.keys import RecoveryCode
    from antefix_server.backups import operator_keys
    from antefix_server.vault import Vault
    from antefix_server.vault.settings import Settings

    code = RecoveryCode.generate()
    settings = Settings(origin=origin, url=postgres, mirror=mirror)
    with Vault.create(folder, operator_keys(code).public, settings) as vault:
        typer.echo(f"recovery code  {code.text()}")
        typer.echo(f"log key        {vault.log_key.text()}")
    typer.echo("antefix-server: the recovery code is not kept anywhere: write it down", err=True)


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Say what is there."""
    from antefix_server.admin.admin_socket import is_up

    facts = {"server": "up" if is_up(context.obj) else "down", **do(context, "status")}
    lines = "\n".join(
        f"{name:9} {value:,}" if isinstance(value, int) else f"{name:9} {value}"
        for name, value in facts.items()
    )
    say(as_json, facts, lines)


def verify(
    context: typer.Context,
    since: Annotated[
        Path | None,
        typer.Option(help="Checkpoint from before: the log must only have grown.", show_default="none"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go through the whole removal log and its mirror; print its signed checkpoint, for --since."""
    from antefix_server.storage.os_errors import files

    text = None
    if since is not None:
        with files(since):
            text = since.read_text()
    result = do(context, "verify_log", since=text)
    say(as_json, result, result["checkpoint"].rstrip())
    if not as_json:
        typer.echo(f"antefix-server: {result['entries']:,} entries are as they were written", err=True)


def _log() -> None:
    """The removal log: who was removed, what was released."""


def backup(
    context: typer.Context,
    records: Annotated[
        Path | None,
        typer.Option(help="File for the records; keep it as long as you like.", show_default="none"),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File for the keys; delete it within 7 days.", show_default="none")
    ] = None,
) -> None:
    """Back up into two files, which belong into two places."""
    named = {"records": _whole(records), "keys": _whole(keys)}
    summary = do(context, "backup", **named)
    if summary["records"] is not None:
        typer.echo(f"{summary['records']:,} records")
    if summary["keys"]:
        typer.echo("keys and removal log")


def restore(
    folder: Annotated[Path, typer.Argument(help="New or empty folder.", show_default=False)],
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
    """Make a server's data from backups; who was removed does not come back. Asks for the recovery code."""
    from antefix_server.backups import backup as backup_module
    from antefix_server.vault.settings import Settings

    sources = backup_module.Sources(records, keys, mirror, accept_lost_removals)
    count = backup_module.restore(folder, sources, _code(), Settings(origin=origin, url=postgres))
    typer.echo(f"{count:,} records")


def _whole(path: Path | None) -> str | None:
    """The server runs in another folder."""
    return None if path is None else str(path.absolute())


def _code() -> RecoveryCode:
    """From the terminal without showing it, else from standard input; never from the command line."""
    from antefix.keys import RecoveryCode

    typed = (
        typer.prompt("recovery code", hide_input=True, err=True)
        if sys.stdin.isatty()
        else sys.stdin.readline()
    )
    return RecoveryCode.parse(typed)
