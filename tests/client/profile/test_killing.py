"""`kill -9` during remember, remove, learn and roll_back: see `tests/client/kill_loop.py`.

In a process of its own: a child of a process that has run torch in threads cannot run it.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.trial_counts import PROFILE_KILLS

_ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1") | {"TOKENIZERS_PARALLELISM": "false"}


def tally(folder: Path, kills: int) -> dict[str, int]:
    """What `killing` found; where it goes on for too long, where it was."""
    with subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "tests.client.kill_loop", str(folder), str(kills)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | _ALONE,
    ) as child:
        try:
            found, said = child.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)
            found, said = child.communicate()
    assert child.returncode == 0, said
    return {name: int(value) for name, value in re.findall(r"'?(\w+)'?[=:] ?(\d+)", found)}


def intact(found: dict[str, int], kills: int) -> None:
    wanted = dict.fromkeys(("not_opened", "texts_lost", "texts_back", "versions_lost", "left_over"), 0)
    assert {name: found[name] for name in wanted} == wanted
    assert found["kills"] == kills
    assert min(found[name] for name in ("remember", "remove", "learn", "roll_back", "unlock")) > kills // 20


@pytest.mark.slow
def test_many_kills_lose_nothing(tmp_path: Path) -> None:
    intact(tally(tmp_path, PROFILE_KILLS), PROFILE_KILLS)
