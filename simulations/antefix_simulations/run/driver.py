"""Drives a run from its data to its metrics; what is on disk is not done again.

In OUT:
config.json      settings, base and data card
population.db    users and texts. Private
rounds/          shared prefixes
vault/           sealed private prefixes
work/            results of cohorts that are not part of a round yet
metrics.jsonl    what was found: the same bytes for the same settings, however often it was cut off
times.jsonl      how long things took
.lock            of the process that is at it
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from antefix import FrozenBase
from antefix.common.files import atomic_write
from antefix.common.progress import ProgressBar
from antefix.errors import InvalidArgument
from antefix_server.rounds.shared_prefix import SharedVector
from antefix_simulations.arms.registry import require_arms
from antefix_simulations.common.results_log import METRICS, json_lines
from antefix_simulations.common.terminal import counted
from antefix_simulations.data.card import Card
from antefix_simulations.data.sources import population_of
from antefix_simulations.data.store import Population
from antefix_simulations.run.cohort import Cohort
from antefix_simulations.run.cost import add_line, traffic
from antefix_simulations.run.folder import damaged_file, explain_full_disk, locked
from antefix_simulations.run.record_vault import RecordVault
from antefix_simulations.run.server import SimulatedServer
from antefix_simulations.run.task import Result, Task
from antefix_simulations.run.tuning import TUNE, facts_of, grid, methods
from antefix_simulations.settings import RunSettings

__all__ = ["CONFIG", "TIMES", "Executor", "LocalExecutor", "Run"]

CONFIG, TIMES = "config.json", "times.jsonl"
_TITLES = {"personal": "private prefixes"}


class Executor(Protocol):
    """Has tasks done somewhere."""

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Of all of them, in any order, as they come."""


class LocalExecutor:
    """In this process."""

    def __init__(self, base: FrozenBase, population: Population, settings: RunSettings, out: Path) -> None:
        """With a base that is loaded."""
        self._cohort = Cohort(base, population, settings, out)

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """One after the other."""
        for task in tasks:
            yield task, self._cohort.do(task)


