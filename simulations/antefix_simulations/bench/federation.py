"""Rounds of many users, start-up included: ours, Flower with PEFT as its users write it, PEFT in a loop."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from antefix.common.table import align
from antefix.errors import InvalidArgument
from antefix_simulations.common.memory import peak_memory
from antefix_simulations.data.sources import population_of
from antefix_simulations.flower.local import bundle, local_flower
from antefix_simulations.settings import RunSettings

__all__ = ["FederationBench", "bench_federation", "federation_table"]

_PEFT = "antefix_simulations.bench.flower_peft"
_TINY_TEXTS, _TINY_LETTERS = 17, 12
_PASSED_ON = ("base", "dtype", "length", "steps")


@dataclass(frozen=True)
class FederationBench:
    """What is measured.

    Attributes:
        data, base, dtype, length: as in a run.
        tiny: a base of 2 layers and made-up texts in place of those: what is left is not the model.
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
    tiny: bool = False


def bench_federation(settings: FederationBench, say: Callable[[str], None]) -> dict[str, Any]:
    """Each arm in processes of its own, from nothing to the end of the last round; a report for JSON.

    All arms read the same texts from the same file, in steps of the same size. First each does a round of one
    user, which is what a start takes.

    Raises:
        InvalidArgument: there is no such arm.
    """
    arms = settings.arms
    for arm in arms:
        if arm not in _ARMS:
            raise InvalidArgument(f"there is no arm {arm!r:.40}", f"use of {', '.join(_ARMS)}")
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    with _tiny_if_asked(settings) as actual:
        say("one user")
        alone = {arm: _time(arm, replace(actual, users=1, rounds=1))[0] for arm in arms}
        peaks = dict.fromkeys(arms, 0.0)
        for number in range(actual.repetitions):
            for arm in arms if number % 2 == 0 else arms[::-1]:
                say(f"{arm}, {number + 1} of {actual.repetitions}")
                seconds, memory = _time(arm, actual)
                times[arm].append(seconds)
                peaks[arm] = max(peaks[arm], memory)
    user_rounds = actual.users * actual.rounds
    rows = {
        arm: {
            "seconds": median(seconds),
            "users_per_s": user_rounds / median(seconds),
            "one_user_s": alone[arm],
            "peak_mb": peaks[arm],
        }
        for arm, seconds in times.items()
    }
    return {"bench": "federation", **asdict(settings), "measured": rows}


def federation_table(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    measured = report["measured"]
    rows = [["arm", "seconds", "users/s", "ours is faster by", "one user, s", "peak MB", "MB/user"]]
    for arm, figures in measured.items():
        factor = figures["seconds"] / measured["ours"]["seconds"] if "ours" in measured else float("nan")
        rate, alone, peak = figures["users_per_s"], figures["one_user_s"], figures["peak_mb"]
        row = [
            arm,
            f"{figures['seconds']:.1f}",
            f"{rate:.2f}",
            f"{factor:.1f}",
            f"{alone:.1f}",
            f"{peak:,.0f}",
        ]
        rows.append([*row, f"{peak / report['users']:,.2f}"])
    work = f"{report['users']:,} users, {report['rounds']} rounds of {report['steps']} steps of 4 texts"
    counted = f"start-up included, median of {report['repetitions']}"
    base = "a base of 2 layers" if report["tiny"] else report["base"]
    head = f"bench federation: {work}, {base}, {report['dtype']}; {counted}"
    return "\n".join([head, "", *align(rows)])


@contextmanager
def _tiny_if_asked(settings: FederationBench) -> Iterator[FederationBench]:
    """With the tiny base and its texts on the disk, where they are asked for."""
    if not settings.tiny:
        yield settings
        return
    from antefix_simulations.bench.random_base import tiny_base

    with tempfile.TemporaryDirectory(prefix="antefix-bench-") as folder:
        base, data = (
            tiny_base(Path(folder) / "base"),
            _write_texts(Path(folder) / "data.jsonl", settings.users),
        )
        yield replace(settings, base=str(base), data=str(data))


def _write_texts(path: Path, users: int) -> Path:
    """Made-up texts of so many users."""
    dice = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for user in range(users):
            for _ in range(_TINY_TEXTS):
                text = "".join(dice.choices("abcdefghij klmno", k=_TINY_LETTERS)) + str(dice.randrange(100))
                file.write(json.dumps({"user": f"u{user}", "text": text}) + "\n")
    return path


def _time(arm: str, settings: FederationBench) -> tuple[float, float]:
    """Seconds from nothing to the end, and the most MB of all its processes."""
    with tempfile.TemporaryDirectory(prefix="antefix-bench-") as folder:
        population_of(_run_settings(settings), Path(folder) / "population.db").close()
        with peak_memory() as peak:
            started = time.perf_counter()
            _ARMS[arm](settings, Path(folder))
            seconds = time.perf_counter() - started
    return seconds, peak.mb


def _run_settings(settings: FederationBench) -> RunSettings:
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
    config = _run_settings(settings).model_dump(by_alias=True, exclude_defaults=True)
    choices = [
        word for name, value in config.items() for word in ("-c", f"{name}={value}".replace("False", "false"))
    ]
    words = [sys.executable, "-m", "antefix_simulations", "run", "--out", str(folder)]
    subprocess.run([*words, "--rounds", str(settings.rounds), *choices], check=True, capture_output=True)


def _loop(settings: FederationBench, folder: Path) -> None:
    arguments = (folder / "population.db", *(getattr(settings, name) for name in _PASSED_ON), settings.rounds)
    subprocess.run([sys.executable, "-m", f"{_PEFT}.loop", *map(str, arguments)], check=True)


def _flower(settings: FederationBench, folder: Path) -> None:
    config = {name: getattr(settings, name) for name in (*_PASSED_ON, "rounds")}
    config["population"] = str(folder / "population.db")
    federation = (
        f"num-supernodes={settings.users} client-resources-num-cpus=1 init-args-num-cpus={settings.workers}"
    )
    app = folder / "app"
    app.mkdir()
    with local_flower() as running:
        running.run(bundle(app, f"{_PEFT}.server_app:app", f"{_PEFT}.client_app:app", config), federation, {})


_ARMS: dict[str, Callable[[FederationBench, Path], None]] = {"ours": _ours, "flower": _flower, "loop": _loop}
