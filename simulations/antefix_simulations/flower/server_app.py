"""The server's side of `flwr run .`: the run itself; cohorts go to the nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Do what the run-config says; `out` is a folder below the one where Flower was started first."""
    from antefix_server.rounds.app_errors import report_errors

    with report_errors("antefix-sim"):
        _run(grid, dict(context.run_config))


def _run(grid: Grid, config: dict[str, Any]) -> None:
    from antefix import FrozenBase
    from antefix_simulations.flower.grid import OnGrid
    from antefix_simulations.report.html import write_report
    from antefix_simulations.report.summary import read_summary
    from antefix_simulations.run.driver import Run
    from antefix_simulations.settings import RunSettings

    out = Path(str(config.pop("out"))).resolve()
    settings = RunSettings.read(config)
    base = FrozenBase.load(settings.base, dtype=settings.dtype, progress=False)
    with Run(out, settings, base, print, progress=False) as running:
        running.go(OnGrid(grid, settings, out))
    print(read_summary(out).as_text())
    print(f"everything is in {out}, to look at: {write_report(out)}")
