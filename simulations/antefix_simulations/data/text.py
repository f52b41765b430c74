"""One text of a user, as a source tells it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from antefix import Example

__all__ = ["Text", "alike"]


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


def alike(*parts: str) -> bytes:
    """16 bytes, the same for texts that differ in white space and capitals alone."""
    plain = "\0".join(" ".join(part.lower().split()) for part in parts)
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).digest()[:16]
