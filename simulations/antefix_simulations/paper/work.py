"""Does one cell: sample, train, write, score. What is done stays done."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from antefix import Example, FrozenBase
from antefix._examples import encode
from antefix._files import write_whole
from antefix.errors import InvalidArgument
from antefix_simulations._ledger import Ledger
from antefix_simulations.paper.cell import Cell, PaperSettings
from antefix_simulations.paper.methods import METHODS, Texts, Trained
from antefix_simulations.paper.scores import scores
from antefix_simulations.paper.tasks import Item, Task, examples_of, pairs, prompt_of, read_task

__all__ = ["Work"]

_TUNED_ON = 200
_TUNED_SHARE = 4
_JUDGING = 60
_COUNTED = 200


class Work:
    """All cells of one folder.

    OUT/metrics.jsonl   a line for each cell and each rate that was tried
    OUT/written/        what each cell wrote, beside what it was asked
    """

    def __init__(
        self,
        base: FrozenBase,
        data: Mapping[str, Path],
        settings: PaperSettings,
        out: Path,
        say: Callable[[str], None],
    ) -> None:
        """Open the folder.

        Args:
            base: the frozen base.
            data: a file for each task.
            settings: of all cells.
            out: of an earlier run with the same base and settings, or new.
            say: told what is being done.

        Raises:
            InvalidArgument: the folder is of another run.
        """
        identity = {"run": "paper", "base": base.fingerprint, "dtype": str(base.dtype)}
        self._ledger = Ledger(out, identity | settings.model_dump(mode="json"))
        self._base, self._data, self._settings, self._out, self._say = base, data, settings, out, say
        self._tasks: dict[str, tuple[Task, str]] = {}

    def result(self, cell: Cell) -> dict[str, Any]:
        """Of a cell, from the folder or done now: `scores` by part of the test, and what it took.

        Raises:
            DataRefused: a task's file.
            InvalidArgument: there is no file of its task. What another file of it gave is another result.
        """
        task, digest = self._task(cell.task)
        kept = self._ledger.lines.get((cell.name, None, digest))
        if kept is None:
            rate = self._rate(cell, task, digest)
            self._say(cell.name)
            loss, facts = self._done(cell, task, rate)
            self._ledger.add(cell.name, None, digest, loss, **facts)
            kept = self._ledger.lines[cell.name, None, digest]
        return kept

    def _task(self, name: str) -> tuple[Task, str]:
        if name not in self._data:
            raise InvalidArgument(f"there is no data for {name}", f"--data {name}=FILE")
        if name not in self._tasks:
            path = self._data[name]
            task = read_task(path)
            self._tasks[name] = task, hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        return self._tasks[name]

    def _rate(self, cell: Cell, task: Task, digest: str) -> float:
        """The best of the grid, on dev texts: some judge cells too, none tests. One for all its cells."""
        middle = METHODS[cell.method].rate
        if not middle or len(self._settings.factors) == 1:
            return middle * self._settings.factors[0]
        known: dict[str, Any] = {"length": 10, "start": '"summarize"'} if cell.length else {}
        tried = Cell(cell.task, cell.method, min(_TUNED_ON, pairs(task.train)), 0, **known)
        losses = {}
        for factor in self._settings.factors:
            rate, name = middle * factor, f"rate for {cell.task}: {cell.method}"
            if (name, None, f"{rate:g} {digest}") not in self._ledger.lines:
                self._say(f"{name}: trying {rate:g}")
                budget = max(1, self._settings.budget // _TUNED_SHARE)
                found = METHODS[cell.method].train(
                    self._base, tried, self._settings, self._texts(tried, task, budget), rate
                )
                self._ledger.add(name, None, f"{rate:g} {digest}", found.judged, rate=rate)
            losses[rate] = self._ledger.lines[name, None, f"{rate:g} {digest}"]["nats_per_token"]
        return min(losses, key=lambda rate: losses[rate])

    def _texts(self, cell: Cell, task: Task, budget: int) -> Texts:
        """A sample of the training texts, and as many steps as the budget lasts for."""
        settings, most = self._settings, pairs(task.train)
        counted = examples_of(task.sample(min(most, _COUNTED), 0).train)
        each = sum(encode(self._base, one, settings.max_prompt_tokens).tokens for one in counted)
        lasting = max(1, round(budget * len(counted) / each))
        inputs = cell.inputs or min(most, lasting)
        chosen = task.sample(inputs, cell.sample)
        passes = min(lasting / inputs, settings.max_passes)
        steps = max(1, round(passes * inputs / settings.batch_size))
        return Texts(examples_of(chosen.train), examples_of(chosen.dev)[:_JUDGING], steps)

    def _done(self, cell: Cell, task: Task, rate: float) -> tuple[float, dict[str, Any]]:
        begun = time.monotonic()
        texts, tests = self._texts(cell, task, self._settings.budget), self._tests(task)
        trained = METHODS[cell.method].train(self._base, cell, self._settings, texts, rate)
        learned = time.monotonic()
        written = [_line(text) for text in trained.write([prompt_of(item) for item in tests])]
        self._keep(cell, tests, written)
        facts = {
            "rate": rate,
            "steps": texts.steps,
            "tokens": trained.tokens,
            "numbers": trained.numbers,
            "judged": trained.judged,
            "seconds": [round(learned - begun, 1), round(time.monotonic() - learned, 1)],
            "parts": {
                part: _found(trained, tests, written, having) for part, having in _parts(tests).items()
            },
        }
        return trained.read(_firsts(tests)), facts

    def _tests(self, task: Task) -> list[Item]:
        """The same for every cell; half of them unseen, where there are such."""
        dice, most = random.Random(0), self._settings.tests
        unseen = [item for item in task.test if not item.seen]
        seen = [item for item in task.test if item.seen]
        half = min(len(unseen), most // 2)
        return dice.sample(seen, min(len(seen), most - half)) + dice.sample(unseen, half)

    def _keep(self, cell: Cell, tests: Sequence[Item], written: Sequence[str]) -> None:
        folder = self._out / "written"
        folder.mkdir(exist_ok=True)
        lines = [
            {"input": item.source, "references": item.references, "written": text}
            for item, text in zip(tests, written, strict=True)
        ]
        name = hashlib.sha256(f"{cell.name} {self._tasks[cell.task][1]}".encode()).hexdigest()[:16]
        content = {"cell": cell.name, "texts": lines}
        write_whole(folder / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False).encode())


def _found(
    trained: Trained, tests: Sequence[Item], written: Sequence[str], having: Sequence[int]
) -> dict[str, Any]:
    """Loss and scores of some of the tests."""
    some = [tests[at] for at in having]
    found = scores([written[at] for at in having], [item.references for item in some])
    return {
        "inputs": len(some),
        "nats_per_token": trained.read(_firsts(some)),
        "scores": {name: vars(one) for name, one in found.items()},
    }


def _parts(tests: Sequence[Item]) -> dict[str, list[int]]:
    """Which tests are seen, unseen, and all; all alone where all are seen."""
    sides = {
        "seen": [at for at, item in enumerate(tests) if item.seen],
        "unseen": [at for at, item in enumerate(tests) if not item.seen],
    }
    everything = {"all": list(range(len(tests)))}
    return everything if not all(sides.values()) else sides | everything


def _firsts(items: Sequence[Item]) -> list[Example]:
    """One text for each input."""
    return [Example(prompt=prompt_of(item), completion=f" {item.references[0]}") for item in items]


def _line(text: str) -> str:
    """The first line of what was written: references have one, and a prompt is ended by its line."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
