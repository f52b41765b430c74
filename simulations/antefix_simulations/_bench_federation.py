"""Rounds of many users, start-up included: ours, Flower with PEFT as its users write it, PEFT in a loop."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from antefix_simulations._terminal import aligned
from antefix_simulations.flower.local import bundle, local_flower
from antefix_simulations.population.sources import population_of
from antefix_simulations.run.settings import RunSettings

__all__ = ["FederationBench", "bench_federation", "federation_table"]

_PEER = "antefix_simulations.peer"
_SAID = ("base", "dtype", "length", "steps")


@dataclass(frozen=True)
class FederationBench:
    """What is measured.

    Attributes:
        data, base, dtype, length: as in a run.
        users: in every round.
        texts: of each at most.
        steps: of each in a round, of 4 texts.
        rounds: so many.
        workers: processes of Flower's engine.
        repetitions: of each arm, in turn.
        arms: which of `ours`, `flower`, `loop`.
    """

    data: str
    base: str
    users: int
    texts: int = 22
    steps: int = 4
    rounds: int = 1
    length: int = 8
    dtype: str = "fp32"
    workers: int = 2
    repetitions: int = 1
    arms: tuple[str, ...] = ("ours", "flower", "loop")


def bench_federation(settings: FederationBench, say: Callable[[str], None]) -> dict[str, Any]:
    """Each arm in processes of its own, from nothing to the end of the last round; a report for JSON.

    All arms read the same texts from the same file, in steps of the same size.
    """
    times: dict[str, list[float]] = {arm: [] for arm in settings.arms}
    for number in range(settings.repetitions):
        for arm in settings.arms if number % 2 == 0 else settings.arms[::-1]:
            with tempfile.TemporaryDirectory(prefix="antefix-bench-") as folder:
                population_of(_run(settings), Path(folder) / "population.db").close()
                say(f"{arm}, {number + 1} of {settings.repetitions}")
                started = time.perf_counter()
                _ARMS[arm](settings, Path(folder))
                times[arm].append(time.perf_counter() - started)
    done = settings.users * settings.rounds
    rows = {arm: {"seconds": median(took), "users_per_s": done / median(took)} for arm, took in times.items()}
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    return {"bench": "federation", **asdict(settings), "measured": rows, "largest_process_mb": largest}


def federation_table(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    measured = report["measured"]
    rows = [["arm", "seconds", "users/s", "ours is faster by"]]
    for arm, found in measured.items():
        times = found["seconds"] / measured["ours"]["seconds"] if "ours" in measured else float("nan")
        rows.append([arm, f"{found['seconds']:.1f}", f"{found['users_per_s']:.2f}", f"{times:.1f}"])
    asked = f"{report['users']:,} users, {report['rounds']} rounds of {report['steps']} steps of 4 texts"
    counted = f"start-up included, median of {report['repetitions']}"
    head = f"bench federation: {asked}, {report['base']}, {report['dtype']}; {counted}"
    return "\n".join([head, "", *aligned(rows)])


def _run(settings: FederationBench) -> RunSettings:
    """The same choice of users and texts for all arms."""
    return RunSettings.read(
        {
            "data": settings.data,
            "base": settings.base,
            "dtype": settings.dtype,
            "users": settings.users,
            "max-texts": settings.texts,
            "new-users": 0.0,
            "length": settings.length,
            "num-server-rounds": settings.rounds,
            "steps": settings.steps,
            "private": False,
            "seal": False,
        }
    )


def _ours(settings: FederationBench, folder: Path) -> None:
    said = _run(settings).model_dump(by_alias=True, exclude_defaults=True)
    choices = [
        word for name, value in said.items() for word in ("-c", f"{name}={value}".replace("False", "false"))
    ]
    words = [sys.executable, "-m", "antefix_simulations", "run", "--out", str(folder)]
    subprocess.run([*words, "--rounds", str(settings.rounds), *choices], check=True, capture_output=True)


def _loop(settings: FederationBench, folder: Path) -> None:
    asked = (folder / "population.db", *(getattr(settings, name) for name in _SAID), settings.rounds)
    subprocess.run([sys.executable, "-m", f"{_PEER}.loop", *map(str, asked)], check=True)


def _flower(settings: FederationBench, folder: Path) -> None:
    config = {name: getattr(settings, name) for name in (*_SAID, "rounds")}
    config["population"] = str(folder / "population.db")
    federation = (
        f"num-supernodes={settings.users} client-resources-num-cpus=1 init-args-num-cpus={settings.workers}"
    )
    app = folder / "app"
    app.mkdir()
    with local_flower() as running:
        running.run(bundle(app, f"{_PEER}.server_app:app", f"{_PEER}.client_app:app", config), federation, {})


_ARMS: dict[str, Callable[[FederationBench, Path], None]] = {"ours": _ours, "flower": _flower, "loop": _loop}
