"""Runs of different seeds as one: whom two of them drew counts once."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from antefix.errors import InvalidArgument
from antefix_simulations.cli import app
from antefix_simulations.report.pooling import pool_runs
from antefix_simulations.settings import RunSettings


def run_of(folder: Path, seed: int, losses: dict[str, float], **changed: Any) -> Path:
    """A finished run's metrics; the shared prefix loses one nat more than the private one."""
    asked = RunSettings.read({"data": "texts.jsonl", "seed": seed, **changed}).model_dump(by_alias=True)
    lines: list[dict[str, Any]] = [{"run": "antefix-sim run", "settings": asked, "bytes": {}}]
    lines += [{"kind": "round", "round": 0}, {"kind": "personal", "user": "gone", "failed": "EmptyText"}]
    lines += [
        {
            "kind": "personal",
            "user": user,
            "texts": 30,
            "private": loss,
            "shared": loss + 1,
            "history": {"8": loss + 0.5},
        }
        | ({"lora": 1.0} if seed == 0 else {})
        for user, loss in losses.items()
    ]
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_user_of_two_runs_counts_once_with_the_mean(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / "0", 0, {"ann": 1.0, "bob": 2.0}),
        run_of(tmp_path / "1", 1, {"ann": 3.0, "cid": 7.0}),
    ]
    found = pool_runs(runs)
    losses = {line["user"]: line["private"] for line in found.users}
    assert losses == {"ann": 2.0, "bob": 2.0, "cid": 7.0}
    assert found.arms == ["shared", "private"]  # not every user of every run has the others
    assert found.mean("private").mean == pytest.approx(11 / 3)
    assert found.gain("private", "shared").mean == pytest.approx(1)
    assert found.curve()[0][2].mean == pytest.approx(0.5)
    assert len(found.failed) == 2
    told = CliRunner().invoke(app, ["compare", "--pool", *map(str, runs)])
    assert "3 users" in told.stdout


def test_runs_of_one_seed_or_of_other_texts_are_not_pooled(tmp_path: Path) -> None:
    first = run_of(tmp_path / "0", 0, {"ann": 1.0})
    with pytest.raises(InvalidArgument, match="seeds of these runs are 0, 0"):
        pool_runs([first, run_of(tmp_path / "again", 0, {"ann": 1.0})])
    with pytest.raises(InvalidArgument, match="in different ways"):
        pool_runs([first, run_of(tmp_path / "other", 1, {"ann": 1.0}, **{"max-texts": 20})])
    with pytest.raises(InvalidArgument, match="no finished run"):
        pool_runs([first, tmp_path / "nothing"])
