"""`antefix-server federate`: rounds, by Flower, over the devices that take part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from typer.core import TyperCommand

from antefix.common.programs import program

Choice = Annotated[
    list[str] | None,
    typer.Option(
        "--run-config", "-c", help="NAME=VALUE of the settings below; several times.", show_default=False
    ),
]

_OPTIONS = ("num-server-rounds", "min-users", "strategy", "target-epsilon")
_START_S = 60.0
_WAITING = ("pending", "starting")


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command(cls=_WithSettings)(federate)


class _WithSettings(TyperCommand):
    """Its help ends with all settings, which are read when the help is asked for."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Add what `RoundConfig` says."""
        from antefix_server.rounds.config import RoundConfig
        from antefix_server.rounds.config_docs import help_text

        self.epilog = f"Settings for --run-config:\n\n{help_text(RoundConfig, _OPTIONS)}"
        super().format_help(ctx, formatter)


def federate(
    context: typer.Context,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to run.")] = 3,
    min_users: Annotated[int, typer.Option(min=1, help="Below it nothing is released.")] = 5,
    strategy: Annotated[str, typer.Option(help="Rule: fedavg, fedadam, fedmedian, krum …")] = "fedavg",
    epsilon: Annotated[
        float, typer.Option(min=0, help="Differential privacy of each user, at most; 0 for none.")
    ] = 0.0,
    choices: Choice = None,
) -> None:
    """Run rounds: devices that take part improve the shared prefix. Fails when the run failed.

    The server must be up. A run that was cut off goes on where it was, with the same options.
    """
    from antefix.errors import InvalidArgument
    from antefix_server.admin.admin_socket import is_up
    from antefix_server.rounds.config import RoundConfig, choice

    data: Path = context.obj
    options = dict(zip(_OPTIONS, (rounds, min_users, strategy, epsilon), strict=True))
    config = RoundConfig.read({**options, **dict(map(choice, choices or []))})
    _ = config.rule, config.privacy
    if not is_up(data):
        raise InvalidArgument(f"no server runs on {data}", "antefix-server up")
    sys.exit(_run(data, config.model_dump(by_alias=True)))


def _run(data: Path, config: dict[str, Any]) -> int:
    """`flwr run`, streamed; it ends with 0 whatever became of the run, so that is asked for afterwards."""
    from antefix_server.flower import processes

    settings = " ".join(f"{name}={json.dumps(value)}" for name, value in config.items())
    previous_ids = {run["run-id"] for run in _runs(data)}
    bundle = str(resources.files("antefix_server") / "bundle")
    words = ["run", bundle, processes.CONNECTION, "--stream", "--run-config", settings]
    with subprocess.Popen(
        [program("flwr"), *words], env={**os.environ, **processes.environment(data)}
    ) as started:
        try:
            started.wait(_START_S)
        except subprocess.TimeoutExpired:
            _begun(data, previous_ids, started)
    after = [run for run in _runs(data) if run["run-id"] not in previous_ids]
    if started.returncode != 0 or not after:
        typer.echo("antefix-server: error: Flower did not start the run", err=True)
        return 1
    status = str(after[0]["status"])
    typer.echo(f"antefix-server: {status}", err=True)
    return 0 if status == "finished:completed" else 1


def _begun(data: Path, previous_ids: set[str], started: subprocess.Popen[bytes]) -> None:
    """End a run that nothing takes up: `flwr run` would wait for it for ever."""
    from antefix_server.errors import FlowerUnreachable
    from antefix_server.flower import processes

    for run in _runs(data):
        if run["run-id"] not in previous_ids and run["status"] in _WAITING:
            started.terminate()
            _flwr(data, "stop", run["run-id"], processes.CONNECTION)
            raise FlowerUnreachable(
                f"run {run['run-id']} was not begun within {_START_S:.0f} s, so it was stopped",
                "see logs/superexec.log",
            )


def _runs(data: Path) -> list[dict[str, Any]]:
    from antefix_server.errors import FlowerUnreachable
    from antefix_server.flower import processes

    until = time.monotonic() + _START_S
    while True:  # a server that has just come up may need a few seconds
        listed = _flwr(data, "ls", processes.CONNECTION, "--format", "json")
        try:
            result: list[dict[str, Any]] = json.loads(listed)["runs"]
        except (ValueError, KeyError):
            if time.monotonic() > until:
                raise FlowerUnreachable(
                    "Flower's SuperLink does not answer", "see logs/superlink.log"
                ) from None
            time.sleep(1)
        else:
            return result


def _flwr(data: Path, *words: str) -> str:
    from antefix_server.flower import processes

    return subprocess.run(
        [program("flwr"), *words],
        env={**os.environ, **processes.environment(data)},
        capture_output=True,
        text=True,
    ).stdout
