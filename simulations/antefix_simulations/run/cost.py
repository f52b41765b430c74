"""What a run cost: time, memory, and what a real server and its devices would have sent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from antefix.rounds import Update
from antefix_simulations.arms.registry import optional_arms
from antefix_simulations.common.results_log import json_lines
from antefix_simulations.run.task import Task
from antefix_simulations.run.tuning import TUNE

__all__ = ["add_line", "costs", "read_times", "traffic"]


def traffic(shared: bytes, numbers: int, record: int | None) -> dict[str, int]:
    """Bytes of one user.

    Args:
        shared: file of a shared prefix.
        numbers: of an update.
        record: bytes of a sealed private prefix; None where none was sealed.
    """
    sizes = {"down in a round": len(shared), "up in a round": Update.sealed_bytes(numbers)}
    return sizes | ({"up for a private prefix": record} if record is not None else {})


def add_line(path: Path, line: Mapping[str, Any]) -> None:
    """Of a cohort that is done."""
    with open(path, "a+b", opener=partial(os.open, mode=0o600)) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            file.write(b"" if file.read(1) == b"\n" else b"\n")  # behind one that a full disk cut off
        file.write(json_lines([line]))


def read_times(path: Path) -> list[dict[str, Any]]:
    """A line for each cohort. One that a full disk cut off is left out: it is of no result."""
    lines = []
    for line in path.read_bytes().splitlines():
        with suppress(ValueError):
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict) and "micro_batch_tokens" in line]


def costs(times: Path) -> list[list[str]]:
    """A row for each part: what, users, seconds, users per second, trained tokens per second, peak MB."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for line in read_times(times):
        kind, _ = Task.kind_and_round(line["task"])
        parts.setdefault("tuning" if kind.startswith(TUNE) else kind, []).append(line)
    arms = {name: f"arm: {name}" for name in optional_arms()}
    titles = {"round": "rounds", "newcomers": "new users", "personal": "private prefixes", **arms}
    titles |= {"history": "shorter histories", "tuning": "tuning"}
    return [_row(title, parts[kind]) for kind, title in titles.items() if kind in parts]


def _row(name: str, lines: Sequence[dict[str, Any]]) -> list[str]:
    users, seconds, tokens = (sum(line[what] for line in lines) for what in ("users", "seconds", "tokens"))
    speed = f"{tokens / max(seconds, 1e-9):,.0f}" if tokens else ""
    peak = max(line["peak_mb"] for line in lines)
    return [name, f"{users:,}", f"{seconds:,.1f}", f"{users / max(seconds, 1e-9):.3g}", speed, f"{peak:,.0f}"]
