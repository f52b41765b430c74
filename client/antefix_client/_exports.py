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

FILES = ("prefix", "record", "texts")


def export(profile: Profile, wielder: Wielder, path: Path, what: str) -> Path:
    """Write one kind of thing to a new path.

    Raises:
        InvalidArgument: another kind, a path that is taken, or nothing learned yet.
    """
    with files(path):
        if path.exists():
            raise InvalidArgument(f"{path} is there already", "choose a new path")
    if what == "peft":
        from antefix.peft import export_peft

        prefix = _required(wielder)
        with files(path):
            return export_peft(prefix, wielder.base, path)
    content = content_of(profile, wielder, what)
    with files(path):
        write_whole(path, content)
    return path


def content_of(profile: Profile, wielder: Wielder, what: str) -> bytes:
    """What a file of one kind has in it.

    Raises:
        InvalidArgument: another kind, or nothing learned yet.
    """
    if what not in FILES:
        raise InvalidArgument(f"what is {what!r}", "use one of prefix, peft, record, texts")
    if what == "texts":
        return as_lines(profile.texts.values())
    newest = profile.history.newest
    if newest is None:
        raise _nothing()
    return profile.history.record(newest) if what == "record" else _required(wielder).to_bytes()


def as_lines(texts: Iterable[Example]) -> bytes:
    """One JSON object a line."""
    rows = [{"prompt": text.prompt, "completion": text.completion} for text in texts]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _required(wielder: Wielder) -> Prefix:
    prefix = wielder.prefix
    if prefix is None:
        raise _nothing()
    return prefix


def _nothing() -> InvalidArgument:
    return InvalidArgument("nothing was learned yet", "learn first, or export texts")
