"""The bench of rounds: every arm from nothing, with what it takes in time and memory."""

import subprocess
import sys

import pytest

from antefix.errors import InvalidArgument
from antefix_simulations.bench.federation import FederationBench, bench_federation, federation_table
from antefix_simulations.common.memory import peak_memory


@pytest.mark.slow
def test_ours_and_a_loop_from_nothing() -> None:
    settings = FederationBench("", "", users=8, length=4, steps=1, arms=("ours", "loop"), tiny=True)
    said: list[str] = []
    report = bench_federation(settings, said.append)
    assert said == ["one user", "ours, 1 of 1", "loop, 1 of 1"]
    for found in report["measured"].values():
        assert found["users_per_s"] == pytest.approx(8 / found["seconds"])
        assert found["one_user_s"] > 0.5  # a Python that loads torch
        assert found["peak_mb"] > 100
    table = federation_table(report)
    assert "a base of 2 layers" in table
    assert len(table.splitlines()) == 5


def test_an_arm_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no arm 'theirs'"):
        bench_federation(FederationBench("sample", "", users=8, arms=("ours", "theirs")), lambda _: None)


@pytest.mark.slow
def test_memory_of_what_a_child_takes_and_its_child() -> None:
    code = "import time; held = bytearray(b'x') * (100 << 20); time.sleep(1.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with peak_memory() as peak:
        subprocess.run([sys.executable, "-c", parent], check=True)
    assert 100 < peak.mb < 250
