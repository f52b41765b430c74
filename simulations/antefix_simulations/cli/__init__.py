"""The command `antefix-sim`.

Exit codes: 0 done, 1 refused, 2 wrong usage or a missing extra, 130 interrupted.
Results go to stdout, progress and errors to stderr. torch is imported by a command that runs, not by help.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from antefix.common.extras import imported_by

with imported_by("antefix-sim"):
    import typer

    from antefix.common.cli import application, run_command, say
    from antefix_simulations.cli import bench, flower, paper
    from antefix_simulations.cli import run as run_module
    from antefix_simulations.cli.options import AsJson, Base, Choices, Device, Seed

app = application(
    "antefix-sim",
    "Many users of Antefix on one machine: a demo, benches, and how much a private prefix is worth.",
)


@app.command()
def demo(
    data: Annotated[str, typer.Option(help="Texts, as for antefix-sim run.")] = "sample",
    out: Annotated[Path, typer.Option(help="Folder for everything; an earlier demo is replaced.")] = Path(
        "runs/demo"
    ),
    users: Annotated[int, typer.Option(min=0, help="Users; 0 for all with enough texts.")] = 0,
    base: Base = "smollm2-135m-q4",
    device: Device = "cpu",
    seed: Seed = 0,
    choices: Choices = None,
    as_json: AsJson = False,
) -> None:
    """Tell the whole story on a few writers, in minutes on two cores.

    Rounds improve a shared prefix, each writer gets a private one, sealed in a vault; then one prompt is
    answered under several of them in one batch, and one writer is removed, with a receipt.
    """
    from antefix import FrozenBase
    from antefix_server.rounds.config import choice
    from antefix_simulations.demo import SETTINGS, run_demo
    from antefix_simulations.settings import RunSettings

    options = {"data": data, "base": base, "device": device, "seed": seed, "users": users}
    settings = RunSettings.read({**SETTINGS, **options, **dict(map(choice, choices or []))})
    story = run_demo(out, settings, FrozenBase.load(base, device=device, dtype=settings.dtype), _say)
    typer.echo(json.dumps(story.as_json(), indent=2) if as_json else story.as_text())


run_module.register(app)
flower.register(app)
bench.register(app)
paper.register(app)


def main() -> None:
    """Run `antefix-sim`."""
    run_command(app)


def _say(line: str) -> None:
    say("antefix-sim", line)
