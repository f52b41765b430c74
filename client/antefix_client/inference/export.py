"""What a user takes out of a profile."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from antefix.common.files import ensure_absent
from antefix.data.example import Example
from antefix.errors import InvalidArgument
from antefix_client.profile.os_errors import translate_os_errors, write_new

if TYPE_CHECKING:
    from antefix import Prefix
    from antefix_client.inference.runtime import ModelRuntime

KINDS = ("prefix", "peft", "record", "texts")
FILES = ("prefix", "record", "texts")


def export(runtime: ModelRuntime, path: Path, what: str) -> Path:
    """Write one kind of thing to a new path.

    Raises:
        InvalidArgument: another kind, a path that is taken, or nothing learned yet.
    """
    ensure_absent(path)
    _require_kind(what, KINDS)
    if what == "peft":
        from antefix.peft import export_peft

        prefix, base = _prefix_in_use(runtime), runtime.base
        with translate_os_errors(path):
            path.mkdir(parents=True, mode=0o700)
            return export_peft(prefix, base, path)
    write_new(path, export_content(runtime, what))
    return path


def export_content(runtime: ModelRuntime, what: str) -> bytes:
    """What a file of one kind has in it.

    Raises:
        InvalidArgument: another kind, or nothing learned yet.
    """
    _require_kind(what, FILES)
    with runtime.session.locked() as profile:
        if what == "texts":
            return to_json_lines(profile.texts.by_number.values())
        newest = profile.history.newest
        if newest is None:
            raise _nothing_learned()
        if what == "record":
            return profile.history.record(newest)
    return _prefix_in_use(runtime).to_bytes()


def _require_kind(what: str, kinds: tuple[str, ...]) -> None:
    if what not in kinds:
        raise InvalidArgument(f"what is {what!r:.40}", f"use one of {', '.join(kinds)}")


def to_json_lines(texts: Iterable[Example]) -> bytes:
    """One JSON object a line."""
    rows = [{"prompt": text.prompt, "completion": text.completion} for text in texts]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _prefix_in_use(runtime: ModelRuntime) -> Prefix:
    prefix = runtime.prefix
    if prefix is None:
        raise _nothing_learned()
    return prefix


def _nothing_learned() -> InvalidArgument:
    return InvalidArgument("nothing was learned yet", "learn first, or export texts")
