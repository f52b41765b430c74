"""What the name of a base stands for, told without loading anything."""

from __future__ import annotations

import difflib
import os
from typing import Literal

from antefix.errors import BaseNotFound
from antefix.loading.catalog import CATALOGUE

Origin = Literal["catalogue", "folder", "hub"]


def origin_of(name: str) -> Origin:
    """Where a base of that name comes from; a hub id may still not exist.

    Raises:
        BaseNotFound: it can be none of the three.
    """
    if name in CATALOGUE:
        return "catalogue"
    if name.strip() and os.path.isdir(os.path.expanduser(name)):
        return "folder"
    _refuse_hopeless(name)
    return "hub"


def hint(name: str) -> str:
    """Names that are known, the closest first."""
    known = f"bases known by name: {', '.join(sorted(CATALOGUE))}"
    close = _close(name)
    return f"did you mean {close!r}? {known}" if close else known


def _refuse_hopeless(name: str) -> None:
    """Refuse what cannot be a hub id, before the hub is asked and makes the user wait."""
    if not name.strip():
        raise BaseNotFound(f"a base needs a name, got {name!r}", hint(name))
    if os.path.isfile(os.path.expanduser(name)):
        raise BaseNotFound(
            f"{name!r} is a file; a base is a folder", "give the folder that holds config.json"
        )
    if name.startswith((".", "~", "/")) or "\\" in name or os.path.isabs(name) or name.count("/") > 1:
        raise BaseNotFound(f"folder {name!r} does not exist", hint(name))
    if "/" not in name and _close(name):
        raise BaseNotFound(f"there is no base {name!r}", hint(name))


def _close(name: str) -> str | None:
    return next(iter(difflib.get_close_matches(name.lower(), CATALOGUE, n=1, cutoff=0.7)), None)
