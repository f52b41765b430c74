"""A worker of Flower's engine: it does cohorts, one after the other, on one base that stays loaded."""

from __future__ import annotations

import functools
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from antefix_simulations.flower.messages import result_of, task_in
from antefix_simulations.run.cohort import Cohort
from antefix_simulations.settings import RunSettings

__all__ = ["app"]

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One task."""
    task, out, settings = task_in(message.content)
    return Message(content=result_of(_cohort(out, settings).do(task)), reply_to=message)


@functools.lru_cache(maxsize=1)
def _cohort(out: str, settings_json: str) -> Cohort:
    """Of this process: an actor of Ray lives as long as the run."""
    from antefix import FrozenBase
    from antefix_simulations.data.store import Population

    settings = RunSettings.model_validate_json(settings_json)
    base = FrozenBase.load(settings.base, device=settings.device, dtype=settings.dtype, progress=False)
    return Cohort(base, Population(Path(out) / "population.db"), settings, Path(out))
