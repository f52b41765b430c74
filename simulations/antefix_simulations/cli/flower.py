"""`antefix-sim flower`: a run through Flower's engine, which is started for it and stopped after it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from antefix_simulations.cli.options import Choices, tell


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command()(flower)


def flower(
    out: Annotated[Path, typer.Option(help="Folder for everything; a run that was cut off goes on.")] = Path(
        "runs/flower"
    ),
    workers: Annotated[int, typer.Option(min=1, help="Processes that do cohorts.")] = 2,
    cpus: Annotated[int, typer.Option(min=1, help="Cores of each.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each; a share is allowed.")] = 0.0,
    choices: Choices = None,
) -> None:
    """The run of `antefix-sim run` on several workers, by Flower and Ray. Works offline.

    `flwr run .` in a clone does the same with the Flower that you have.
    """
    from antefix_server.rounds.config import choice
    from antefix_simulations.flower.local import bundle, local_flower
    from antefix_simulations.run.folder import explain_interrupt
    from antefix_simulations.settings import RunSettings

    settings = RunSettings.read(dict(map(choice, choices or [])))
    if workers * cpus > (os.cpu_count() or 1):
        tell(f"{workers * cpus} cores are asked for, {os.cpu_count()} are there: workers share them")
    federation = (
        f"num-supernodes={workers} client-resources-num-cpus={cpus} client-resources-num-gpus={gpus} "
        f"init-args-num-cpus={workers * cpus}"
    )
    config = {"out": str(out.resolve()), **settings.model_dump(by_alias=True)}
    with (
        explain_interrupt(out, tell),
        tempfile.TemporaryDirectory(prefix="antefix-bundle-") as folder,
        local_flower() as running,
    ):
        apps = ("antefix_simulations.flower.server_app:app", "antefix_simulations.flower.client_app:app")
        running.run(bundle(Path(folder), *apps, config), federation, {})
