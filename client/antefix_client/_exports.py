"""What a user takes out of a profile."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from antefix._example import Example
from antefix._files import write_whole
from antefix.errors import InvalidArgument
from antefix_client._profile import Profile
from antefix_client._seam import files

if TYPE_CHECKING:
    from antefix import Prefix
    from antefix_client._wielder import Wielder

KINDS = ("prefix", "peft", "record", "texts")


def export(profile: Profile, wielder: Wielder, path: Path, what: str) -> Path:
    """Write one kind of thing to a new path.

    Raises:
        InvalidArgument: another kind, a path that is taken, or nothing learned yet.
    """
    if what not in KINDS:
        raise InvalidArgument(f"what is {what!r}", f"use one of {', '.join(KINDS)}")
    with files(path):
        if path.exists():
            raise InvalidArgument(f"{path} is there already", "choose a new path")
    if what == "texts":
        return _write(path, as_lines(profile.texts.values()))
    newest = profile.history.newest
    if newest is None:
        raise InvalidArgument("nothing was learned yet", "learn first, or export texts")
    if what == "record":
        return _write(path, profile.history.record(newest))
    prefix = _required(wielder)
    with files(path):
        if what == "prefix":
            return prefix.save(path)
        from antefix.peft import export_peft

        return export_peft(prefix, wielder.base, path)


def as_lines(texts: Iterable[Example]) -> bytes:
    """One JSON object a line."""
    rows = [{"prompt": text.prompt, "completion": text.completion} for text in texts]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _write(path: Path, content: bytes) -> Path:
    with files(path):
        write_whole(path, content)
    return path


def _required(wielder: Wielder) -> Prefix:
    prefix = wielder.prefix
    if prefix is None:
        raise InvalidArgument("nothing was learned yet", "learn first, or export texts")
    return prefix
