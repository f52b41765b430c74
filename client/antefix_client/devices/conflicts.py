"""Conflicts: two devices learned from the same version, and each has made a next one.

Both are kept, never merged or averaged: what two prefixes know does not add up. This device's own stays in
use until a person chooses. The choice is sealed as the next version, and names the other device's newest as
the version before: so on the other device it simply comes next.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from antefix.errors import InvalidArgument
from antefix_client.profile.version_history import Version, VersionHistory

VersionChoice: TypeAlias = "int | str | Version | None"
_NAME = re.compile(r"(\d{1,20})(-[0-9a-f]{8})?", re.ASCII)


def open_conflicts(history: VersionHistory) -> list[Version]:
    """Versions beside that nobody has chosen against or for yet, oldest first.

    Settled is one that a version of our own line follows, and one whose device has since sent a version that
    is in our line: it has gone on from there itself.
    """
    beside = [version for version in history.versions if version.beside]
    if not beside:
        return []
    own = [version for version in history.versions if not version.beside]
    followed = {history.previous(version) for version in own}
    received = max((version.number for version in own if version.how == "received"), default=0)

    def is_settled(version: Version) -> bool:
        return version.number < received or version.digest in followed

    return [version for at, version in enumerate(beside) if not any(map(is_settled, beside[at:]))]


def find_version(history: VersionHistory, which: VersionChoice) -> Version:
    """The version that a person means.

    Args:
        history: of the profile.
        which: a number, the text form (`3-1a2b3c4d`) that tells versions of one number apart, a version
            itself, or None for the one before the one in use. The one in use can be chosen in a conflict.

    Raises:
        InvalidArgument: there is none, or there are several.
    """
    own = [version for version in history.versions if not version.beside]
    beside = [version for version in history.versions if version.beside]
    known = [*(own if open_conflicts(history) else own[:-1]), *beside]
    matching = own[-2:-1] if which is None else [version for version in known if _is(version, which)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        names = ", ".join(version.name for version in matching)
        raise InvalidArgument(f"{len(matching)} versions have the number {which}", f"choose one of {names}")
    wanted = "before the one in use" if which is None else f"{_describe_choice(which)} to go back to"
    numbers = (
        ", ".join(version.name if version.beside else str(version.number) for version in known) or "none"
    )
    there = f"there are: {numbers}" if own else "nothing was learned yet"
    raise InvalidArgument(f"there is no version {wanted}", there)


def version_to_follow(history: VersionHistory, choice: Version) -> Version | None:
    """The version that a choice must follow, so that the other device takes it; None for the one in use."""
    conflicts = open_conflicts(history)
    if conflicts and (choice.beside or choice == history.newest):
        return conflicts[-1]
    return None


def _is(version: Version, which: int | str | Version) -> bool:
    if isinstance(which, Version):
        return version.digest == which.digest
    if isinstance(which, int):
        return version.number == which
    return which in (str(version.number), version.name)


def _describe_choice(which: int | str | Version) -> str:
    """The choice in a message; what is no version's name is not repeated."""
    name = which.name if isinstance(which, Version) else str(which)
    return name if _NAME.fullmatch(name) else "of that name"
