"""Does one cell: sample, train, write, score. What is done stays done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from antefix import FrozenBase
from antefix.errors import InvalidArgument, OutOfMemory
from antefix_simulations.common.results_log import METRICS, ResultsLog
from antefix_simulations.paper.cell import Cell, PaperSettings
from antefix_simulations.paper.methods import METHODS, Trained
from antefix_simulations.paper.metrics import scores
from antefix_simulations.paper.outputs import Outputs
from antefix_simulations.paper.source import Source, firsts
from antefix_simulations.paper.tasks import Item, pairs, prompt_of

__all__ = ["CellRunner", "trial_of"]

_TUNED_ON = 200
_TUNED_SHARE = 4


def trial_of(cell: Cell, source: Source, settings: PaperSettings) -> Cell | None:
    """The cell that each rate of its method is tried on; None where there is nothing to choose."""
    if not METHODS[cell.method].rate or len(settings.factors) == 1:
        return None
    prefix: dict[str, Any] = {"length": 10, "start": '"summarize"'} if cell.length else {}
    return Cell(cell.task, cell.method, min(_TUNED_ON, pairs(source.task.train)), 0, **prefix)


class CellRunner:
    """All cells of one folder.

    OUT/metrics.jsonl   a line for each cell and each rate that was tried
    OUT/written/        what each cell wrote, beside what it was asked
    """

    def __init__(
        self,
        base: FrozenBase,
        sources: Mapping[str, Source],
        settings: PaperSettings,
        out: Path,
        say: Callable[[str], None],
    ) -> None:
        """Open the folder.

        Args:
            base: the frozen base.
            sources: of each task.
            settings: of all cells.
            out: of an earlier run with the same base and settings, or new.
            say: told what is being done.

        Raises:
            InvalidArgument: the folder is of another run, or cannot be written.
        """
        identity = {"run": "paper", "base": base.fingerprint, "dtype": str(base.dtype)}
        self._log = ResultsLog(out, identity | settings.model_dump(mode="json"))
        self._written = Outputs(out / "written")
        self._base, self._sources, self._settings, self._out, self._say = base, sources, settings, out, say

    def results(
        self,
        cells: Mapping[str, Sequence[Cell]],
        look: Callable[[dict[str, list[dict[str, Any]]]], object] = lambda results: None,
    ) -> dict[str, list[dict[str, Any]]]:
        """Of all cells of a table, as `result`; says how many are done, and how long the rest may take.

        What is kept comes first, then a sample of every row before the next: cut off, a table has a little of
        each rather than all of some.

        Args:
            cells: of each row.
            look: given what is found by now, in the order of `cells`, after each cell that was done now.

        Raises:
            OutOfMemory: the device has room for none of them; those alone that it has none for are left out.
        """
        every = [
            (name, at, cell) for name, cells_of_row in cells.items() for at, cell in enumerate(cells_of_row)
        ]
        every.sort(key=lambda place: (self._stored(place[2]) is None, place[1]))
        places: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in cells}
        begun, trained, failed = time.monotonic(), 0, None
        for number, (name, at, cell) in enumerate(every):
            result = self._stored(cell)
            if not result:
                cells_left = len(every) - number
                minutes = (time.monotonic() - begun) / 60
                soon = f", about {math.ceil(minutes / trained * cells_left)} min left" if trained else ""
                self._say(f"{number} of {len(every)} cells are done{soon}")
                trained += 1
            try:
                places[name][at] = self.result(cell)
            except OutOfMemory as error:
                failed = OutOfMemory(error.message, error.hint)  # without the frames that hold the memory
                self._say(f"left out: {error}")
                continue
            if places[name][at] is not result:
                look(_in_order(places))
        if failed and not any(places.values()):
            raise failed
        return _in_order(places)

    def result(self, cell: Cell) -> dict[str, Any]:
        """Of a cell, from the folder or done now: `scores` by part of the test, and what it took.

        A measure that was missing is computed from what the cell wrote, if it can be by now.

        Raises:
            DataRefused: the task has too few texts.
            InvalidArgument: there is no file of its task, or the folder's line of it is damaged. What another
                file of it gave is another result.
        """
        source, result = self._source(cell), self._stored(cell)
        rate = self._rate(cell, source)
        # A folder with a smaller grid may have a result of another rate.
        if result is None or not math.isclose(result.get("rate", rate), rate):
            self._say(cell.name)
            with _room(self._base, cell):
                loss, facts = self._do(cell, source, rate)
            self._log.add(cell.name, None, source.digest, loss, **facts)
        else:
            self._again(cell, source, result)
        return self._log.lines[cell.name, None, source.digest]

    def _source(self, cell: Cell) -> Source:
        if cell.task not in self._sources:
            raise InvalidArgument(f"there is no data for {cell.task}", "give a --data FILE of that task")
        return self._sources[cell.task]

    def _stored(self, cell: Cell) -> dict[str, Any] | None:
        return self._log.lines.get((cell.name, None, self._source(cell).digest))

    def _again(self, cell: Cell, source: Source, result: dict[str, Any]) -> None:
        """Fill gaps of a kept result."""
        try:
            parts = {part: dict(scores_of) for part, scores_of in result["parts"].items()}
            measures = {part: _missing(scores_of) for part, scores_of in parts.items()}
        except (KeyError, TypeError, AttributeError):
            raise InvalidArgument(
                f"the line of {cell.name!r} in {self._out / METRICS} is damaged",
                "delete that line: the same command does the cell again",
            ) from None
        texts = self._written.read(cell.name, source.digest, source.tests) if any(measures.values()) else None
        if texts is None:
            return
        for part, having in _parts(source.tests).items():
            scores_of = _scores(texts, source.tests, having, measures.get(part, []))
            parts[part]["scores"] = parts[part]["scores"] | scores_of
        if any(_missing(scores_of) != measures[part] for part, scores_of in parts.items()):
            facts = {name: value for name, value in result.items() if name not in _KEYS}
            loss = result["nats_per_token"]
            self._log.add(cell.name, None, source.digest, loss, **{**facts, "parts": parts})

    def _rate(self, cell: Cell, source: Source) -> float:
        """The best of the grid, on dev texts: some judge cells too, none tests. One for all its cells."""
        middle = METHODS[cell.method].rate
        tried = trial_of(cell, source, self._settings)
        if tried is None:
            return middle * self._settings.factors[0]
        losses = {factor: self._try(tried, source, middle * factor) for factor in self._settings.factors}
        for side, outward in ((max, 1), (min, -1)):
            for factor in sorted(self._settings.beyond)[::outward]:
                if side(losses) == min(losses, key=losses.__getitem__) and factor == side(factor, *losses):
                    losses[factor] = self._try(tried, source, middle * factor)
        return middle * min(losses, key=losses.__getitem__)

    def _try(self, tried: Cell, source: Source, rate: float) -> float:
        """Nats per token of the dev texts after a part of the budget."""
        name = f"rate for {tried.task}: {tried.method}"
        key = name, None, f"{rate:g} {source.digest}"
        if key not in self._log.lines:
            self._say(f"{name}: trying {rate:g}")
            texts = source.texts(tried, max(1, self._settings.budget // _TUNED_SHARE))
            with _room(self._base, tried):
                trained_cell = METHODS[tried.method].train(self._base, tried, self._settings, texts, rate)
            self._log.add(*key, trained_cell.judged, rate=rate)
        loss = float(self._log.lines[key]["nats_per_token"])
        return math.inf if math.isnan(loss) else loss

    def _do(self, cell: Cell, source: Source, rate: float) -> tuple[float, dict[str, Any]]:
        begun = time.monotonic()
        texts, tests = source.texts(cell, self._settings.budget), source.tests
        trained = METHODS[cell.method].train(self._base, cell, self._settings, texts, rate)
        learned = time.monotonic()
        texts_written = [_line(text) for text in trained.write([prompt_of(item) for item in tests])]
        self._written.keep(cell.name, source.digest, tests, texts_written)
        facts = {
            "rate": rate,
            "steps": texts.steps,
            "tokens": trained.tokens,
            "numbers": trained.numbers,
            "examples": trained.examples,
            "judged": trained.judged,
            "seconds": [round(learned - begun, 1), round(time.monotonic() - learned, 1)],
            "parts": {
                part: _judge(trained, tests, texts_written, having) for part, having in _parts(tests).items()
            },
        }
        return trained.read(firsts(tests)), facts


@contextmanager
def _room(base: FrozenBase, cell: Cell) -> Iterator[None]:
    """Say which method has no memory. No smaller step would be the same cell."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise OutOfMemory(
            f"{base.device} has no memory left for {cell.method}", "use a larger device, or a smaller base"
        ) from None


