"""What each user's private prefix is worth: beside the shared one, none, other users' own, fewer texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from antefix import FrozenBase, Prefix, TrainingPlan
from antefix_simulations.data.store import Split
from antefix_simulations.run.record_vault import Sealer
from antefix_simulations.run.task import Result, Task
from antefix_simulations.run.trainer import Trainer
from antefix_simulations.run.tuning import grid, inner_splits
from antefix_simulations.settings import RunSettings

__all__ = ["PrivatePrefixes"]

_ALONE = "nobody else of its cohort has a private prefix"

Trial = tuple[int, int]
"""A user, and which of several trials of that user."""


class PrivatePrefixes:
    """The tasks `personal`, `history` and `tune_private` of a cohort."""

    def __init__(self, base: FrozenBase, settings: RunSettings, trainer: Trainer, out: Path) -> None:
        """Nothing is computed yet."""
        self._base, self._settings, self._trainer, self._out = base, settings, trainer, out
        self._sealer: Sealer | None = None

    def measure(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """Train a private prefix for each user, measure it, and seal it."""
        settings, score = self._settings, self._trainer.score
        trained = self._trainer.train(users, self._trainer.private_plan(task.rate), shared)
        own = {user: state.prefix for user, state in trained.items()}
        result.tokens += sum(state.tokens for state in trained.values())
        losses = {
            "none": score(users, None),
            "shared": score(users, dict.fromkeys(users, shared)),
            "private": score(users, own),
        }
        others = self._others(users, own)
        matrix, texts = self._matrix(users, own, task), self._write(users, own, shared)
        for user, split in users.items():
            line: dict[str, Any] = {"user": user, "texts": len(split.training)}
            line |= {name: of_users[user] for name, of_users in losses.items()}
            if settings.others:
                line |= {"others": others[user]} if others else {"others failed": _ALONE}
            line |= {"diverged": True} if trained[user].diverged else {}
            line |= {"matrix": matrix[user]} if user in matrix else {}
            line |= {"written": texts[user]} if user in texts else {}
            result.facts.append(line)
        if settings.seal:
            result.records |= {user: self._seal(user, prefix) for user, prefix in own.items()}

    def histories(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """Private prefixes from the newest of their texts alone; all sizes in one batch."""
        sizes = self._settings.history_sizes
        able = {user: split for user, split in users.items() if len(split.training) >= sizes[-1]}
        plan = self._trainer.private_plan(task.rate)
        trials = {
            (user, size): (Split(split.training[-size:], split.held_out), plan)
            for user, split in able.items()
            for size in sizes
        }
        losses = self._try(trials, shared, result)
        lines = {user: {str(size): losses[user, size] for size in sizes} for user in able}
        result.facts += [{"user": user, "history": line} for user, line in lines.items()]

    def tune(self, users: dict[int, Split], shared: Prefix, task: Task, result: Result) -> None:
        """What each learning rate is worth, on training texts alone; all rates in one batch."""
        rates = grid(self._settings, "private")
        trials = {
            (user, place): (split, self._trainer.private_plan(rate))
            for user, split in inner_splits(users).items()
            for place, rate in enumerate(rates)
        }
        losses = self._try(trials, shared, result)
        lines = {user: [losses[user, place] for place in range(len(rates))] for user, _ in losses}
        result.facts += [{"user": user, "losses": line} for user, line in lines.items()]

    def _try(
        self, trials: Mapping[Trial, tuple[Split, TrainingPlan]], shared: Prefix, result: Result
    ) -> dict[Trial, float]:
        """Losses of prefixes that are trained together; a user can be there more than once."""
        if not trials:
            return {}
        names = dict(enumerate(trials))
        splits = {number: trials[trial][0] for number, trial in names.items()}
        plans = {str(number): trials[trial][1] for number, trial in names.items()}
        trained = self._trainer.train(splits, plans, shared)
        losses = self._trainer.score(splits, {number: state.prefix for number, state in trained.items()})
        result.tokens += sum(state.tokens for state in trained.values())
        return {names[number]: loss for number, loss in losses.items()}

    def _others(self, users: Mapping[int, Split], own: Mapping[int, Prefix]) -> dict[int, float]:
        """Each user's mean loss under the prefixes of the next users of the cohort; empty without any."""
        names = list(users)
        columns = []
        for distance in range(1, min(self._settings.others, len(users) - 1) + 1):
            other = {user: own[names[(at + distance) % len(names)]] for at, user in enumerate(names)}
            columns.append(self._trainer.score(users, other))
        if not columns:
            return {}
        return {user: sum(column[user] for column in columns) / len(columns) for user in users}

    def _matrix(
        self, users: Mapping[int, Split], own: Mapping[int, Prefix], task: Task
    ) -> dict[int, list[float]]:
        """Some users of the first cohort under the prefixes of each of them."""
        chosen = list(users)[: self._settings.matrix] if task.number == 0 else []
        readers = {user: users[user] for user in chosen}
        columns = [self._trainer.score(readers, dict.fromkeys(readers, own[other])) for other in chosen]
        return {user: [column[user] for column in columns] for user in chosen}

    def _write(
        self, users: Mapping[int, Split], own: Mapping[int, Prefix], shared: Prefix
    ) -> dict[int, dict[str, dict[str, float]]]:
        """Of each user the measures of texts that the base writes under no, the shared, the own prefix."""
        settings, measures = self._settings, dict[int, dict[str, dict[str, float]]]()
        if not settings.generate:
            return measures
        from antefix_simulations.arms.generation import write_texts

        under = {"none": None, "shared": dict.fromkeys(users, shared), "private": own}
        for name, prefixes in under.items():
            measured = write_texts(self._base, users, prefixes, settings.generate, settings.generate_tokens)
            for user, values in measured.items():
                measures.setdefault(user, {})[name] = values
        return measures

    def _seal(self, user: int, prefix: Prefix) -> bytes:
        if self._sealer is None:
            self._sealer = Sealer(self._out, self._base)
        return self._sealer.seal(user, prefix)
