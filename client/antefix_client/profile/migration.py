"""Brings profiles of older formats up to this one; newer ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from antefix_client.profile.manifest import FORMAT, NAME, Card, format_of, unknown_format
from antefix_client.profile.os_errors import files

# From a format to the next: changes the folder, and its card last. Can be repeated after a crash.
STEPS: dict[int, Callable[[Path], None]] = {}


def brought_up(folder: Path) -> Card:
    """The card of a profile, its folder brought up to the newest format.

    Raises:
        ProfileDamaged: it was written by a newer version, or is damaged.
    """
    while (found := _format(folder)) != FORMAT:
        if found not in STEPS:
            raise unknown_format(folder, found)
        STEPS[found](folder)
    return Card.read(folder)


def _format(folder: Path) -> int:
    with files(folder / NAME):
        return format_of((folder / NAME).read_bytes())
