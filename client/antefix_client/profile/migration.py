"""Brings profiles of older formats up to this one; newer ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from antefix_client.profile.manifest import FORMAT, NAME, ProfileManifest, format_error, stored_format
from antefix_client.profile.os_errors import translate_os_errors

# From a format to the next: changes the folder, and its card last. Can be repeated after a crash.
STEPS: dict[int, Callable[[Path], None]] = {}


def migrate(folder: Path) -> ProfileManifest:
    """The card of a profile, its folder brought up to the newest format.

    Raises:
        ProfileDamaged: it was written by a newer version, or is damaged.
    """
    while (stored := _format(folder)) != FORMAT:
        if stored not in STEPS:
            raise format_error(folder, stored)
        STEPS[stored](folder)
    return ProfileManifest.read(folder)


def _format(folder: Path) -> int:
    with translate_os_errors(folder / NAME):
        return stored_format((folder / NAME).read_bytes())
