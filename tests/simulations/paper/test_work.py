"""A folder of the paper's cells: what is done stays done, gaps are filled, rates are chosen once."""

import gzip
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from antefix import FrozenBase
from antefix.errors import InvalidArgument, OutOfMemory
from antefix_simulations.cli import app
from antefix_simulations.paper import metrics as scores_module
from antefix_simulations.paper.cell import Cell
from antefix_simulations.paper.methods import METHODS
from antefix_simulations.paper.metrics import Score
from antefix_simulations.paper.source import Source
from antefix_simulations.paper.work import CellRunner
from tests.simulations.paper.paper_task import SETTINGS, cell_of, fake_cell, saved, work_of, write_task
from tests.support import tiny_models

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR's program takes ten seconds to read its tables, each time; its own tests are elsewhere."""
    monkeypatch.setattr(shutil, "which", lambda name: None)


@pytest.fixture(scope="module")
def base() -> FrozenBase:
    return FrozenBase.from_model(tiny_models.model("llama"), tiny_models.tokenizer(), name="tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("data") / "task.jsonl")


def test_what_is_done_stays_done_and_a_cut_line_is_done_again(
    base: FrozenBase, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = work_of(base, data, tmp_path).result(cell_of("prefix"))
    with monkeypatch.context() as without:
        without.setattr(CellRunner, "_do", None)
        assert work_of(base, data, tmp_path).result(cell_of("prefix")) == first
    kept = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(kept[: len(kept) - 20])
    again = work_of(base, data, tmp_path).result(cell_of("prefix"))
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    (written,) = (tmp_path / "written").iterdir()
    assert len(json.loads(written.read_text())["texts"]) == SETTINGS.tests


def test_what_was_missing_is_computed_from_what_was_written(
    base: FrozenBase, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meteor(result: dict[str, Any], part: str) -> Any:
        return result["parts"][part]["scores"]["METEOR"]["value"]

    first = work_of(base, data, tmp_path).result(cell_of("nothing"))
    assert meteor(first, "all") is None  # without Java
    length = len((tmp_path / "metrics.jsonl").read_text().splitlines())
    work_of(base, data, tmp_path).result(cell_of("nothing"))  # still none: nothing is written again
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == length
    monkeypatch.setitem(scores_module.MEASURES, "METEOR", lambda texts, right: Score(50.0 + len(texts)))
    with monkeypatch.context() as without:
        without.setattr(CellRunner, "_do", None)
        again = work_of(base, data, tmp_path).result(cell_of("nothing"))
        assert [meteor(again, part) for part in ("seen", "unseen", "all")] == [52.0, 52.0, 54.0]
        assert work_of(base, data, tmp_path).result(cell_of("nothing")) == again
    assert {**again, "parts": 0} == {**first, "parts": 0}


def test_what_is_missing_stays_so_without_what_was_written(
    base: FrozenBase, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = work_of(base, data, tmp_path).result(cell_of("nothing"))
    shutil.rmtree(tmp_path / "written")
    monkeypatch.setitem(scores_module.MEASURES, "METEOR", lambda texts, right: Score(50.0))
    assert work_of(base, data, tmp_path).result(cell_of("nothing")) == first


def test_a_damaged_folder_is_said_and_loses_nothing(base: FrozenBase, data: Path, tmp_path: Path) -> None:
    work_of(base, data, tmp_path).result(cell_of("nothing"))
    metrics = tmp_path / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole.replace('"parts"', '"pasts"'))
    with pytest.raises(InvalidArgument, match=r"is damaged.*delete that line"):
        work_of(base, data, tmp_path).result(cell_of("nothing"))
    assert metrics.read_text() == whole.replace('"parts"', '"pasts"')
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "metrics.jsonl").touch()
    work_of(base, data, empty)
    (empty / "written").rmdir()
    (empty / "written").write_text("a file")
    with pytest.raises(InvalidArgument, match="written cannot be made"):
        work_of(base, data, empty)


def test_a_rate_is_chosen_on_other_texts_once_for_all_cells(
    base: FrozenBase, data: Path, tmp_path: Path
) -> None:
    work = work_of(base, data, tmp_path, factors=(0.3, 3.0))
    rates = {work.result(cell_of("prefix", sample=sample))["rate"] for sample in (0, 1)}
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    tried = {line["rate"]: line["nats_per_token"] for line in lines[1:] if line["arm"].startswith("rate")}
    assert sorted(tried) == pytest.approx([3e-3, 3e-2])
    assert rates == {min(tried, key=lambda rate: tried[rate])}


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (1.0, [0.3, 1, 3]),
        (3.0, [0.3, 1, 3, 10]),
        (9.0, [0.3, 1, 3, 10, 30]),
        (99.0, [0.3, 1, 3, 10, 30]),
        (0.2, [0.3, 1, 3, 0.1]),
        (0.01, [0.3, 1, 3, 0.1, 0.03]),
    ],
)
def test_a_grid_goes_on_where_its_outermost_rate_is_the_best(
    best: float,
    tried: list[float],
    base: FrozenBase,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[float] = []

    def trying(work: CellRunner, cell: Cell, source: Source, rate: float) -> float:
        seen.append(rate / METHODS["prefix"].rate)
        return abs(math.log(seen[-1] / best))

    monkeypatch.setattr(CellRunner, "_try", trying)
    monkeypatch.setattr(CellRunner, "_do", fake_cell)
    work = work_of(base, data, tmp_path, factors=(0.3, 1.0, 3.0), beyond=(0.03, 0.1, 10.0, 30.0))
    found = work.result(cell_of("prefix"))
    assert seen == pytest.approx(tried)
    assert found["rate"] / METHODS["prefix"].rate == pytest.approx(
        min(tried, key=lambda one: abs(math.log(one / best)))
    )


def test_a_cell_of_another_rate_is_done_again(base: FrozenBase, data: Path, tmp_path: Path) -> None:
    work = work_of(base, data, tmp_path)
    first = work.result(cell_of("prefix"))
    lines = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(lines.replace(f'"rate": {first["rate"]}', '"rate": 7.0'))
    again = work_of(base, data, tmp_path).result(cell_of("prefix"))
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


def test_a_folder_of_other_settings_and_a_task_without_a_file_are_refused(
    base: FrozenBase, data: Path, tmp_path: Path
) -> None:
    work_of(base, data, tmp_path)
    with pytest.raises(InvalidArgument, match="another budget"):
        work_of(base, data, tmp_path, budget=99)
    with pytest.raises(InvalidArgument, match="no data for e2e"):
        CellRunner(base, {}, SETTINGS, tmp_path, lambda line: None).result(cell_of("nothing"))


def test_another_file_of_a_task_is_another_cell(base: FrozenBase, data: Path, tmp_path: Path) -> None:
    work_of(base, data, tmp_path / "out").result(cell_of("nothing"))
    other = tmp_path / "other.jsonl"
    other.write_text(data.read_text().replace("red", "pink"))
    work_of(base, other, tmp_path / "out").result(cell_of("nothing"))
    same = tmp_path / "same.jsonl.gz"
    rows = [{"id": number, **json.loads(line)} for number, line in enumerate(data.read_text().splitlines())]
    same.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    work_of(base, same, tmp_path / "out").result(cell_of("nothing"))
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert len(list((tmp_path / "out" / "written").iterdir())) == 2


def test_a_table_that_is_cut_off_has_a_sample_of_each_row(
    base: FrozenBase, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []

    def noted(work: CellRunner, cell: Cell, source: Source, rate: float) -> tuple[float, dict[str, Any]]:
        done.append((cell.method, cell.sample))
        return fake_cell(work, cell, source, rate)

    monkeypatch.setattr(CellRunner, "_do", noted)
    names = ("prefix", "LoRA")
    cells = {name: [cell_of(name, sample=sample) for sample in (0, 1)] for name in names}
    found = work_of(base, data, tmp_path).results(cells)
    assert done == [("prefix", 0), ("LoRA", 0), ("prefix", 1), ("LoRA", 1)]
    samples = {name: [one["arm"][-1] for one in some] for name, some in found.items()}
    assert samples == {"prefix": ["0", "1"], "LoRA": ["0", "1"]}


def test_the_page_of_a_table_is_there_after_each_cell(
    base: FrozenBase, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out, pages = saved(tmp_path / "base"), tmp_path / "out", []

    def seen(work: CellRunner, cell: Cell, source: Source, rate: float) -> tuple[float, dict[str, Any]]:
        pages.append((out / "low-data.md").read_text() if (out / "low-data.md").exists() else "")
        if len(pages) == 5:
            raise KeyboardInterrupt
        return fake_cell(work, cell, source, rate)

    monkeypatch.setattr(CellRunner, "_do", seen)
    monkeypatch.setattr(CellRunner, "_rate", lambda work, cell, source: 1.0)
    words = ["paper", "low-data", "--base", str(folder), "--data", str(data), "--out", str(out)]
    stopped = CliRunner().invoke(app, words)
    assert "the same command goes on" in stopped.stderr
    assert pages[0] == ""
    assert "1 of 36 cells are done" in pages[1]
    assert "Prefix over fine-tuning: +" in pages[3]
    assert "on average of 1; 50 texts" in pages[3]
    assert "| LoRA, 100 texts |" not in pages[4]
    assert (out / "low-data.svg").exists()
    monkeypatch.setattr(CellRunner, "_do", fake_cell)
    assert CliRunner().invoke(app, words).exit_code == 0
    assert "cells are done" not in (out / "low-data.md").read_text()
    assert "on average of 12; " in (out / "low-data.md").read_text()


def test_a_method_without_room_is_left_out_and_the_others_go_on(
    base: FrozenBase, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = CellRunner._do

    def tight(work: CellRunner, cell: Cell, source: Source, rate: float) -> tuple[float, dict[str, Any]]:
        if cell.method == "LoRA":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return done(work, cell, source, rate)

    monkeypatch.setattr(CellRunner, "_do", tight)
    work = work_of(base, data, tmp_path)
    found = work.results({name: [cell_of(name)] for name in ("LoRA", "nothing")})
    assert list(found) == ["nothing"]
    with pytest.raises(OutOfMemory, match=r"cpu has no memory left for LoRA.*larger device"):
        work.results({"LoRA": [cell_of("LoRA")]})


def test_a_file_in_place_of_the_folder_is_two_lines(data: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "base")
    for words in (["--quick"], ["--data", str(data)]):
        told = CliRunner().invoke(app, ["paper", "length", "--base", str(folder), "--out", str(data), *words])
        assert told.exit_code == 1
        assert "is not a folder" in told.stderr
        assert "Traceback" not in told.stderr
