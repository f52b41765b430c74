"""What came of a run: means over users with their intervals, who gains and who loses, and by history."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antefix.common.table import align
from antefix.errors import InvalidArgument
from antefix_simulations.arms.registry import ARMS
from antefix_simulations.common.bootstrap import Interval, interval
from antefix_simulations.common.results_log import METRICS
from antefix_simulations.common.terminal import counted

__all__ = ["Summary", "read_summary"]

_WRITTEN = ("none", "shared", "private")
_HISTORY = (8, 16, 32, 64, 128)


@dataclass
class Summary:
    """A run's metrics, sorted.

    Attributes:
        settings: of the run.
        rounds: a line for each.
        newcomers: per round, new users' losses under its shared prefix.
        users: a line for each user with a private prefix.
        failed: a line for each that failed.
        tuning: a line for each method whose learning rate was chosen.
        traffic: bytes of one user.
        texts: digest of all that the source told; "" where a run did not say.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    newcomers: dict[int, dict[str, float]] = field(default_factory=dict)
    users: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    tuning: list[dict[str, Any]] = field(default_factory=list)
    traffic: dict[str, int] = field(default_factory=dict)
    texts: str = ""

    @property
    def arms(self) -> list[str]:
        """That every user has."""
        return [arm for arm in ARMS if self.users and all(arm in line for line in self.users)]

    def mean(self, arm: str) -> Interval:
        """Nats per token, over users."""
        return interval([line[arm] for line in self.users])

    def gain(self, arm: str, over: str, among: Iterable[Mapping[str, Any]] | None = None) -> Interval:
        """How much lower `arm` is than `over`, nats per token, paired by user."""
        return interval([line[over] - line[arm] for line in (self.users if among is None else among)])

    def winners(self, arm: str, over: str) -> float:
        """Share of users whose loss `arm` lowers."""
        return sum(bool(line[arm] < line[over]) for line in self.users) / len(self.users)

    def by_history(self) -> dict[str, list[dict[str, Any]]]:
        """Users by how many texts they trained on."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for low, high in zip((0, *_HISTORY), (*_HISTORY, 10**9), strict=True):
            users = [line for line in self.users if low <= line["texts"] < high]
            if users:
                groups[f"{low}+" if high == 10**9 else f"{low} to {high - 1}"] = users
        return groups

    def curve(self) -> list[tuple[int, int, Interval]]:
        """Gain over the shared prefix by how many texts trained it, of the same users: texts, users, gain."""
        users = [line for line in self.users if "history" in line]
        sizes = sorted({int(size) for line in users for size in line["history"]})
        users = [line for line in users if len(line["history"]) == len(sizes)]
        gains = {size: [line["shared"] - line["history"][str(size)] for line in users] for size in sizes}
        return [(size, len(users), interval(gains[size])) for size in sizes if users]

    def cold_start(self) -> list[tuple[int, int, Interval]]:
        """What each round's shared prefix is worth to users who took no part, over the start, by user."""
        first = self.newcomers.get(0, {})
        users = [user for user in first if all(user in losses for losses in self.newcomers.values())]
        if not users:
            return []
        return [
            (number, len(users), interval([first[user] - losses[user] for user in users]))
            for number, losses in sorted(self.newcomers.items())
        ]

    def failures(self) -> list[str]:
        """A line for each way that something failed: for how many users, and why."""
        why: dict[tuple[str, str], set[str]] = {}
        for line in self.failed:
            why.setdefault(("", line["failed"]), set()).add(str(line["user"]))
        for line in self.users:
            for name, reason in line.items():
                if name.endswith(" failed"):
                    why.setdefault((name.removesuffix(" failed"), reason), set()).add(str(line["user"]))
        begins = {"": "", "history": "shorter histories: "}
        return [
            f"{begins.get(arm, f'{arm} is left out: ')}{counted(len(users), 'user')} failed: "
            f"{reason}; see {METRICS}"
            for (arm, reason), users in why.items()
        ]

    def written_rows(self) -> list[list[str]]:
        """A row for each measure of written texts: its mean in each arm, and what the private prefix adds."""
        users = [line["written"] for line in self.users if "written" in line]
        rows = []
        for measure in users[0]["private"] if users else ():
            means = {arm: interval([line[arm][measure] for line in users]).mean for arm in _WRITTEN}
            gain = interval([line["private"][measure] - line["shared"][measure] for line in users])
            cells = [f"{means[arm]:.3g}" for arm in _WRITTEN]
            rows.append([measure, *cells, f"{gain.mean:+.3g}", gain.bounds("+.3g")])
        return rows

    def tuning_rows(self) -> list[list[str]]:
        """A row for each method: its rates with their losses, and the one taken."""
        return [
            [
                line["method"],
                ", ".join(
                    f"{rate:.2g}: {loss:.3f}"
                    for rate, loss in zip(line["rates"], line["nats per token"], strict=False)
                ),
                f"{line['rate']:.2g}",
            ]
            for line in self.tuning
        ]

    def rows(self) -> list[list[str]]:
        """The table of arms: mean, interval, and the private prefix against it."""
        rows = []
        for arm in self.arms:
            mean, gain = self.mean(arm), self.gain("private", arm)
            versus = [f"{gain.mean:.3f}", gain.bounds(), f"{self.winners('private', arm):.0%}"]
            rows.append([arm, f"{mean.mean:.3f}", mean.bounds(), *(versus if arm != "private" else [""] * 3)])
        return rows

    def as_text(self) -> str:
        """For a terminal."""
        if not self.users:
            return "\n".join(["no user has a private prefix", *self._remarks()])
        head = ["arm", "nats/token", "95 %", "private is lower by", "95 %", "for"]
        lines = [
            f"{counted(len(self.users), 'user')}, {counted(len(self.rounds) - 1, 'round')}",
            "",
            *align([head, *self.rows()]),
        ]
        if measures := self.written_rows():
            lines += [
                "",
                *align([["written texts", *_WRITTEN, "private over shared", "95 %"], *measures]),
            ]
        if curve := self.curve():
            rows = [[str(texts), f"{gain.mean:.3f}", gain.bounds()] for texts, _, gain in curve]
            lines += ["", f"the same {counted(curve[0][1], 'user')} with fewer texts", ""]
            lines += align([["texts", "over shared", "95 %"], *rows])
        if remarks := self._remarks():
            lines += ["", *remarks]
        return "\n".join(lines)

    def _remarks(self) -> list[str]:
        """Below the tables."""
        remarks = []
        for round, users, gain in self.cold_start()[-1:]:
            if round:
                worth = f"{gain.mean:.3f} ({gain.bounds()}) nats/token"
                remarks.append(f"round {round} is worth {worth} to {counted(users, 'new user')}")
        return [*remarks, *self.failures()]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "users": len(self.users),
            "failed": len({line["user"] for line in self.failed}),
            "rounds": self.rounds,
            "tuning": self.tuning,
            "bytes": self.traffic,
            "cold_start": [
                {"round": number, "users": users, **gain.as_json()}
                for number, users, gain in self.cold_start()
            ],
            "curve": [
                {"texts": texts, "users": users, **gain.as_json()} for texts, users, gain in self.curve()
            ],
            "written": self.written_rows(),
            "arms": {arm: self.mean(arm).as_json() for arm in self.arms},
            "private_gain": {
                arm: {**self.gain("private", arm).as_json(), "share": self.winners("private", arm)}
                for arm in self.arms
                if arm != "private"
            },
            "by_history": {
                name: {"users": len(group), **self.gain("private", "shared", group).as_json()}
                for name, group in self.by_history().items()
            },
        }


def read_summary(folder: Path) -> Summary:
    """Read the metrics of a run.

    Raises:
        InvalidArgument: there are none.
    """
    try:
        lines = [json.loads(line) for line in (folder / METRICS).read_text("utf-8").splitlines()]
        head = lines[0]
        summary = Summary(settings=head["settings"], traffic=head["bytes"], texts=str(head.get("texts", "")))
    except (OSError, ValueError, LookupError):
        raise InvalidArgument(f"{folder} has no finished run", "antefix-sim run --out FOLDER") from None
    for line in lines[1:]:
        if "failed" in line and line["kind"] != "round":
            summary.failed.append(line)
        elif line["kind"] == "round":
            summary.rounds.append(line)
        elif line["kind"] == "tuning":
            summary.tuning.append(line)
        elif line["kind"] == "newcomers":
            summary.newcomers.setdefault(line["round"], {})[line["user"]] = line["loss"]
        else:
            summary.users.append(line)
    return summary
