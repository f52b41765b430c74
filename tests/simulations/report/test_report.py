"""The report of a run: whole, by itself, and nobody's name is code in it."""

import json
import re
from pathlib import Path

import pytest

from antefix_simulations.report import plots
from antefix_simulations.report.comparison import compare
from antefix_simulations.report.html import write_report
from antefix_simulations.report.summary import read_summary
from tests.simulations.run.test_run import run

pytestmark = pytest.mark.slow

HOSTILE = '<script>alert("1")</script> $x^2$'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    data = folder / "data.jsonl"
    names = [HOSTILE, "öl & wasser", "世界 🎉", *(f"u{number}" for number in range(5))]
    rows = [{"user": name, "text": f"{at} {name[::-1]}"} for name in names for at in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = run(folder / "out", data=str(data), cohort_size=8, noise_multiplier=1.0)
    return write_report(out).read_text("utf-8")


def test_it_has_every_picture_and_needs_nothing_else(page: str) -> None:
    assert page.count("<svg") == 6
    for title in (
        "Gain of each user",
        "New users",
        "Gain and history",
        "Whose prefix is whose",
        "Cost",
        "Privacy",
    ):
        assert f"<h2>{title}</h2>" in page
    assert not re.findall(r"(?:src|href)=\"(?!#|data:image/png;base64,)", page)


def test_names_of_any_script_are_text(page: str) -> None:
    """The library's font has no such letters, and warned of it; here warnings are errors."""
    assert "世界 🎉" in page


def test_who_failed_is_told(tmp_path: Path) -> None:
    page = write_report(run(tmp_path, max_text_tokens=1)).read_text("utf-8")
    assert "8 users failed: all texts of a side are too long; see metrics.jsonl" in page


def test_names_are_no_code(page: str) -> None:
    assert "<script" not in page


@pytest.mark.slow
def test_the_same_run_gives_the_same_pictures(tmp_path: Path) -> None:
    summary = read_summary(run(tmp_path))
    assert plots.gains(summary) == plots.gains(summary)


def test_one_user_has_no_interval_and_no_plural(tmp_path: Path) -> None:
    """The table said "+0.041 (+0.041…+0.041)" of 1 users."""
    head = {"settings": {"seed": 0}, "bytes": {}}
    line = {"kind": "personal", "user": "al", "texts": 9, "none": 3.0, "shared": 2.5, "private": 2.0}
    lines = [head, {"kind": "round", "round": 0}, {"kind": "round", "round": 1}, line]
    lines += [{"kind": "newcomers", "round": at, "user": "bo", "loss": 3.0 - at} for at in range(2)]
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    text = read_summary(folders[0]).as_text()
    assert text.startswith("1 user, 1 round\n")
    assert "round 1 is worth 1.000 (\N{EN DASH}) nats/token to 1 new user" in text
    assert "…" not in text
    text = compare(folders).as_text()
    assert text.startswith("1 user of all runs;")
    assert "+0.000 (\N{EN DASH})" in text
