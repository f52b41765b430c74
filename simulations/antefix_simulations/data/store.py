"""A population: users and their texts in a file. They may be more than memory holds: few are read at a time.

users   number, name, role (0 takes part in rounds, 1 is new), training and held-out texts
texts   user, side (0 training, 1 held out), at (oldest first), digest of the completion, prompt, completion
facts   one line of JSON: the card, and what it was made from
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from antefix import Example
from antefix.errors import InvalidArgument
from antefix_simulations.data.text import alike

__all__ = ["Population", "Split"]

TABLES = """
CREATE TABLE users (number INTEGER PRIMARY KEY, name TEXT, role INTEGER, training INTEGER, held_out INTEGER);
CREATE TABLE texts (user INTEGER, side INTEGER, at INTEGER, digest BLOB, prompt TEXT, completion TEXT,
                    PRIMARY KEY (user, side, at)) WITHOUT ROWID;
CREATE TABLE facts (what TEXT);
"""


@dataclass(frozen=True)
class Split:
    """One user's texts, oldest first; the newest are held out. Private."""

    training: list[Example]
    held_out: list[Example]


class Population:
    """Users by number, 0 and up, in an order that the seed shuffled. Any number of processes read it."""

    def __init__(self, path: Path) -> None:
        """Open what `antefix_simulations.data.prepare` made.

        Raises:
            InvalidArgument: it is not there, or unfinished.
        """
        try:
            self._file = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
            row = self._file.execute("SELECT what FROM facts").fetchone()
        except sqlite3.Error:
            raise InvalidArgument(
                f"{path} is no population", "delete it, or choose another --out; antefix-sim run makes it"
            ) from None
        self.facts: dict[str, Any] = json.loads(row[0])
        self.pid = os.getpid()

    @property
    def count(self) -> int:
        """Users."""
        return int(self._file.execute("SELECT count(*) FROM users").fetchone()[0])

    def names(self, users: Sequence[int]) -> dict[int, str]:
        """As the source calls them."""
        return {user: str(self._one("SELECT name FROM users WHERE number = ?", user)[0]) for user in users}

    def numbers(self, role: int | None = None) -> list[int]:
        """Of all users, or of those with a role: 0 takes part in rounds, 1 is new."""
        rows = self._file.execute(
            "SELECT number FROM users WHERE ? IS NULL OR role = ? ORDER BY number", (role, role)
        )
        return [int(row[0]) for row in rows]

    def splits(self, users: Sequence[int]) -> dict[int, Split]:
        """Their texts."""
        return {user: Split(list(self._texts(user, 0)), list(self._texts(user, 1))) for user in users}

    def prompts_before(self, completion: str) -> list[str]:
        """Of all training texts, whoever's, with a completion; white space and capitals do not count."""
        rows = self._file.execute(
            "SELECT prompt FROM texts WHERE side = 0 AND digest = ?", (alike(completion),)
        )
        return [str(row[0]) for row in rows]

    def histories(self) -> dict[int, int]:
        """Training texts of each user."""
        return {
            int(user): int(count) for user, count in self._file.execute("SELECT number, training FROM users")
        }

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """The population itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _texts(self, user: int, side: int) -> Iterator[Example]:
        rows = self._file.execute(
            "SELECT prompt, completion FROM texts WHERE user = ? AND side = ? ORDER BY at", (user, side)
        )
        for prompt, completion in rows:
            yield Example(completion, prompt)

    def _one(self, statement: str, user: int) -> tuple[Any, ...]:
        row = self._file.execute(statement, (user,)).fetchone()
        if row is None:
            raise InvalidArgument(f"there is no user {user}", f"they are 0 to {self.count - 1}")
        values: tuple[Any, ...] = row
        return values
