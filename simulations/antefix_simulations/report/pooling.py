"""Runs that differ by their seed, as one: a user whom several of them drew counts once, with the mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from antefix.errors import InvalidArgument
from antefix_simulations.arms.registry import ARMS
from antefix_simulations.report.comparison import require_same_texts
from antefix_simulations.report.summary import Summary, read_summary

__all__ = ["pool_runs"]


def pool_runs(folders: Sequence[Path]) -> Summary:
    """The users of all runs.

    Two runs of one user are not two users: their losses are averaged before anything is said of users.

    Raises:
        InvalidArgument: a folder without a finished run, runs of other texts, or one seed twice.
    """
    runs = [read_summary(folder) for folder in folders]
    require_same_texts(runs, "pool runs that differ by their seed alone")
    seeds = [run.settings.get("seed") for run in runs]
    if len(set(seeds)) < len(seeds):
        raise InvalidArgument(
            f"the seeds of these runs are {', '.join(map(str, seeds))}", "pool runs of different seeds"
        )
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in (line for run in runs for line in run.users):
        lines.setdefault(str(line["user"]), []).append(line)
    return Summary(
        settings=runs[0].settings,
        rounds=runs[0].rounds,
        users=[_mean(lines_of_user) for lines_of_user in lines.values()],
        failed=[line for run in runs for line in run.failed],
    )


def _mean(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One user's line, of those arms that all of its runs have."""
    arms = [arm for arm in ARMS if all(arm in line for line in lines)]
    histories = [line.get("history", {}) for line in lines]
    sizes = [size for size in histories[0] if all(size in history for history in histories)]
    line: dict[str, Any] = {"user": lines[0]["user"], "texts": lines[0]["texts"]}
    line |= {arm: _of(arm, lines) for arm in arms}
    return line | ({"history": {size: _of(size, histories) for size in sizes}} if sizes else {})


def _of(name: str, lines: Iterable[Mapping[str, Any]]) -> float:
    return fmean(line[name] for line in lines)
