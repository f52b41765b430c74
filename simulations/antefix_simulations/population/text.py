"""One text of a user, as a source tells it."""

from __future__ import annotations

from dataclasses import dataclass

from antefix import Example

__all__ = ["Text"]


@dataclass(frozen=True)
class Text:
    """Private.

    Attributes:
        user: who wrote it.
        when: sorts a user's texts by time, as text (ISO 8601); None for the order they came in.
        example: prompt, if any, and completion.
    """

    user: str
    when: str | None
    example: Example
