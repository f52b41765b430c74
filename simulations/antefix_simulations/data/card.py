"""The data card: what is in a population, and what was left out and why. It is shown before any training."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass, field

import numpy as np

__all__ = ["Card"]

_HISTORY = (8, 16, 32, 64, 128)


@dataclass
class Card:
    """Counts alone; no text and no name.

    Attributes:
        source: as it was asked for.
        users, texts: that the source has.
        broken: numbers of lines that could not be used.
        empty: texts without a letter.
        duplicates: texts that a user has twice, white space and capitals apart.
        no_order: users of whom some texts have a time that can be read, so their order in the source counts.
        left_out_old: beyond the most texts of a user.
        on_both_sides: held-out texts that somebody trains on.
        too_few: users without enough texts.
        taken: what is left, see `measure`.
    """

    source: str
    users: int = 0
    texts: int = 0
    broken: list[int] = field(default_factory=list)
    empty: int = 0
    duplicates: int = 0
    no_order: int = 0
    left_out_old: int = 0
    on_both_sides: int = 0
    too_few: int = 0
    taken: dict[str, float] = field(default_factory=dict)

    def measure(self, file: sqlite3.Connection) -> None:
        """Look at what is left."""
        rows = file.execute("SELECT role, training, held_out FROM users").fetchall()
        role, training, held_out = np.array(rows).T
        lengths = np.array(file.execute("SELECT length(completion) FROM texts").fetchall())[:, 0]
        self.taken = {
            "users": len(rows),
            "new users": int(role.sum()),
            "training texts": int(training.sum()),
            "held-out texts": int(held_out.sum()),
            "texts of the median user": float(np.median(training)),
            "share of the largest user": round(float(training.max() / training.sum()), 4),
            "characters of the median text": float(np.median(lengths)),
            "characters of the longest text": int(lengths.max()),
            **{f"users with {low}+ texts": int((training >= low).sum()) for low in _HISTORY},
        }

    def as_json(self) -> dict[str, object]:
        """For `config.json`."""
        return asdict(self)

    def as_text(self) -> str:
        """For a terminal."""
        left_out = {
            f"broken lines ({_some(self.broken)})": len(self.broken),
            "empty": self.empty,
            "duplicates": self.duplicates,
            "older than the newest": self.left_out_old,
            "held out, but somebody trains on them": self.on_both_sides,
        }
        out = [f"{count:,} {why}" for why, count in left_out.items() if count]
        lines = [
            f"data: {self.source}: {self.users:,} users, {self.texts:,} texts",
            f"  left out: {', '.join(out) or 'nothing'}; {self.too_few:,} users have too few texts",
            *(
                [f"  not every time can be read, so as in the source: {self.no_order:,} users"]
                if self.no_order
                else []
            ),
            *(f"  {name}: {value:,g}" for name, value in self.taken.items()),
        ]
        return "\n".join(lines)


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
