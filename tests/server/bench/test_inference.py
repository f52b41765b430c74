"""The bench of hosted inference: what it counts, and what it refuses to count."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from antefix.errors import InvalidArgument
from antefix_server.bench.inference import ServeBench, run
from antefix_server.bench.load_generator import Call, Load, Outcome, arrivals, load
from antefix_server.cli import app
from antefix_server.http import tls
from tests.client.people import tiny_folder

CALLS = [Call(number % 3, "a", 4) for number in range(400)]


def test_calls_come_at_random_times_the_same_for_a_seed() -> None:
    timed = arrivals(CALLS, 8.0)
    assert timed == arrivals(CALLS, 8.0)
    assert timed != arrivals(CALLS, 8.0, seed=1)
    assert [one.at for one in timed] == sorted(one.at for one in timed)
    assert 400 / timed[-1].at == pytest.approx(8.0, rel=0.2)
    assert [one.caller for one in timed] == [one.caller for one in CALLS]


def test_a_rate_is_of_all_calls_together() -> None:
    found = Load([Outcome(0.1, 1.0, 30), Outcome(0.0, 2.0, 0, "ReadError")], 2.0)
    assert found.rate == 15
    assert found.errors == ["ReadError"]


def test_a_call_that_reaches_nobody_is_an_error(tmp_path: Path) -> None:
    authority = tls.own(tmp_path, []).authority
    assert authority is not None
    found = load("https://localhost:1", authority, ["t"], [Call(0, "a", 4)], timed=False)
    assert found.errors == ["ConnectError"]


def test_more_callers_than_users_are_refused() -> None:
    settings = ServeBench("none", "fp32", (10,), (8,), 4, 4, 4, 1, 1, 3, 1)
    with pytest.raises(InvalidArgument, match="10 users, of whom 11 call"):
        run(settings, lambda _: None)


@pytest.mark.slow
def test_the_bench_of_hosted_inference_end_to_end(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "base")
    sizes = ["--users", "9", "--users", "14", "--callers", "1", "--callers", "4", "--openings", "5"]
    lengths = ["--new-tokens", "3", "--arrivals", "6", "--repetitions", "1", "--length", "3"]
    done = CliRunner().invoke(app, ["bench", "serve", "--base", str(folder), *sizes, *lengths, "--json"])
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert [size["users"] for size in report["sizes"]] == [9, 14]
    for size in report["sizes"]:
        assert set(size["tokens_per_s"]) == {"own 1", "none 1", "own 4", "none 4"}
        assert all(rate > 0 for rate in size["tokens_per_s"].values())
        assert size["times"]["opening"]["count"] == 5
        assert size["times"]["whole answer, at their times"]["count"] == 6
        assert size["errors"] == 0
