"""An arm is one class and one line: a run, its metrics, summary, report and comparison have it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from antefix import Prefix
from antefix.errors import InvalidArgument
from antefix_simulations.arms.interface import Arm, MethodSettings
from antefix_simulations.arms.registry import ARMS, arm_class, optional_arms
from antefix_simulations.data.store import Split
from antefix_simulations.report.comparison import compare
from antefix_simulations.report.html import write_report
from antefix_simulations.report.summary import read_summary
from antefix_simulations.run.cost import costs
from antefix_simulations.run.driver import LocalExecutor, Run
from antefix_simulations.run.tuning import methods
from antefix_simulations.settings import RunSettings
from tests.support import tiny_models

QUICK = {"num-server-rounds": 1, "steps": 1, "max-texts": 12, "private-passes": 0.5, "users": 3}
FIELDS_OF_A_LINE = {"user", "kind", "texts", "failed", "diverged", "matrix", "written", "history", "round"}
KINDS_OF_TASKS = {"round", "newcomers", "personal", "history"}


class Constant(Arm):
    """Claims the same loss for everybody, and the learning rate on top."""

    @staticmethod
    def learning_rate(settings: MethodSettings) -> float:
        return 0.125

    def losses(self, users: Mapping[int, Split], shared: Prefix, rate: float = 0.0) -> dict[int, float]:
        return {user: 1.0 + (rate or 0.125) for user in users}


@pytest.fixture
def constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARMS, "constant-1", f"{__name__}:Constant")  # the one line


def run(out: Path, **settings: object) -> Path:
    base = tiny_models.base("llama")
    values = RunSettings.read({**QUICK, **{name.replace("_", "-"): one for name, one in settings.items()}})
    with Run(out, values, base, lambda line: None, progress=False) as running:
        running.go(LocalExecutor(base, running.population, values, out))
    return out


@pytest.mark.slow
@pytest.mark.usefixtures("constant")
def test_an_arm_that_is_registered_is_everywhere(tmp_path: Path) -> None:
    out = run(tmp_path / "run", arms="constant-1", tune_users=2, tune_factors="1,2")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    personal = [line for line in lines if line.get("kind") == "personal"]
    assert [line["constant-1"] for line in personal] == [1.125] * 3  # the lower rate of 0.125 and 0.25
    summary = read_summary(out)
    assert summary.arms == ["none", "shared", "others", "private", "constant-1"]
    assert "constant-1" in summary.as_text()
    assert [row[0] for row in summary.tuning_rows()] == ["private", "constant-1"]
    assert [row[0] for row in costs(out / "times.jsonl")][-2:] == ["arm: constant-1", "tuning"]
    page = write_report(out).read_text()
    assert "<td>constant-1</td><td>1.125</td>" in page
    assert "<td>arm: constant-1</td>" in page
    assert "constant-1" in compare([out, out]).arms


@pytest.mark.usefixtures("constant")
def test_the_settings_take_it_and_no_other() -> None:
    settings = RunSettings.read({"arms": "constant-1"})
    assert methods(settings) == {"private": settings.private_learning_rate, "constant-1": 0.125}
    with pytest.raises(InvalidArgument, match=r"there is no arm 'constant': .*, full, constant-1"):
        RunSettings.read({"arms": "constant"})


def test_no_name_is_taken_by_something_else() -> None:
    assert not set(ARMS) & (FIELDS_OF_A_LINE | KINDS_OF_TASKS)
    assert not [name for name in ARMS if name.startswith("tune_") or name.endswith(" failed")]


@pytest.mark.parametrize("name", optional_arms())
def test_every_line_names_an_arm_that_the_docs_explain(name: str, repository: Path) -> None:
    assert issubclass(arm_class(name), Arm)
    assert f"`{name}`" in (repository / "docs" / "guides" / "simulate.md").read_text("utf-8")


def test_names_are_there_without_torch() -> None:
    code = "import sys, antefix_simulations.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
