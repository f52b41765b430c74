"""A run that is killed at random points, without warning, ends in the same bytes as one that is not.

`ANTEFIX_RUN_KILLS=20` for the long run; CI does fewer.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from antefix import FrozenBase
from antefix_simulations.data.store import Population
from antefix_simulations.run.record_vault import RecordVault, Sealer
from tests.client.people import tiny_folder
from tests.support.trial_counts import RUN_KILLS

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "antefix_simulations", "run", "-c", "cohort-size=2", "-c", "steps=2"]


def contents(out: Path, base: FrozenBase) -> dict[str, bytes]:
    """Metrics, shared prefixes, and every private prefix as its user opens it."""
    found = {
        str(path.relative_to(out)): path.read_bytes() for path in out.glob("rounds/*/shared.safetensors")
    }
    found["metrics"] = (out / "metrics.jsonl").read_bytes()
    sealer = Sealer(out, base)
    with Population(out / "population.db") as population, RecordVault(out, population.count) as keeping:
        for user in population.numbers():
            with sealer.open(user, keeping.record(user), 8) as opened:
                found[f"private {user}"] = bytes(opened.payload)
    return found


def said(out: Path) -> Path:
    return out.with_suffix(".log")


def test_a_killed_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    folder, dice = tiny_folder(tmp_path / "base"), random.Random(3)
    base = FrozenBase.load(str(folder))

    def start(out: Path) -> "subprocess.Popen[bytes]":
        words = [*COMMAND, "--base", str(folder), "--out", str(out)]
        with said(out).open("wb") as log:
            return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log)

    began = time.monotonic()
    with start(tmp_path / "whole") as whole:
        assert whole.wait(300) == 0
    lasts = time.monotonic() - began
    kills, out = 0, [tmp_path / "killed 0"]
    while kills < RUN_KILLS:
        fresh, began = not out[-1].exists(), time.monotonic()
        with start(out[-1]) as one:
            try:
                # Most of it is the start: a run that goes on is killed in it, or somewhere in what is left.
                one.wait(dice.uniform(0.3, 1) * lasts)
                # There was nothing left to kill; the first one may have had a busier machine.
                lasts = min(lasts, time.monotonic() - began) if fresh else lasts
                out.append(tmp_path / f"killed {len(out)}")
            except subprocess.TimeoutExpired:
                one.kill()
                kills += 1
    expected = contents(tmp_path / "whole", base)
    for folder_of_one in out:
        with start(folder_of_one) as last:
            assert last.wait(300) == 0, said(folder_of_one).read_text()
        assert contents(folder_of_one, base) == expected
