"""Texts from a file of JSON lines: `user`, `completion` or `text`, perhaps `prompt` and `date`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from antefix_simulations.data.columns import Columns
from antefix_simulations.data.text import Text
from antefix_simulations.data.user_texts import DataRefused, numbered_lines, parse_line

__all__ = ["TIMES", "read_lines", "time_of"]

TIMES = ("date", "time", "timestamp", "created_at")
"""Names of columns that hold a time."""
_WAYS_OUT = (
    "-c broken-lines=skip leaves such lines out; hf:FILE and -c partition=iid make users of a set without"
)


def read_lines(
    path: Path, broken: Callable[[int], None] | None, columns: Columns | None = None
) -> Iterator[Text]:
    """Every usable line.

    Args:
        path: `.jsonl` or `.jsonl.gz`.
        broken: called with the number of a line that cannot be used; None to refuse the file for it.
        columns: which lines are taken.

    Raises:
        DataRefused: no such file, or a broken line.
    """
    for number, line in numbered_lines(path):
        try:
            user, example, row = parse_line(f"line {number} of {path}", line)
        except DataRefused as error:
            if broken is None:
                raise DataRefused(error.message, f"{error.hint}; {_WAYS_OUT}") from None
            broken(number)
            continue
        if columns is not None and not columns.takes(row):
            continue
        yield Text(
            user, next((time_of(row[name]) for name in TIMES if row.get(name) is not None), None), example
        )


def time_of(value: Any) -> str | None:
    """A time that sorts as text: of ISO 8601 or seconds since 1970, in UTC; None where it is neither."""
    try:
        if isinstance(value, datetime):
            time = value
        elif isinstance(value, int | float):
            time = datetime.fromtimestamp(value, UTC)
        else:
            time = datetime.fromisoformat(str(value))
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError, OSError):
        return None
