"""`antefix-sim run`: a federated run in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Choice = Annotated[
    list[str] | None,
    typer.Option(
        "--run-config",
        "-c",
        help="NAME=VALUE, see docs/guides/simulate.md; several times.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to a command line."""
    app.command()(run)
    app.command()(compare)


def run(
    data: Annotated[
        str, typer.Option(help="sample, a file .jsonl or .jsonl.gz, git:FOLDER, mbox:FILE or hf:NAME.")
    ] = "sample",
    out: Annotated[Path, typer.Option(help="Folder for everything; a run that was cut off goes on.")] = Path(
        "runs/run"
    ),
    users: Annotated[int, typer.Option(min=0, help="Users; 0 for all with enough texts.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the shared prefix.")] = 3,
    base: Annotated[str, typer.Option(help="Base: a name, a folder or a hub id.")] = "smollm2-135m-q4",
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of everything.")] = 0,
    choices: Choice = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Simulate many users: rounds of a shared prefix, then a private prefix for each, sealed and measured.

    The same run as `flwr run .`, in one process. Ctrl-C loses nothing that was finished.
    """
    from antefix import FrozenBase
    from antefix_server.rounds.config import choice
    from antefix_simulations.report.html import write_report
    from antefix_simulations.report.summary import read_summary
    from antefix_simulations.run.driver import LocalExecutor, Run
    from antefix_simulations.run.folder import explain_full_disk, explain_interrupt
    from antefix_simulations.settings import RunSettings

    said: dict[str, Any] = {"data": data, "users": users, "num-server-rounds": rounds, "base": base}
    said |= {"device": device, "seed": seed, **dict(map(choice, choices or []))}
    settings = RunSettings.read(said)
    loaded = FrozenBase.load(settings.base, device=settings.device, dtype=settings.dtype)
    with explain_interrupt(out, _say), Run(out, settings, loaded, _say, progress=True) as running:
        running.go(LocalExecutor(loaded, running.population, settings, out))
    with explain_full_disk(out):
        found, page = read_summary(out), write_report(out)
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else f"{found.as_text()}\n\n{page}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, the first to compare with.")],
    pool: Annotated[
        bool, typer.Option("--pool", help="Take runs of different seeds as one; a user counts once.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare runs of the same texts, paired by user."""
    from antefix_simulations.report import comparison, pooling

    found = pooling.pool_runs(runs) if pool else comparison.compare(runs)
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else found.as_text())


def _say(line: str) -> None:
    typer.echo(line, err=True)
