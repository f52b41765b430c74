"""`kill -9` during adds, replacements, key rotations and removals: see `tests/server/killing.py`."""

from pathlib import Path

import pytest

from tests.server.killing import Tally, run


def intact(tally: Tally, kills: int) -> None:
    assert (tally.kills, tally.lost, tally.torn, tally.back) == (kills, 0, 0, 0)
    assert min(tally.acknowledged.values()) > kills // 20  # each kind of call went on between kills
    assert tally.undecided > kills // 4  # and many kills hit one


def test_ten_kills_lose_nothing_and_bring_nobody_back(database: str | None, tmp_path: Path) -> None:
    tally = run(tmp_path, 10, database)
    assert (tally.kills, tally.lost, tally.torn, tally.back) == (10, 0, 0, 0)


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing_and_bring_nobody_back(database: str | None, tmp_path: Path) -> None:
    intact(run(tmp_path, 200, database, seed=2), 200)
