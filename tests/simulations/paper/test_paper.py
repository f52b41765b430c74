"""The paper's tables on tiny bases: every method learns and writes, nothing is done twice, what cannot be."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from antefix import Example, FrozenBase
from antefix.data.tokenization import encode
from antefix.errors import InvalidArgument, TextTooLong
from antefix.model.kv_layout import Layout, Slot
from antefix_simulations.arms.context_prefix import pack_examples
from antefix_simulations.cli import app
from antefix_simulations.common import svg
from antefix_simulations.data.user_texts import DataRefused
from antefix_simulations.paper.cell import QUICK, Cell
from antefix_simulations.paper.methods import METHODS
from antefix_simulations.paper.results import step_cost
from antefix_simulations.paper.results.step_cost import StepCostBench, steps_table, writing_table
from antefix_simulations.paper.results.storage import storage
from antefix_simulations.paper.results.studies import STUDIES
from antefix_simulations.paper.results.tables import Rows
from antefix_simulations.paper.sample import write_sample
from antefix_simulations.paper.source import Source, firsts
from antefix_simulations.paper.tasks import pairs
from antefix_simulations.paper.work import CellRunner
from tests.simulations.paper.paper_task import SETTINGS, WORDS, cell_of, fake_cell, saved, work_of, write_task
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


@pytest.mark.parametrize("method", [name for name in METHODS if not name.endswith("alone")])
def test_every_method_is_trained_read_and_written(
    method: str, base: FrozenBase, data: Path, tmp_path: Path
) -> None:
    work = work_of(base, data, tmp_path)
    before, found = work.result(cell_of("nothing")), work.result(cell_of(method))
    trains = METHODS[method].rate > 0
    assert (found["numbers"] > 0) == (found["tokens"] > 0) == trains
    assert found["tokens"] <= SETTINGS.budget * 1.1
    assert math.isfinite(found["nats_per_token"])
    if trains:  # it keeps the best look, and the start is one
        assert found["judged"] <= before["judged"] + 0.5
    assert set(found["parts"]) == {"seen", "unseen", "all"}
    assert [found["parts"][part]["inputs"] for part in ("seen", "unseen", "all")] == [2, 2, 4]


@pytest.mark.parametrize("name", STUDIES)
def test_every_table_says_what_its_cells_found(
    name: str, base: FrozenBase, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, work = STUDIES[name], work_of(base, data, tmp_path)
    monkeypatch.setattr(CellRunner, "_do", fake_cell)
    cells = study.cells(base, SETTINGS)
    rows = Rows({label: [work.result(cell) for cell in some] for label, some in cells.items()}, SETTINGS)
    table = study.table(rows)
    assert all(len(row) == len(table.head) for row in table.rows)
    labels = {row[0] for row in table.rows}
    assert set(cells) <= labels
    assert "1,500 tokens" in table.notes[-1]
    assert table.as_markdown().count("\n| ") == len(table.rows) + 2
    figures: list[Figure] = []
    monkeypatch.setattr(svg, "FigureCanvasSVG", figures.append)
    assert study.plot(rows).startswith("<svg")
    assert study.plot(rows) == study.plot(rows)
    box = figures[0].get_tightbbox()
    assert (box.x0, box.y0) >= (0, 0)
    assert box.x1 <= figures[0].get_figwidth(), "a label is cut off"


@pytest.mark.parametrize("name", STUDIES)
def test_every_table_and_plot_has_dashes_and_gaps_where_no_measure_is(
    name: str, base: FrozenBase, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, work = STUDIES[name], work_of(base, data, tmp_path)

    def without(*given: Any) -> tuple[float, dict[str, Any]]:
        loss, facts = fake_cell(*given)
        for score in facts["parts"]["all"]["scores"].values():
            score.update(value=None, spread=None, missing="needs a package")
        return loss, facts

    monkeypatch.setattr(CellRunner, "_do", without)
    cells = study.cells(base, SETTINGS)
    rows = Rows({label: [work.result(cell) for cell in some] for label, some in cells.items()}, SETTINGS)
    table = study.table(rows)
    assert all("-" in row for row in table.rows if row[1] != "paper")
    assert any("needs a package" in note for note in table.notes)
    assert "nan " not in table.as_markdown()
    assert study.plot(rows).startswith("<svg")


def test_examples_in_the_context_fill_what_the_longest_input_leaves(base: FrozenBase, data: Path) -> None:
    source = Source(data, base, SETTINGS)
    texts = source.texts(cell_of("in context"), SETTINGS.budget)
    each = [encode(base, one, None).tokens + 1 for one in texts.training]
    whole = sum(each)
    assert pack_examples(base, texts.training, whole).texts == len(each)
    few = pack_examples(base, texts.training, sum(each[:3]))
    assert (few.texts, len(few.tokens)) == (3, sum(each[:3]))
    long = Example(prompt="x" * 500, completion=" y")
    assert pack_examples(base, [long, *texts.training], sum(each[:3])).texts == 3  # it ends nothing
    assert pack_examples(base, texts.training, 0).prefix(base) is None
    longest = [encode(base, one, None).tokens for one in (*texts.judging, *firsts(source.tests))]
    assert texts.longest >= max(longest)


def test_a_long_input_is_cut_with_its_line_end_for_every_method(base: FrozenBase, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    rows = [
        {"split": split, "input": "red blue green " * 40 + str(number), "text": "old"}
        for split in ("train", "dev", "test")
        for number in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(path, base, SETTINGS)
    for one in (*firsts(source.tests), *source.texts(cell_of("prefix", inputs=3), 99).training):
        assert one.prompt.endswith("\n")
        assert len(base.tokenizer(one.prompt)["input_ids"]) <= SETTINGS.max_prompt_tokens


def test_what_cannot_be_is_refused_before_the_first_cell(
    base: FrozenBase, data: Path, tmp_path: Path
) -> None:
    source = Source(data, base, SETTINGS)
    with pytest.raises(DataRefused, match=r"501 texts, sample 0: so many .* has 500"):
        source.check(Cell("e2e", "fine-tuning", 501))
    source.check(cell_of("prefix"), unseen=True)
    one_test = Source(data, base, SETTINGS.model_copy(update={"tests": 1}))
    with pytest.raises(DataRefused, match=r"needs seen and unseen inputs.*--tests 2"):
        one_test.check(cell_of("prefix"), unseen=True)
    long = tmp_path / "long.jsonl"
    context = base.context or 0
    row = {"split": "test", "input": "last", "text": "red " * context, "seen": False}
    long.write_text(data.read_text() + json.dumps(row) + "\n")
    tests = SETTINGS.model_copy(update={"tests": 12})
    with pytest.raises(TextTooLong, match=f"line 553 of .*the base sees {context}"):
        Source(long, base, tests).check(cell_of("fine-tuning"))
    with pytest.raises(TextTooLong, match="leaves no room"):
        source.check(Cell("e2e", "prefix", 20, length=context, start="random"))


def test_the_made_up_task_is_enough_for_every_table(base: FrozenBase, tmp_path: Path) -> None:
    path = write_sample(tmp_path / "sample.jsonl")
    assert write_sample(tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    source = Source(path, base, QUICK.model_copy(update={"new_tokens": 4}))
    task = source.task
    assert (pairs(task.train), len(task.dev), len(task.test)) == (520, 40, 40)
    inputs = [item.source for item in (*task.train, *task.dev, *task.test)]
    assert len(set(inputs)) == len(inputs)
    assert [item.seen for item in source.tests] == [True] * 4 + [False] * 4
    for name in ("low-data", "extrapolate", "init"):
        for cell in (cell for some in STUDIES[name].cells(base, QUICK).values() for cell in some):
            source.check(cell, unseen=name == "extrapolate")


def test_extrapolation_needs_unseen_inputs(
    base: FrozenBase, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        CellRunner,
        "_do",
        lambda *given: (2.0, {"rate": given[3], "parts": {"all": fake_cell(*given)[1]["parts"]["all"]}}),
    )
    work = work_of(base, data, tmp_path)
    found = {"prefix": [work.result(cell_of("prefix"))]}
    with pytest.raises(InvalidArgument, match="unseen"):
        STUDIES["extrapolate"].table(Rows(found, SETTINGS))


def test_an_encoder_decoder_has_prefixes_of_all_kinds_and_of_each(data: Path, tmp_path: Path) -> None:
    bart = FrozenBase.from_model(tiny_models.model("bart"), tiny_models.tokenizer(), name="tiny")
    cells = [
        cell for study in STUDIES.values() for some in study.cells(bart, SETTINGS).values() for cell in some
    ]
    assert not {cell.method for cell in cells} & {"in context", "embedding-only", "infix"}
    assert {"fine-tuning", "top 2 layers", "adapters 3 %", "LoRA", "prefix"} <= {
        cell.method for cell in cells
    }
    found = {
        name: work_of(bart, data, tmp_path).result(cell_of(name))["numbers"]
        for name in ("prefix", "prefix, encoder alone", "prefix, decoder alone", "prefix, cross alone")
    }
    assert found["prefix"] == sum(number for name, number in found.items() if name.endswith("alone"))


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_an_encoder_decoder_has_the_baselines_that_train_weights(
    family: str, data: Path, tmp_path: Path
) -> None:
    base = FrozenBase.from_model(tiny_models.model(family), tiny_models.tokenizer(), name="tiny")
    work = work_of(base, data, tmp_path)
    before = work.result(cell_of("nothing"))["judged"]
    for name in ("fine-tuning", "top 2 layers", "adapters 3 %", "LoRA"):
        found = work.result(cell_of(name))
        assert found["judged"] <= before
        assert math.isfinite(found["nats_per_token"])
    rows = {row[0]: row[1] for row in storage(base).rows}
    assert rows["adapters 3 %"] == f"{work.result(cell_of('adapters 3 %'))['numbers']:,}"


def test_the_papers_prefix_of_gpt2_medium_has_its_245_760_numbers(base: FrozenBase) -> None:
    medium = Layout(tuple(Slot("decoder", number, 16, 64) for number in range(24)))
    assert medium.size(5) == 5 * 24 * 2 * 1024 == 245_760
    table = storage(base)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["prefix of 5"][0] == f"{base.layout.size(5):,}"
    assert rows["fine-tuning"][2:] == ["100.00%", "1 times that"]


@pytest.mark.slow
def test_a_real_gpt2_of_that_shape_has_them_too() -> None:
    small: dict[str, Any] = {
        "vocab_size": len(tiny_models.tokenizer()),
        "n_positions": 64,
        "n_inner": 8,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    model = GPT2LMHeadModel(GPT2Config(n_embd=1024, n_layer=24, n_head=16, **small))
    assert FrozenBase.from_model(model, tiny_models.tokenizer()).layout.size(5) == 245_760


@pytest.mark.slow
def test_the_command_makes_a_table_a_plot_and_goes_on(base: FrozenBase, data: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "base")
    words = ["length", "--data", str(data), "--base", str(folder), "--out", str(tmp_path / "out"), "--quick"]
    runner = CliRunner()
    first = runner.invoke(app, ["paper", *words, "--tests", "2", "--budget", "300"])
    assert first.exit_code == 0, first.output
    assert "0 of 6 cells are done\n" in first.stderr
    assert "5 of 6 cells are done, about 1 min left" in first.stderr
    assert "E2E, positions of the prefix" in first.stdout
    assert (tmp_path / "out" / "length.svg").read_text().startswith("<svg")
    again = runner.invoke(app, ["paper", *words, "--tests", "2", "--budget", "300", "--json"])
    (table,) = json.loads(again.stdout)
    assert [row[0] for row in table["rows"]] == ["1", "2", "5", "10", "20", "40"]
    assert "trying" not in again.stderr
    refused = runner.invoke(app, ["paper", "length", "--base", str(folder)])
    assert refused.exit_code == 1
    assert "--data FILE" in refused.stderr
    made_up = ["length", "--base", str(folder), "--out", str(tmp_path / "other"), "--quick", "--tests", "2"]
    assert runner.invoke(app, ["paper", *made_up, "--budget", "300"]).exit_code == 0
    stored = runner.invoke(app, ["paper", "storage", "--base", str(folder)])
    assert "245,760" in stored.stdout


@pytest.mark.slow
def test_steps_are_timed_in_processes_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    tiny_models.model("llama").save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    texts = [Example(prompt=f"a {word}", completion=f" {word}.") for word in WORDS]
    steps = steps_table(
        StepCostBench(str(folder), repetitions=1, methods=("prefix", "LoRA")), texts, lambda line: None
    )
    assert [row[0] for row in steps.rows] == ["prefix", "LoRA"]
    assert all(float(row[1].replace(",", "")) >= 0 for row in steps.rows)
    written = writing_table(FrozenBase.load(str(folder), progress=False), 1)
    assert written.rows[0][3] == "1.00"


def gone(*_: object) -> None:
    """As a process that the system ends for want of memory."""
    os._exit(9)


@pytest.mark.slow
def test_speed_is_a_command_and_a_method_without_memory_is_a_dash(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = StepCostBench.__init__.__defaults__ or ()
    monkeypatch.setattr(StepCostBench.__init__, "__defaults__", (*defaults[:-1], ("prefix",)))
    words = ["paper", "speed", "--base", str(saved(tmp_path / "base")), "--data", str(data), "--samples", "1"]
    told = CliRunner().invoke(app, [*words, "--json"])
    assert told.exit_code == 0, told.output
    steps, written = json.loads(told.stdout)
    assert [row[0] for row in steps["rows"]] == ["prefix"]
    assert [row[0] for row in written["rows"]] == ["0", "1", "10", "50", "100", "200", "300"]
    monkeypatch.setattr(step_cost, "_measure", gone)
    table = steps_table(StepCostBench(str(tmp_path / "base")), [], lambda line: None)
    assert table.rows == [["prefix", "-", "-", "-"]]
    assert "prefix: its process was ended, for memory perhaps." in table.notes
