"""A Flower of our own on this machine, for one run: nothing is fetched or told, nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from antefix.common.programs import free_port, program, search_path
from antefix.errors import InvalidArgument
from antefix_simulations.flower.processes import end_family, terminable
from antefix_simulations.run.task import WorkerFailed

__all__ = ["Flower", "bundle", "local_flower"]

_START_S = 60.0
_CONNECTION = "antefix-sim"
_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Flower:
    """One that runs.

    Attributes:
        environment: of the programs that talk to it.
    """

    environment: dict[str, str]

    def run(self, app: Path, federation: str, config: Mapping[str, Any]) -> None:
        """`flwr run`, streamed to our own stderr.

        Args:
            app: folder with a `pyproject.toml`.
            federation: size of it, as `--federation-config`.
            config: as `--run-config`.

        Raises:
            WorkerFailed: the run did not end well; `flwr run` itself would not say so.
        """
        run_config = " ".join(f"{name}={json.dumps(value)}" for name, value in config.items())
        words = ["run", str(app), _CONNECTION, "--stream", "--federation-config", federation]
        words += ["--run-config", run_config] if run_config else []
        subprocess.run([program("flwr"), *words], env=self.environment, stdout=sys.stderr, check=False)
        listed = subprocess.run(
            [program("flwr"), "ls", _CONNECTION, "--format", "json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            status = str(json.loads(listed.stdout)["runs"][0]["status"])
        except (ValueError, LookupError):
            status = "unknown"
        if status != "finished:completed":
            raise WorkerFailed(f"Flower's run is {status}", "see what it said above")


@contextmanager
def local_flower() -> Iterator[Flower]:
    """While the block runs.

    Raises:
        InvalidArgument: Ray is not installed.
        WorkerFailed: it does not start.
    """
    if find_spec("ray") is None:
        raise InvalidArgument("Flower's engine needs Ray", "pip install 'antefix[ray]'")
    with tempfile.TemporaryDirectory(prefix="antefix-flower-") as folder:
        home, port = Path(folder), free_port()
        connection = f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n'
        (home / "config.toml").write_text(f'{connection}address = "127.0.0.1:{port}"\ninsecure = true\n')
        path = search_path()
        environment = {**os.environ, **_ENVIRONMENT, "FLWR_HOME": str(home), "PATH": path}
        words = ["--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
        with terminable(), (home / "superlink.log").open("wb") as log:
            # In a session of its own, so that Ctrl-C leaves it to us to end everything.
            superlink = subprocess.Popen(
                [program("flower-superlink"), *words],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                _wait_until_up(superlink, port, home / "superlink.log")
                yield Flower(environment)
            finally:
                end_family(superlink)


def bundle(folder: Path, serverapp: str, clientapp: str, config: Mapping[str, Any]) -> Path:
    """An app of Flower that is nothing but names: what runs is what is installed."""
    settings = "".join(f"{name} = {json.dumps(value)}\n" for name, value in config.items())
    (folder / "said.py").write_text('"""Nothing: what runs is what is installed."""\n')
    (folder / "pyproject.toml").write_text(
        f"""[project]
name = "antefix-sim"
version = "1.0.0"
description = "A simulated run of Antefix"
license = "Apache-2.0"
dependencies = ["flwr>=1.41.0"]

[tool.flwr.app]
publisher = "antefix"
fab-include = ["said.py"]

[tool.flwr.app.components]
serverapp = "{serverapp}"
clientapp = "{clientapp}"

[tool.flwr.app.config]
{settings}"""
    )
    return folder


def _wait_until_up(superlink: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _START_S
    while superlink.poll() is None and time.monotonic() < until:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    raise WorkerFailed(f"Flower's SuperLink does not start: {(lines or ['it says nothing'])[-1][:200]}")
