"""`kill -9` during remember, remove, learn and roll_back: see `tests/client/killing.py`.

In a process of its own: a child of a process that has run torch in threads cannot run it.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest


def tally(folder: Path, kills: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.killing", str(folder), str(kills)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return {name: int(value) for name, value in re.findall(r"'?(\w+)'?[=:] ?(\d+)", done.stdout)}


def intact(found: dict[str, int], kills: int) -> None:
    wanted = dict.fromkeys(("not_opened", "texts_lost", "texts_back", "versions_lost", "left_over"), 0)
    assert {name: found[name] for name in wanted} == wanted
    assert found["kills"] == kills
    assert min(found[name] for name in ("remember", "remove", "learn", "roll_back", "unlock")) > kills // 20


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    intact(tally(tmp_path, 100), 100)
