"""Runs beside each other: what an arm of one is worth against the same arm of another, on the same users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antefix.common.table import align
from antefix.errors import InvalidArgument
from antefix_simulations.arms.registry import ARMS
from antefix_simulations.common.bootstrap import interval
from antefix_simulations.common.terminal import counted
from antefix_simulations.report.summary import Summary, read_summary

__all__ = ["Comparison", "compare", "require_same_texts"]


@dataclass(frozen=True)
class Comparison:
    """Runs, the first of which the others are compared with.

    Attributes:
        names: of their folders.
        runs: their metrics.
        users: that all of them measured.
    """

    names: list[str]
    runs: list[Summary]
    users: list[str]

    def differences(self) -> list[str]:
        """Settings that are not the same in all."""
        first = self.runs[0].settings
        changed = [name for name in first if any(run.settings.get(name) != first[name] for run in self.runs)]
        return [f"{name}: {', '.join(str(run.settings.get(name)) for run in self.runs)}" for name in changed]

    def as_text(self) -> str:
        """For a terminal."""
        rows = [["arm", *self.names]]
        rows += [[arm, *(self._cell(arm, at) for at in range(len(self.runs)))] for arm in self.arms]
        users = counted(len(self.users), "user")
        head = f"{users} of all runs; nats per token, and lower than the first by (95 %)"
        return "\n".join([head, "", *align(rows), "", *self.differences()])

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "users": len(self.users),
            "runs": [
                {"name": name, "arms": {arm: interval(self._losses(arm, at)).as_json() for arm in self.arms}}
                | {"gain": {arm: interval(self._gains(arm, at)).as_json() for arm in self.arms} if at else {}}
                for at, name in enumerate(self.names)
            ],
            "differences": self.differences(),
        }

    @property
    def arms(self) -> list[str]:
        """That all of them have."""
        return [arm for arm in ARMS if all(arm in run.arms for run in self.runs)]

    def _cell(self, arm: str, at: int) -> str:
        losses = self._losses(arm, at)
        mean = f"{sum(losses) / len(losses):.3f}"
        if at == 0:
            return mean
        gain = interval(self._gains(arm, at))
        return f"{mean}  {gain.mean:+.3f} ({gain.bounds('+.3f')})"

    def _losses(self, arm: str, at: int) -> list[float]:
        losses = {line["user"]: line[arm] for line in self.runs[at].users}
        return [losses[user] for user in self.users]

    def _gains(self, arm: str, at: int) -> list[float]:
        pairs = zip(self._losses(arm, 0), self._losses(arm, at), strict=True)
        return [first - other for first, other in pairs]


def compare(folders: Sequence[Path]) -> Comparison:
    """Read runs.

    Raises:
        InvalidArgument: a folder without a finished run, or one where nobody has a private prefix; runs of
            other texts: their losses do not compare.
    """
    runs = [read_summary(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if not run.users:
            raise InvalidArgument(
                f"nobody in {folder} has a private prefix", "compare runs with private=true that did not fail"
            )
    require_same_texts(runs, "compare runs of the same data and split")
    common = set.intersection(*({str(line["user"]) for line in run.users} for run in runs))
    if not common:
        raise InvalidArgument("these runs have no user in common", "compare runs of the same data and seed")
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return Comparison(names, runs, sorted(common))


def require_same_texts(runs: Sequence[Summary], hint: str) -> None:
    """Losses on other texts do not compare.

    Raises:
        InvalidArgument: the runs read other texts, or split them otherwise.
    """
    if len({run.texts for run in runs if run.texts}) > 1:
        raise InvalidArgument("the data changed between these runs", hint)
    if len({_splitting(run) for run in runs}) > 1:
        raise InvalidArgument("these runs split their texts in different ways", hint)


def _splitting(run: Summary) -> tuple[Any, ...]:
    """What must be the same for two runs to have read and split the same texts."""
    names = (
        "data",
        "where",
        "subset",
        "split",
        "user-column",
        "text-column",
        "prompt-column",
        "time-column",
        "partition",
        "partitions",
        "partition-by",
        "partition-alpha",
        "partition-labels",
        "max-texts",
        "held-out",
        "max-held-out",
        "max-prompt-tokens",
        "max-text-tokens",
        "base",
    )
    seed = run.settings.get("seed") if run.settings.get("partition") != "none" else None  # it made the users
    return (seed, *(run.settings.get(name) for name in names))
