"""What a run cost: time, memory, and what a real server and its devices would have sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antefix.rounds import Update

__all__ = ["costs", "traffic"]

_NAMES = {
    "round": "rounds",
    "newcomers": "new users",
    "personal": "private prefixes",
    "context": "arm: context",
    "retrieved": "arm: retrieved",
    "lora": "arm: lora",
    "full": "arm: full",
    "history": "shorter histories",
    "tune": "tuning",
}


def traffic(shared: bytes, numbers: int, record: int | None) -> dict[str, int]:
    """Bytes of one user.

    Args:
        shared: file of a shared prefix.
        numbers: of an update.
        record: bytes of a sealed private prefix; None where none was sealed.
    """
    found = {"down in a round": len(shared), "up in a round": Update.sealed_bytes(numbers)}
    return found | ({"up for a private prefix": record} if record is not None else {})


def costs(times: Path) -> list[list[str]]:
    """A row for each part: what, users, seconds, users per second, trained tokens per second, peak MB."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for line in times.read_text("utf-8").splitlines():
        told = json.loads(line)
        parts.setdefault(told["task"].split("-")[0].split("_")[0], []).append(told)
    return [_row(_NAMES[kind], parts[kind]) for kind in _NAMES if kind in parts]


def _row(name: str, lines: Sequence[dict[str, Any]]) -> list[str]:
    users, seconds, tokens = (sum(line[what] for line in lines) for what in ("users", "seconds", "tokens"))
    speed = f"{tokens / max(seconds, 1e-9):,.0f}" if tokens else ""
    peak = max(line["peak_mb"] for line in lines)
    return [name, f"{users:,}", f"{seconds:,.1f}", f"{users / max(seconds, 1e-9):.3g}", speed, f"{peak:,.0f}"]
