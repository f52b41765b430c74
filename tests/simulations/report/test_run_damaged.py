"""Files of a run that are not as it left them are named, in one line."""

import json
import shutil
from pathlib import Path

import pytest

from antefix.errors import InvalidArgument
from antefix_simulations.report.comparison import compare
from antefix_simulations.report.html import write_report
from antefix_simulations.report.summary import read_summary
from antefix_simulations.run.cost import add_line, costs, read_times
from tests.simulations.run.test_run import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("done"), num_server_rounds=1)


def broken(done: Path, out: Path, name: str, content: bytes) -> Path:
    shutil.copytree(done, out)
    (out / name).write_bytes(content)
    for path in out.glob("work/personal*"):  # something is left to do
        path.unlink()
    return out


@pytest.mark.parametrize("name", ["rounds/00001/shared.safetensors", "rounds/00001/rule.npz", "keys", "ids"])
def test_what_cannot_be_made_again_is_named(done: Path, tmp_path: Path, name: str) -> None:
    out = broken(done, tmp_path / "out", name, (done / name).read_bytes()[:-7])
    rounds = 2 if name.endswith("rule.npz") else 1
    config = (
        (out / "config.json").read_text().replace('"num-server-rounds": 1', f'"num-server-rounds": {rounds}')
    )
    (out / "config.json").write_text(config)
    with pytest.raises(InvalidArgument, match=rf"{name} is damaged"):
        run(out, num_server_rounds=rounds)


def test_a_prefix_that_leaves_no_room_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"length is 300, and base .* has a context of 256"):
        run(tmp_path / "out", length=300)
    assert not (tmp_path / "out").exists()


def test_damaged_texts_are_told(done: Path, tmp_path: Path) -> None:
    content = bytearray((done / "population.db").read_bytes())
    content[4096 : len(content) - 4096] = bytes(len(content) - 8192)
    with pytest.raises(InvalidArgument, match=r"population.db (is damaged|is no population)"):
        run(broken(done, tmp_path / "out", "population.db", bytes(content)), num_server_rounds=1)


def test_a_time_that_was_cut_off_is_left_out(done: Path, tmp_path: Path) -> None:
    times = tmp_path / "times.jsonl"
    whole = (done / "times.jsonl").read_bytes()
    times.write_bytes(whole[:-20])
    before = len(whole.splitlines())
    assert len(read_times(times)) == before - 1
    add_line(times, json.loads(whole.splitlines()[0]))
    assert len(read_times(times)) == before
    assert costs(times)
    out = broken(done, tmp_path / "out", "times.jsonl", whole[:-20])
    assert write_report(run(out, num_server_rounds=1)).is_file()


def test_runs_of_texts_that_changed_do_not_compare(done: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    assert compare([done, copy]).users
    first, *lines = (copy / "metrics.jsonl").read_text().splitlines()
    other = json.loads(first)
    assert len(other["texts"]) == 64
    other["texts"] = "0" * 64
    (copy / "metrics.jsonl").write_text("\n".join([json.dumps(other), *lines]))
    with pytest.raises(InvalidArgument, match="the data changed between these runs"):
        compare([done, copy])


def test_nobody_is_alone_in_a_cohort_and_who_is_all_the_same_is_told(tmp_path: Path) -> None:
    found = read_summary(run(tmp_path / "seven", num_server_rounds=1, cohort_size=7))
    assert "others" in found.arms
    alone = read_summary(run(tmp_path / "one", num_server_rounds=1, cohort_size=1))
    assert "others" not in alone.arms
    assert any("others is left out: 8 users failed: nobody else" in line for line in alone.failures())
