"""Results as they come: JSON lines that a killed run goes on from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from antefix.common.files import atomic_write
from antefix.errors import InvalidArgument

__all__ = ["METRICS", "ResultsLog", "json_lines"]

METRICS = "metrics.jsonl"
"""The file of a run's results, in a folder of its own."""
Key = tuple[str, int | None, str]
"""Arm, seed (None where chance has no part), user."""


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """One object a line."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()


class ResultsLog:
    """One loss per arm, seed and user, kept in `metrics.jsonl`.

    The first line says what run it is (`run`, and what must be the same for it to go on). Each further
    line is a result: `arm`, `seed`, `user`, `nats_per_token`, and what else is told of it.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Open the folder's log, or begin one.

        Raises:
            InvalidArgument: the folder has a log of other settings, or cannot be written to.
        """
        self._path = folder / METRICS
        self.lines: dict[Key, dict[str, Any]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = self._read(dict(identity)) if self._path.exists() else []
            atomic_write(self._path, json_lines([dict(identity), *lines]))
        except OSError as error:
            raise InvalidArgument(f"{folder}: {error.strerror}", "choose another --out") from error

    def add(self, arm: str, seed: int | None, user: str, loss: float, **facts: Any) -> None:
        """Take a result; it is on disk when this returns."""
        line = {"arm": arm, "seed": seed, "user": user, "nats_per_token": loss, **facts}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json_lines([line]).decode())
            file.flush()
            os.fsync(file.fileno())
        self.lines[arm, seed, user] = line

    def _read(self, identity: dict[str, Any]) -> list[dict[str, Any]]:
        """Results of an earlier run with the same identity; a half-written last line is left out."""
        try:
            text = self._path.read_text(encoding="utf-8")
            whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
            if not whole:
                return []
            first, *results = [json.loads(line) for line in whole]
            for line in results:
                float(line["nats_per_token"])
                self.lines[line["arm"], line["seed"], line["user"]] = line
        except (ValueError, TypeError, KeyError):
            raise InvalidArgument(
                f"{self._path} is not the metrics of a {identity['run']} run", "choose another --out"
            ) from None
        if first != json.loads(json.dumps(identity)):
            names = first if isinstance(first, dict) else {}
            other = next((key for key in identity if names.get(key) != identity[key]), "run")
            theirs, ours = names.get(other), identity[other]
            raise InvalidArgument(
                f"{self._path} is of a run with another {other}: {theirs!r}, now {ours!r}",
                "choose another --out, or ask for the same again to go on with it",
            )
        return list(self.lines.values())
