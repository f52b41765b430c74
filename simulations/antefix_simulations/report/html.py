"""`report.html`: one file that a person reads in a minute."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from antefix.common.files import atomic_write
from antefix_simulations.common.terminal import counted
from antefix_simulations.data.card import Card
from antefix_simulations.report import plots
from antefix_simulations.report.summary import Summary, read_summary
from antefix_simulations.run.cost import costs, read_times
from antefix_simulations.run.driver import CONFIG, TIMES

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"


@dataclass(frozen=True)
class Picture:
    """SVG that we drew ourselves; names of users in it are escaped by the library."""

    title: str
    caption: str
    svg: str


def write_report(out: Path) -> Path:
    """Make the report of a finished run.

    Raises:
        InvalidArgument: there is none in `out`.
    """
    run = read_summary(out)
    config = json.loads((out / CONFIG).read_text("utf-8"))
    times = read_times(out / TIMES)
    # Names of users come from anywhere: everything is escaped.
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        files("antefix_simulations.report").joinpath("report.html.jinja").read_text("utf-8")
    )
    page = template.render(
        title=f"{counted(len(run.users), 'user')}, {counted(max(len(run.rounds) - 1, 0), 'round')}",
        lead=_lead(run),
        base=config["base"]["name"],
        settings=run.settings,
        arms=run.rows(),
        failures=run.failures(),
        pictures=_pictures(run, times),
        by_history=_by_history(run),
        written=run.written_rows(),
        tuned=run.tuning_rows(),
        costs=costs(out / TIMES),
        traffic=run.traffic,
        card=Card(**config["data"]["card"]).as_text(),
        settings_text="\n".join(f"{name} = {json.dumps(value)}" for name, value in run.settings.items()),
    )
    atomic_write(out / REPORT, page.encode())
    return out / REPORT


def _lead(run: Summary) -> str:
    if not run.users:
        return "No user has a private prefix."
    gain = run.gain("private", "shared")
    doubt = " (of one user)" if gain.users == 1 else " (its interval includes zero)"
    sure = "" if gain.excludes_zero else doubt
    sentence = (
        f"A private prefix lowers the loss by {gain.mean:.3f} nats per token on top of the shared one{sure}, "
        f"for {run.winners('private', 'shared'):.0%} of the users"
    )
    if "others" not in run.arms:
        return f"{sentence}."
    return f"{sentence}; the own one beats other users' for {run.winners('private', 'others'):.0%}."


def _pictures(run: Summary, times: list[dict[str, Any]]) -> list[Picture]:
    pictures: list[tuple[bool, str, str, Callable[[], str]]] = [
        (bool(run.users), "Gain of each user", "Own prefix over the shared one.", lambda: plots.gains(run)),
        (
            bool(run.cold_start()),
            "New users",
            "What the shared prefix of each round is worth to users who took no part, over the start.",
            lambda: plots.rounds(run),
        ),
        (
            bool(run.users),
            "Gain and history",
            "A point is a user; bars are means of groups.",
            lambda: plots.history(run),
        ),
        (
            bool(run.curve()),
            "The same users with fewer texts",
            "Gain over the shared prefix of those who have the most texts, trained on so many of the newest.",
            lambda: plots.curve(run),
        ),
        (
            any("matrix" in line for line in run.users),
            "Whose prefix is whose",
            "How much worse a user's texts are read under another's prefix; red is worse.",
            lambda: plots.matrix(run),
        ),
        (
            bool(times),
            "Cost",
            "Users per second, and memory of the process.",
            lambda: plots.throughput(times),
        ),
        (
            any("epsilon" in line for line in run.rounds),
            "Privacy",
            "Epsilon of the shared prefix, as a real server would tell it.",
            lambda: plots.epsilon(run),
        ),
    ]
    return [Picture(title, caption, draw()) for there, title, caption, draw in pictures if there]


def _by_history(run: Summary) -> list[list[str]]:
    rows = []
    for name, group in run.by_history().items():
        gain = run.gain("private", "shared", group)
        rows.append([name, f"{len(group):,}", f"{gain.mean:.3f}", gain.bounds()])
    return rows
