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
    group.command("serve")(serve)
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
    from antefix_server.bench.vault import VaultBench, run, table

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
    from antefix_server.bench.gateway import GatewayBench, run, table

    settings = GatewayBench(
        devices, max(users or 0, devices), every, seconds, changed, record_bytes, operations
    )
    report = run(settings, lambda line: typer.echo(f"antefix-server: {line}", err=True))
    typer.echo(json.dumps(report, indent=2) if as_json else table(report))


def serve(
    users: Annotated[
        list[int] | None, typer.Option(min=1, help="Users of the vault.", show_default="300, 10000")
    ] = None,
    callers: Annotated[
        list[int] | None, typer.Option(min=1, help="Who call at once.", show_default="1, 4, 16, 64")
    ] = None,
    base: Annotated[str, typer.Option(help="Base: a name or a folder.")] = "smollm2-135m-q4",
    dtype: Annotated[str, typer.Option(help="Computed in fp32, bf16 or fp16.")] = "fp32",
    length: Annotated[int, typer.Option(min=1, help="Positions of each prefix.")] = 16,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Of each call.")] = 32,
    new_tokens: Annotated[int, typer.Option(min=1, help="Of each call.")] = 32,
    calls: Annotated[int, typer.Option(min=1, help="Of each caller and repetition.")] = 2,
    repetitions: Annotated[int, typer.Option(min=1, help="Of everything; the median counts.")] = 3,
    openings: Annotated[int, typer.Option(min=1, help="Prefixes that are opened for the first time.")] = 200,
    arrivals: Annotated[int, typer.Option(min=1, help="Calls that come at times of their own.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure hosted inference, over TLS on loopback: own prefixes against none, few users against many."""
    from antefix_server.bench.inference import ServeBench, run, table

    settings = ServeBench(
        base=base,
        dtype=dtype,
        users=tuple(users or (300, 10_000)),
        callers=tuple(sorted(callers or (1, 4, 16, 64))),
        length=length,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        calls=calls,
        repetitions=repetitions,
        openings=openings,
        arrivals=arrivals,
    )
    report = run(settings, lambda line: typer.echo(f"antefix-server: {line}", err=True))
    typer.echo(json.dumps(report, indent=2) if as_json else table(report))


def _group() -> None:
    """Measure the server on this machine."""
