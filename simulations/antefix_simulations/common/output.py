"""Files of a run, in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

METRICS = "metrics.jsonl"


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """One object a line."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()
