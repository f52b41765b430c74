"""`antefix-sim paper`: the tables of the method's paper, on any base. Imports no torch."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from antefix_simulations.cli.options import AsJson, Base, Device, Dtype, tell

if TYPE_CHECKING:
    from antefix import FrozenBase
    from antefix_simulations.paper.cell import PaperSettings
    from antefix_simulations.paper.results.table import Table


class Name(StrEnum):
    """Tables."""

    E2E = "e2e"
    WEBNLG = "webnlg"
    SUMMARISE = "summarise"
    LOW_DATA = "low-data"
    EXTRAPOLATE = "extrapolate"
    LENGTH = "length"
    INIT = "init"
    ABLATE = "ablate"
    STORAGE = "storage"
    SPEED = "speed"


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command()(paper)


def paper(
    table: Annotated[Name, typer.Argument(help="Which table.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="The task: JSON lines with split, and input and text or triples and refs. With --quick a "
            "made-up one if none is given."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for results; what is there is not done again.")] = Path(
        "runs/paper"
    ),
    base: Base = "smollm2-135m-q4",
    device: Device = "cpu",
    dtype: Dtype = "fp32",
    budget: Annotated[
        int | None,
        typer.Option(
            min=1, max=2**31, help="Tokens of training a cell; 150,000, quick 3,000.", show_default=False
        ),
    ] = None,
    tests: Annotated[
        int | None, typer.Option(min=1, max=2**31, help="Test inputs; 100, quick 8.", show_default=False)
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2**31,
            help="Of training texts, where a table has several; of `speed` repetitions; 3, quick 1.",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="See it work on little; figures mean nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a table of Li and Liang 2021 anew, its own figures beside ours; with a plot in the folder.

    Every method gets the same budget and the same grid of learning rates, chosen on dev
    texts, never on tests. Ctrl-C loses the cell that is under way.
    """
    from antefix import FrozenBase
    from antefix_simulations.paper.cell import QUICK, PaperSettings

    limits = {"budget": budget, "tests": tests, "samples": samples}
    given_limits = {name: value for name, value in limits.items() if value is not None}
    settings = PaperSettings(**{**(QUICK if quick else PaperSettings()).model_dump(), **given_limits})
    task = None if table is Name.STORAGE else _require_task(data, table, quick, out)
    tell(f"loading {base}")
    loaded = FrozenBase.load(base, device=device, dtype=dtype)
    if task is None:
        from antefix_simulations.paper.results.storage import storage

        tables = [storage(loaded)]
    elif table is Name.SPEED:
        tables = _speed(loaded, base, dtype, settings, task)
    else:
        tables = [_study(table, loaded, settings, task, out)]
    _print(tables, as_json)


def _require_task(data: Path | None, table: Name, quick: bool, out: Path) -> Path:
    from antefix.errors import InvalidArgument
    from antefix_simulations.paper.sample import write_sample
    from antefix_simulations.run.folder import explain_full_disk, locked

    if data is not None:
        return data
    if not quick:
        raise InvalidArgument(
            f"the table {table} needs a task",
            "--data FILE, see docs/guides/paper.md; or --quick, on a made-up one",
        )
    with locked(out), explain_full_disk(out):
        return write_sample(out / "sample.jsonl")


def _study(table: Name, base: FrozenBase, settings: PaperSettings, data: Path, out: Path) -> Table:
    from antefix.common.files import atomic_write
    from antefix_simulations.paper.results.studies import STUDIES
    from antefix_simulations.paper.results.tables import Rows
    from antefix_simulations.paper.source import Source
    from antefix_simulations.paper.work import CellRunner, trial_of
    from antefix_simulations.run.folder import explain_full_disk, explain_interrupt, locked

    tell(f"reading {data}")
    study, source = STUDIES[table], Source(data, base, settings)
    cells = study.cells(base, settings)
    for cell in (cell for cells_of_row in cells.values() for cell in cells_of_row):
        for checked in (cell, trial_of(cell, source, settings)):
            if checked is not None:
                source.check(checked, unseen=table is Name.EXTRAPOLATE)
    every = sum(map(len, cells.values()))

    def look(results: dict[str, Any]) -> Table:
        rows = Rows(results, settings)
        table_so_far = study.table(rows)
        if (cells_done := sum(map(len, results.values()))) < every:
            table_so_far.notes.insert(0, f"{cells_done} of {every} cells are done.")
        atomic_write(out / f"{table}.md", table_so_far.as_markdown().encode())
        atomic_write(out / f"{table}.svg", study.plot(rows).encode())
        return table_so_far

    with locked(out), explain_full_disk(out), explain_interrupt(out, tell):
        return look(CellRunner(base, {study.task: source}, settings, out, tell).results(cells, look))


def _speed(base: FrozenBase, name: str, dtype: str, settings: PaperSettings, data: Path) -> list[Table]:
    from antefix_simulations.paper.results.step_cost import StepCostBench, steps_table, writing_table
    from antefix_simulations.paper.tasks import examples_of, read_task

    bench = StepCostBench(name, str(base.device), dtype, settings.batch_size, settings.samples)
    texts = examples_of(read_task(data).sample(settings.batch_size * 8, 0).train)
    return [steps_table(bench, texts, tell), writing_table(base, settings.samples)]


def _print(tables: list[Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([vars(table) for table in tables], indent=2, ensure_ascii=False))
    else:
        typer.echo("\n\n".join(table.as_text() for table in tables))
