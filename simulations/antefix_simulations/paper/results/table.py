"""A table for a terminal and for a page."""

from __future__ import annotations

from dataclasses import dataclass, field

from antefix.common.table import align

__all__ = ["Table"]


@dataclass
class Table:
    """Rows under a head, and what has to be said about them.

    Attributes:
        title: one line.
        head: names of columns.
        rows: each as long as the head.
        notes: sentences below.
    """

    title: str
    head: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_text(self) -> str:
        """For a terminal."""
        return "\n".join([self.title, "", *align([self.head, *self.rows]), "", *self.notes]).rstrip()

    def as_markdown(self) -> str:
        """For a page."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        table = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([f"### {self.title}", "", *table, "", *self.notes]).rstrip() + "\n"
