"""The server's side of rounds, as Flower runs it: `antefix-server federate` starts it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from antefix_server.rounds.app_errors import report_errors
from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.coordinator import CoordinatorClient
from antefix_server.rounds.runner import RoundRunner

__all__ = ["app"]

app = ServerApp()


@app.main()
def _main(grid: Grid, context: Context) -> None:
    """Run what is left of the rounds that the run-config asks for."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("antefix").setLevel(logging.INFO)
    logging.getLogger("flwr").propagate = False  # it has a handler of its own
    with report_errors("antefix-server"):
        config = RoundConfig.read(context.run_config)
        coordinator = CoordinatorClient.from_environment()
        release = RoundRunner(config.rule, coordinator, config, Path(os.environ["ANTEFIX_DATA"])).run(grid)
    logging.getLogger("antefix.rounds").info("done: release %d", release.version)