def _in_order(places: Mapping[str, Mapping[int, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Rows that have something, each by sample."""
    return {name: [results[at] for at in sorted(results)] for name, results in places.items() if results}


_KEYS = ("arm", "seed", "user", "nats_per_token")  # of a line itself


def _judge(
    trained: Trained, tests: Sequence[Item], texts: Sequence[str], having: Sequence[int]
) -> dict[str, Any]:
    """Loss and scores of some of the tests."""
    return {
        "inputs": len(having),
        "nats_per_token": trained.read(firsts(tests[at] for at in having)),
        "scores": _scores(texts, tests, having),
    }


def _scores(
    texts: Sequence[str],
    tests: Sequence[Item],
    having: Sequence[int],
    measures: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Of some of the tests; all measures, or some."""
    scores_of = scores([texts[at] for at in having], [tests[at].references for at in having], measures)
    return {name: vars(score) for name, score in scores_of.items()}


def _missing(part: Mapping[str, Any]) -> list[str]:
    return [name for name, score in part["scores"].items() if score["value"] is None]


def _parts(tests: Sequence[Item]) -> dict[str, list[int]]:
    """Which tests are seen, unseen, and all; all alone where all are seen."""
    sides = {
        "seen": [at for at, item in enumerate(tests) if item.seen],
        "unseen": [at for at, item in enumerate(tests) if not item.seen],
    }
    everything = {"all": list(range(len(tests)))}
    return everything if not all(sides.values()) else sides | everything


def _line(text: str) -> str:
    """The first line of what was written: references have one, and a prompt is ended by its line."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
