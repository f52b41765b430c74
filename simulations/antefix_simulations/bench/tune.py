"""Which length, learning rate and number of passes suit how many texts: what the client's rule was chosen by.

For every number of texts, all settings are trained at once, as users of one batch, on the oldest texts of a
few real users, and judged on the texts that come after them. No shared prefix: this is a device on its own.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from antefix import Example, FrozenBase, PrefixSpec, TrainingPlan, score, train
from antefix.common.settings import Settings
from antefix.common.table import align
from antefix_simulations.common.results_log import ResultsLog

_BEST = 5  # settings of each number of texts that the table shows


class Grid(Settings):
    """What is tried.

    Attributes:
        texts: numbers of texts of each user.
        lengths: positions of the prefix.
        rates: learning rates.
        passes: over the texts.
        users: how many, the first of the data with enough texts.
        held_out: later texts of each, scored.
        batch_size: texts per step.
    """

    texts: tuple[int, ...] = (8, 24, 64)
    lengths: tuple[int, ...] = (8, 16)
    rates: tuple[float, ...] = (5e-3, 1e-2, 2e-2)
    passes: tuple[float, ...] = (3, 6, 12)
    users: int = Field(default=4, ge=1)
    held_out: int = Field(default=16, ge=1)
    batch_size: int = Field(default=4, ge=1)


def run_tuning(
    base: FrozenBase,
    users: Mapping[str, Sequence[Example]],
    grid: Grid,
    out: Path,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Train and score the whole grid; a row per setting, the mean over users. What is there already stays."""
    ledger = ResultsLog(out, {"run": "tune", "base": base.fingerprint, **grid.model_dump(mode="json")})
    later = {user: texts[-grid.held_out :] for user, texts in users.items()}
    for count, length in itertools.product(grid.texts, grid.lengths):
        names = {
            f"{user} rate {rate:g} passes {passes:g}": (user, rate, passes)
            for user, rate, passes in itertools.product(users, grid.rates, grid.passes)
        }
        arm = f"texts {count} length {length}"
        missing = ledger.missing(arm, None, names)
        if not missing:
            continue
        say(f"{arm}: {len(missing)} prefixes")
        trained = train(
            base,
            {name: users[names[name][0]][:count] for name in missing},
            PrefixSpec(length=length),
            {name: _plan(grid, *names[name][1:]) for name in missing},
        )
        prefixes = {name: trained[name].prefix for name in missing}
        found = score(base, {name: later[names[name][0]] for name in missing}, prefixes)
        for name in missing:
            ledger.add(arm, None, name, found[name])
    return [row for count in grid.texts for row in _rows(ledger, users, grid, count)]


def tuning_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """For each number of texts the best settings and the worst one."""
    lines = [["texts", "length", "rate", "passes", "nats per token", "behind the best"]]
    for _, group in itertools.groupby(rows, key=lambda row: row["texts"]):
        ordered = sorted(group, key=lambda row: row["nats_per_token"])
        for row in [*ordered[:_BEST], ordered[-1]]:
            behind = row["nats_per_token"] - ordered[0]["nats_per_token"]
            cells = [row["texts"], row["length"], f"{row['rate']:g}", f"{row['passes']:g}"]
            lines.append([*map(str, cells), f"{row['nats_per_token']:.3f}", f"{behind:.3f}"])
    return "\n".join(align(lines, left=0))


def _plan(grid: Grid, rate: float, passes: float) -> TrainingPlan:
    return TrainingPlan(
        passes=passes, learning_rate=rate, batch_size=grid.batch_size, evaluate=False, users_in_flight=64
    )


def _rows(log: ResultsLog, users: Mapping[str, object], grid: Grid, count: int) -> list[dict[str, Any]]:
    rows = []
    for length, rate, passes in itertools.product(grid.lengths, grid.rates, grid.passes):
        arm = f"texts {count} length {length}"
        names = [f"{user} rate {rate:g} passes {passes:g}" for user in users]
        losses = [log.lines[arm, None, name]["nats_per_token"] for name in names]
        rows.append(
            {
                "texts": count,
                "length": length,
                "rate": rate,
                "passes": passes,
                "nats_per_token": statistics.mean(losses),
            }
        )
    return rows
