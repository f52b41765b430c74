"""Hosted inference while users come and go: no error, flat memory, every answer the reference's to the bit.

An hour: `python -m tests.server.soak_loop smollm2-135m-q4 3600`.
"""

from pathlib import Path

import pytest

from tests.client.people import tiny_folder
from tests.server.soak_loop import soak
from tests.support.trial_counts import SOAK_SECONDS


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_grows(tmp_path: Path) -> None:
    done, differing = soak(tmp_path, str(tiny_folder(tmp_path / "base")), SOAK_SECONDS, SOAK_SECONDS)
    tally = done.tally
    assert tally.errors == []
    assert min(tally.counts[what] for what in ("joined", "left", "answers", "revoked")) > 5
    assert tally.samples
    assert differing == 0
    assert tally.growth < 1.05
