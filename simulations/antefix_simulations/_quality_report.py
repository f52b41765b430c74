"""What the quality study found, as a table and as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from antefix_simulations._bootstrap import Interval, interval
from antefix_simulations._ledger import Ledger
from antefix_simulations._quality import Quality
from antefix_simulations._terminal import aligned

_NAMES = {
    "none": "no prefix",
    "in_context": "in-context examples",
    "shared": "shared prefix, of other users",
    "lone": "private, from own texts alone",
    "own": "private, from the shared one",
    "others": "other users' private",
}
_COMPARED = [
    ("shared", "own"),
    ("others", "own"),
    ("in_context", "own"),
    ("in_context", "shared"),
    ("none", "shared"),
    ("lone", "own"),
]


@dataclass(frozen=True)
class QualityReport:
    """Result of the study.

    Attributes:
        settings: as asked.
        losses: held-out nats per token by arm and user, averaged over seeds.
        gains: of two arms (worse, better): how many nats the second saves per token.
        own_wins: share of users whose own prefix beats the mean of the others'.
        texts_in_context: examples that fitted, on average; None without that arm.
    """

    settings: Quality
    losses: dict[str, dict[str, float]]
    gains: dict[tuple[str, str], Interval]
    own_wins: float
    texts_in_context: float | None

    def as_json(self) -> dict[str, Any]:
        """The report as plain data.

        Keys: `settings`; `arms` (by name: `mean`, `users`, `by_user`); `gains` (by `worse - better`:
        `mean`, `low`, `high`, the 95 % interval over users); `own_beats_others`; `texts_in_context`.
        """
        return {
            "settings": self.settings.model_dump(),
            "arms": {
                arm: {"mean": fmean(users.values()), "users": len(users), "by_user": users}
                for arm, users in self.losses.items()
            },
            "gains": {f"{worse} - {better}": vars(gain) for (worse, better), gain in self.gains.items()},
            "own_beats_others": self.own_wins,
            "texts_in_context": self.texts_in_context,
        }

    def as_text(self) -> str:
        """The report as lines for a terminal."""
        rows = [["arm", "nats/token", "users"]]
        for arm, name in _NAMES.items():
            if users := self.losses.get(arm):
                rows.append([name, f"{fmean(users.values()):.3f}", str(len(users))])
        gains = [["gain in nats/token", "mean", "95 % interval over users"]]
        for (worse, better), gain in self.gains.items():
            said = f"{gain.low:.3f} … {gain.high:.3f}" + ("" if gain.excludes_zero else " (0 is in it)")
            gains.append([f"{_NAMES[better]}, over: {_NAMES[worse]}", f"{gain.mean:.3f}", said])
        return "\n".join([*self._head(), "", *aligned(rows), "", *aligned(gains), "", *self._end()])

    def _head(self) -> list[str]:
        asked = self.settings
        return [
            f"Held-out loss of {asked.users} users in nats per token, lower is better. "
            f"{asked.train_texts} texts of each to train on,",
            f"the {asked.held_out} newest scored; prefixes of {asked.length} positions, "
            f"the shared one of {asked.shared_users} other users; seeds: {asked.seeds}.",
        ]

    def _end(self) -> list[str]:
        lines = [f"Own beats the mean of {self.settings.others} others' for {self.own_wins:.1%} of users."]
        if self.texts_in_context is not None:
            lines.append(
                f"In context, {self.texts_in_context:.1f} of {self.settings.train_texts} texts fit (mean)."
            )
        return lines


def report(ledger: Ledger, settings: Quality) -> QualityReport:
    """Average over seeds within each user, then compare over users."""
    arms = [arm for arm in _NAMES if arm != "lone" or settings.lone]
    losses = {arm: found for arm in arms if (found := _by_user(ledger, arm, settings))}
    gains = {}
    for worse, better in _COMPARED:
        both = [user for user in losses.get(worse, {}) if user in losses.get(better, {})]
        if both:
            gains[worse, better] = interval([losses[worse][user] - losses[better][user] for user in both])
    wins = [losses["own"][user] < loss for user, loss in losses["others"].items()]
    fitted = [line["texts"] for (arm, _, _), line in ledger.lines.items() if arm == "in_context"]
    return QualityReport(settings, losses, gains, fmean(wins), _mean(fitted))


def _by_user(ledger: Ledger, arm: str, settings: Quality) -> dict[str, float]:
    """Mean over the seeds that were asked for; an earlier run may have left more."""
    found: dict[str, list[float]] = {}
    for (name, seed, user), line in ledger.lines.items():
        if name == arm and (seed is None or seed < settings.seeds):
            found.setdefault(user, []).append(line["nats_per_token"])
    return {user: fmean(values) for user, values in found.items()}


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
