"""Files of a run, in a folder of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from antefix.errors import InvalidArgument

METRICS = "metrics.jsonl"
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_]{0,39}")


def file_stem(user: str) -> str:
    """A file name for any user: the name itself where it is plain, else what is plain in it and a digest.

    Two users never share one, not even where `A` and `a` are the same file. `shared` is kept free.
    """
    if _PLAIN.fullmatch(user) and user != "shared":
        return user
    plain = re.sub(r"[^a-z0-9_]+", "_", user.lower())[:40].strip("_") or "user"
    return f"{plain}-{hashlib.sha256(user.encode(errors='surrogatepass')).hexdigest()[:12]}"


def require_usable(out: Path, names: Iterable[str], kind: str) -> bool:
    """Whether an earlier run of the same `kind` left files in `out` that this one will replace.

    Creates the folder: better refused now than after minutes of training.

    Raises:
        InvalidArgument: `out` is no folder to write to, or holds such files and no run of that kind.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgument(f"{out} is not a folder: {error.strerror}", "choose another --out") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise InvalidArgument(f"{out} cannot be written to", "choose another --out")
    there = sorted(name for name in names if (out / name).exists())
    if there and _kind(out / METRICS) != kind:
        raise InvalidArgument(
            f"{out} already has {there[0]}, and no earlier {kind} wrote it",
            "choose another --out, or move that file away",
        )
    return bool(there)


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """One object a line."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def _kind(metrics: Path) -> str | None:
    """What kind of run the first line of a metrics file names."""
    try:
        with metrics.open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError):
        return None
    return str(first.get("run")) if isinstance(first, dict) else None
