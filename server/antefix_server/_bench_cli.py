"""`antefix-server bench …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the group `bench` to a command line."""
    group = typer.Typer(no_args_is_help=True, help="Measure the server on this machine.")
    group.callback()(_group)
    group.command("vault")(vault)
    group.command("gateway")(gateway)
    app.add_typer(group, name="bench")


def vault(
    users: Annotated[
        list[int] | None, typer.Option(min=10, help="Sizes to measure at.", show_default="1000, 10000")
    ] = None,
    record_bytes: Annotated[int, typer.Option(min=1000, help="Of each record, about.")] = 4_600,
    operations: Annotated[
        int, typer.Option(min=10, help="Single adds, gets, replacements and removals each.")
    ] = 300,
    postgres: Annotated[
        str | None,
        typer.Option(help="URL of an empty PostgreSQL.", envvar="ANTEFIX_POSTGRES", show_default="SQLite"),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="New folder on the disk to measure; kept.", show_default="a temporary one"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure adds, gets and removals of a vault as it grows, and what a user takes on disk."""
    from antefix_server._bench import VaultBench, run, table

    settings = VaultBench(tuple(sorted(users or (1_000, 10_000))), record_bytes, operations, postgres, folder)
    report = run(settings, lambda line: typer.echo(f"antefix-server: {line}", err=True))
    typer.echo(json.dumps(report, indent=2) if as_json else table(report))


def gateway(
    devices: Annotated[int, typer.Option(min=1, help="Devices that sync.")] = 500,
    users: Annotated[
        int | None, typer.Option(min=1, help="Users of the server.", show_default="one per device")
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two syncs of a device.")] = 30.0,
    seconds: Annotated[float, typer.Option(min=1, help="How long.")] = 300.0,
    changed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of syncs that bring a new version.")
    ] = 0.1,
    record_bytes: Annotated[int, typer.Option(min=1000, help="Of each record.")] = 370_000,
    operations: Annotated[int, typer.Option(min=0, help="Users added and removed meanwhile.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a gateway of its own process, over TLS on loopback, under devices that sync."""
    from antefix_server._bench_gateway import GatewayBench, run, table

    settings = GatewayBench(
        devices, max(users or 0, devices), every, seconds, changed, record_bytes, operations
    )
    report = run(settings, lambda line: typer.echo(f"antefix-server: {line}", err=True))
    typer.echo(json.dumps(report, indent=2) if as_json else table(report))


def _group() -> None:
    """Measure the server on this machine."""
