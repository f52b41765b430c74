"""`kill -9` during adds, replacements, key rotations and removals: see `tests/server/kill_loop.py`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.kill_loop import Tally
from tests.support.trial_counts import SERVER_KILLS


def tally(folder: Path, kills: int, url: str | None) -> Tally:
    words = [str(folder), str(kills), "2", *([url] if url else [])]
    done = subprocess.run(
        [sys.executable, "-m", "tests.server.kill_loop", *words], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return Tally(**json.loads(done.stdout))


def intact(found: Tally, kills: int) -> None:
    assert (found.kills, found.lost, found.torn, found.back) == (kills, 0, 0, 0)
    assert min(found.acknowledged.values()) > kills // 20  # each kind of call went on between kills
    assert found.undecided > kills // 4  # and many kills hit one


@pytest.mark.slow
def test_ten_kills_lose_nothing_and_bring_nobody_back(database: str | None, tmp_path: Path) -> None:
    found = tally(tmp_path, 10, database)
    assert (found.kills, found.lost, found.torn, found.back) == (10, 0, 0, 0)


@pytest.mark.slow
def test_many_kills_lose_nothing_and_bring_nobody_back(database: str | None, tmp_path: Path) -> None:
    intact(tally(tmp_path, SERVER_KILLS, database), SERVER_KILLS)