class Run:
    """One run in a folder."""

    def __init__(
        self, out: Path, settings: RunSettings, base: FrozenBase, say: Callable[[str], None], progress: bool
    ) -> None:
        """Read the data and open everything.

        Raises:
            InvalidArgument: the folder is of another run, or cannot be made; a run is under way in it; the
                prefix leaves no room for a text.
            DataRefused, VaultBusy.
        """
        self.out, self.settings, self._base, self._say, self._progress = out, settings, base, say, progress
        self._tuning = list[dict[str, Any]]()
        require_arms(settings.more_arms)
        if base.context is not None and settings.length + 2 > base.context:
            raise InvalidArgument(
                f"length is {settings.length}, and base {base.name!r} has a context of {base.context}",
                "ask for a shorter length",
            )
        with ExitStack() as opening:
            opening.enter_context(locked(out))
            with explain_full_disk(out):
                identity: dict[str, Any] = {
                    "settings": self._settings_as_json(),
                    "base": {"name": base.name, "fingerprint": base.fingerprint},
                }
                self._require_same(identity)  # before anything is read or said of another run's texts
                self.population = opening.enter_context(self._population())
                self._say(Card(**self.population.facts["card"]).as_text())
                identity["data"] = self.population.facts
                self._require_same(identity)
                if not (out / CONFIG).is_file():
                    atomic_write(out / CONFIG, json.dumps(identity, indent=2).encode())
                self._server = SimulatedServer(out / "rounds", settings)
                self._vault = (
                    opening.enter_context(RecordVault(out, self.population.count)) if settings.seal else None
                )
            self._opened = opening.pop_all()

    def go(self, executor: Executor) -> None:
        """To the end.

        Raises:
            InvalidArgument: no room on the disk, or a damaged file.
        """
        with explain_full_disk(self.out):
            self._run(executor)

    def _run(self, executor: Executor) -> None:
        self._server.begin(self._base)
        self._newcomers(executor)
        while self._server.number < self.settings.num_server_rounds:
            self._round(executor)
            self._newcomers(executor)
        if self.settings.private:
            self._personalize(executor)
        atomic_write(self.out / METRICS, json_lines(self._metrics()))

    def close(self) -> None:
        """Let go of the files."""
        self._opened.close()

    def __enter__(self) -> Run:
        """The run."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _personalize(self, executor: Executor) -> None:
        """Everything that is of one user alone."""
        users = self.population.numbers()
        rates = {method: self._tune(executor, method) for method in methods(self.settings)}
        for kind in ("personal", *self.settings.more_arms):
            tasks = self._tasks(kind, users, rate=rates.get("private" if kind == "personal" else kind, 0.0))
            self._finish(executor, tasks, _TITLES.get(kind, f"arm: {kind}"))
        if self.settings.history_sizes:
            tasks = self._tasks("history", users, rate=rates["private"])
            self._finish(executor, tasks, "shorter histories")

    def _finish(self, executor: Executor, tasks: Sequence[Task], what: str) -> None:
        for _ in self._results(executor, tasks, what):
            pass

    def _tune(self, executor: Executor, method: str) -> float:
        """The learning rate of a method; 0 for that of the settings."""
        users = self.population.numbers()[: self.settings.tune_users]
        if not users:
            return 0.0
        rates, tasks = grid(self.settings, method), self._tasks(f"{TUNE}{method}", users)
        results = self._results(executor, tasks, f"tuning: {method}")
        losses = [line["losses"] for result in results for line in result.facts if "losses" in line]
        facts = facts_of(method, rates, losses)
        self._tuning.append(facts)
        self._say(
            f"{method}: learning rate {facts['rate']:.2g}, of {', '.join(f'{rate:.2g}' for rate in rates)}"
        )
        return float(facts["rate"])

    def _round(self, executor: Executor) -> None:
        users, number = self.population.numbers(role=0), self._server.number + 1
        tasks = self._tasks("round", self._server.asked(users))
        results = list(self._results(executor, tasks, f"round {number} of {self.settings.num_server_rounds}"))
        self._server.take(results, len(users))
        for task in tasks:
            self._path_of(task).unlink()

    def _newcomers(self, executor: Executor) -> None:
        new = self.population.numbers(role=1)
        tried = new[: self.settings.newcomers or None]
        losses = [
            line["loss"]
            for result in self._results(executor, self._tasks("newcomers", tried), "new users")
            for line in result.facts
            if "loss" in line
        ]
        if losses:
            mean = sum(losses) / len(losses)
            self._say(
                f"round {self._server.number}: {mean:.3f} nats/token for {counted(len(losses), 'new user')}"
            )

    def _tasks(self, kind: str, users: Sequence[int], rate: float = 0.0) -> list[Task]:
        size, shared = self.settings.cohort_size, self._server.shared
        round = self._server.number + (kind == "round") if kind in ("round", "newcomers") else 0
        return [
            Task(kind, number, cohort, round, shared, rate)
            for number, cohort in enumerate(_split_into_cohorts(users, size))
        ]

    def _results(self, executor: Executor, tasks: Sequence[Task], what: str) -> Iterator[Result]:
        """Results in the order of the tasks; each is kept as soon as it is there, records before it."""
        missing = [task for task in tasks if not self._path_of(task).is_file()]
        users = sum(len(task.users) for task in missing)
        with ProgressBar(
            total=users, desc=what, unit="user", disable=not self._progress or not missing
        ) as bar:
            for task, result in executor.results(missing):
                if self._vault is not None and result.records:
                    self._vault.commit(result.records)
                self._log_time(task, result)
                if result.micro_batch_tokens:
                    self._say(f"out of memory: micro-batches of {result.micro_batch_tokens} tokens from here")
                atomic_write(self._path_of(task), result.to_bytes())
                bar.update(len(task.users))
        for task in tasks:
            yield _read_result(self._path_of(task))

    def _path_of(self, task: Task) -> Path:
        return self.out / "work" / task.name

    def _log_time(self, task: Task, result: Result) -> None:
        line = {"task": task.name, "users": len(task.users), "at": time.time()}
        line |= {
            name: getattr(result, name) for name in ("seconds", "tokens", "peak_mb", "micro_batch_tokens")
        }
        add_line(self.out / TIMES, line)

    def _metrics(self) -> Iterator[dict[str, Any]]:
        """A line for what is the same for all, each round, each new user and round, each user."""
        texts = self.population.facts.get("texts", "")
        yield {
            "run": "antefix-sim run",
            "settings": self._settings_as_json(),
            "texts": texts,
            "bytes": self._traffic(),
        }
        for facts in self._tuning:
            yield {"kind": "tuning", **facts}
        for number in range(self._server.number + 1):
            yield {"kind": "round", **self._server.facts(number)}
        for round, line in self._lines("newcomers"):
            yield {"kind": "newcomers", "round": round, **line}
        arms: dict[str, dict[str, Any]] = {}
        for kind in (*self.settings.more_arms, "history"):
            for _, line in self._lines(kind):
                reason = line.pop("failed", None)  # of this arm alone
                arms.setdefault(line["user"], {}).update(
                    line | ({f"{kind} failed": reason} if reason else {})
                )
        for _, line in self._lines("personal"):
            yield {"kind": "personal", **arms.get(line["user"], {}), **line}

    def _traffic(self) -> dict[str, int]:
        shared = self._server.shared
        numbers = self.settings.projection_dim or len(SharedVector.of(shared).values)
        return traffic(shared, numbers, self._vault.record_bytes if self._vault else None)

    def _lines(self, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Of all cohorts in their order, with the round; users by name."""
        for path in sorted((self.out / "work").glob(f"{kind}-[0-9]*-[0-9]*")):
            result = _read_result(path)
            names = self.population.names([line["user"] for line in result.facts])
            for line in result.facts:
                yield Task.kind_and_round(path.name)[1], {**line, "user": names[line["user"]]}

    def _settings_as_json(self) -> dict[str, Any]:
        return self.settings.model_dump(by_alias=True)

    def _population(self) -> Population:
        path = self.out / "population.db"
        if not (self.out / CONFIG).is_file():
            path.unlink(missing_ok=True)  # of a run that was cut off before it said which
        return population_of(self.settings, path)

    def _require_same(self, now: Mapping[str, Any]) -> None:
        """Refuse to go on with another run's files.

        Args:
            now: parts of the configuration, to compare with those that are stored.
        """
        path = self.out / CONFIG
        if not path.is_file():
            return
        try:
            stored = dict(json.loads(path.read_text("utf-8")))
        except (ValueError, TypeError):
            raise InvalidArgument(f"{path} is damaged", "choose another --out") from None
        for part in now:
            if stored.get(part) != now[part]:
                difference = _first_difference(stored.get(part), now[part])
                raise InvalidArgument(
                    f"{self.out} is of a run with other {part}{difference}",
                    "choose another --out, or ask for the same again to go on with it",
                )


def _split_into_cohorts(users: Sequence[int], size: int) -> list[list[int]]:
    """Of `size` each; none of one user, who would have no others to be compared with, where that can be."""
    starts = list(range(0, len(users), size))
    if len(users) > size > 2 and len(users) % size == 1:
        starts[-1] -= 1
    return [list(users[start:end]) for start, end in pairwise([*starts, len(users)])] if users else []


def _read_result(path: Path) -> Result:
    try:
        return Result.from_bytes(path.read_bytes())
    except (ValueError, TypeError, EOFError):
        raise damaged_file(path) from None


def _first_difference(stored: Any, now: Any) -> str:
    if not isinstance(stored, dict):
        return ""
    for name, value in now.items():
        if stored.get(name) != value and not isinstance(value, dict):
            return f": {name} was {stored.get(name)!r}, now {value!r}"
    return ""
