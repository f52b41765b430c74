"""`antefix-sim run`: a federated run in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from antefix_simulations.cli.options import AsJson, Base, Choices, Device, Seed, tell


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
    base: Base = "smollm2-135m-q4",
    device: Device = "cpu",
    seed: Seed = 0,
    choices: Choices = None,
    as_json: AsJson = False,
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

    config: dict[str, Any] = {"data": data, "users": users, "num-server-rounds": rounds, "base": base}
    config |= {"device": device, "seed": seed, **dict(map(choice, choices or []))}
    settings = RunSettings.read(config)
    loaded = FrozenBase.load(settings.base, device=settings.device, dtype=settings.dtype)
    with explain_interrupt(out, tell), Run(out, settings, loaded, tell, progress=True) as running:
        running.go(LocalExecutor(loaded, running.population, settings, out))
    with explain_full_disk(out):
        summary, page = read_summary(out), write_report(out)
    typer.echo(json.dumps(summary.as_json(), indent=2) if as_json else f"{summary.as_text()}\n\n{page}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, the first to compare with.")],
    pool: Annotated[
        bool, typer.Option("--pool", help="Take runs of different seeds as one; a user counts once.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare runs of the same texts, paired by user."""
    from antefix_simulations.report import comparison, pooling

    result = pooling.pool_runs(runs) if pool else comparison.compare(runs)
    typer.echo(json.dumps(result.as_json(), indent=2) if as_json else result.as_text())
