"""Brings profiles of older formats up to this one; newer ones are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from antefix_client._card import FORMAT, NAME, Card
from antefix_client._seam import files
from antefix_client.errors import ProfileDamaged

# From a format to the next: changes the folder, and its card last. Can be repeated after a crash.
STEPS: dict[int, Callable[[Path], None]] = {}


def brought_up(folder: Path) -> Card:
    """The card of a profile, its folder brought up to the newest format.

    Raises:
        ProfileDamaged: it was written by a newer version, or is damaged.
    """
    while (found := _format(folder)) != FORMAT:
        if found not in STEPS:
            raise ProfileDamaged(
                f"the profile {folder} is of format {found}, this version writes {FORMAT}",
                "install the newest antefix",
            )
        STEPS[found](folder)
    return Card.read(folder)


def _format(folder: Path) -> int:
    with files(folder / NAME):
        content = (folder / NAME).read_bytes()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return FORMAT  # damaged: its reader says how
    said = found.get("format", FORMAT) if isinstance(found, dict) else FORMAT
    return said if isinstance(said, int) else FORMAT
