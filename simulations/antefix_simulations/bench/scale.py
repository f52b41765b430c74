"""What a run costs besides the model, and how it grows: a tiny base, and thousands of users.

Each size runs in a process of its own: rounds, private prefixes, sealed records in a vault. What the model
takes is the processor time of its forward and backward passes; all the rest is ours.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from antefix.common.table import align

__all__ = ["bench_scale", "scale_table", "written"]

_TEXTS, _LETTERS = 17, 12


def bench_scale(sizes: Sequence[int], say: Callable[[str], None]) -> dict[str, Any]:
    """One row for each number of users; a report for JSON."""
    rows = []
    for users in sizes:
        say(f"{users:,} users")
        code = f"from {__name__} import _one; _one({users})"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return {"bench": "scale", "sizes": rows}


def scale_table(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    rows = [["users", "seconds", "ms/user", "outside the model", "peak MB"]]
    for row in report["sizes"]:
        each = f"{1e3 * row['seconds'] / row['users']:.1f}"
        outside, peak = f"{row['outside']:.0%}", f"{row['peak_mb']:,.0f}"
        rows.append([f"{row['users']:,}", f"{row['seconds']:.0f}", each, outside, peak])
    head = "bench scale: 2 layers of 64, prefixes of 4, 16 texts a user, 3 rounds of 2 steps, vault"
    return "\n".join([head, "", *align(rows)])


def _one(users: int) -> None:
    """A run in this process; a line of JSON on stdout."""
    from antefix import FrozenBase
    from antefix_simulations.bench.random_base import tiny_base
    from antefix_simulations.run.driver import LocalExecutor, Run

    with tempfile.TemporaryDirectory(prefix="antefix-bench-") as name:
        folder = Path(name)
        base = FrozenBase.load(str(tiny_base(folder / "base")), progress=False)
        settings = _settings(written(folder / "data.jsonl", users))
        started, before = time.perf_counter(), time.process_time()
        with _model_time() as model, Run(folder / "out", settings, base, lambda _: None, False) as run:
            run.go(LocalExecutor(base, run.population, settings, run.out))
        took, all = time.perf_counter() - started, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({"users": users, "seconds": took, "outside": 1 - sum(model) / all, "peak_mb": peak}))


def _settings(data: Path) -> Any:
    from antefix_simulations.settings import RunSettings

    return RunSettings(
        data=str(data),
        length=4,
        cohort_size=256,
        steps=2,
        max_texts=_TEXTS,
        max_held_out=1,
        new_users=0.0,
        private_passes=0.5,
        others=0,
        matrix=0,
    )


def written(path: Path, users: int) -> Path:
    """A file of texts of so many users."""
    dice = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for user in range(users):
            for _ in range(_TEXTS):
                text = "".join(dice.choices("abcdefghij klmno", k=_LETTERS)) + str(dice.randrange(100))
                file.write(json.dumps({"user": f"u{user}", "text": text}) + "\n")
    return path


@contextmanager
def _model_time() -> Iterator[list[float]]:
    """Processor seconds of the model's passes, one number for each micro-batch."""
    from antefix.evaluation import scoring
    from antefix.training import train

    found: list[float] = []
    places: tuple[Any, ...] = (train, scoring)
    run_rows = places[0].run_rows

    def timed(*given: Any) -> Any:
        began = time.thread_time()
        try:
            return run_rows(*given)
        finally:
            found.append(time.thread_time() - began)

    for place in places:
        place.run_rows = timed
    try:
        yield found
    finally:
        for place in places:
            place.run_rows = run_rows
