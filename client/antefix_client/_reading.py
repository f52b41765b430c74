"""Reads texts from files, whatever is in them."""

from __future__ import annotations

import io
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from antefix._example import Example
from antefix.errors import InvalidArgument
from antefix_client.errors import TextRefused

Split = Literal["paragraphs", "lines", "json", "whole"]
MOST_TEXTS = 4096
_LONGEST_LINE = 400_000


def read_texts(file: str, split: Split, newest: bool) -> list[Example]:
    """Texts of a file, `-` for standard input.

    Args:
        file: path, or `-`.
        split: `paragraphs` are separated by empty lines; `json` has one object a line with `completion` and
            perhaps `prompt`; `whole` is one text.
        newest: of more than a profile keeps, take the last ones.

    Raises:
        InvalidArgument, TextRefused: what cannot be read; the line is said, never its content.
    """
    with _opened(file) as stream:
        texts = _SPLITTERS[split](_lines(stream, file), file)
        if newest:
            return list(deque(texts, MOST_TEXTS))
        found: list[Example] = []
        for text in texts:
            if len(found) == MOST_TEXTS:
                raise TextRefused(
                    f"{file} has more than {MOST_TEXTS:,} texts, which is what a profile keeps",
                    "take the last ones with --newest, or give less",
                )
            found.append(text)
        if not found:
            raise InvalidArgument(f"there is no text in {file}", "it is empty, or holds empty lines only")
    return found


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as stream:
            yield stream
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}", "check the path") from None


def _lines(stream: BinaryIO, file: str) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends; a line without end is never read whole."""
    for number in range(1, sys.maxsize):
        line = stream.readline(_LONGEST_LINE + 1)
        if not line:
            return
        if len(line) > _LONGEST_LINE:
            raise TextRefused(
                f"line {number} of {file} has more than {_LONGEST_LINE:,} bytes",
                "split it into several texts",
            )
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidArgument(
                f"line {number} of {file} is not UTF-8 at byte {error.start}",
                "convert it: iconv -f latin1 -t utf-8",
            ) from None
        if "\0" in text:
            raise InvalidArgument(f"line {number} of {file} has a zero byte: it is no text", "convert it")
        yield number, text


def _paragraphs(lines: Iterable[tuple[int, str]], file: str) -> Iterator[Example]:
    gathered: list[str] = []
    for _, line in lines:
        if line.strip():
            gathered.append(line)
        elif gathered:
            yield Example("\n".join(gathered))
            gathered = []
    if gathered:
        yield Example("\n".join(gathered))


def _each_line(lines: Iterable[tuple[int, str]], file: str) -> Iterator[Example]:
    return (Example(line) for _, line in lines if line.strip())


def _whole(lines: Iterable[tuple[int, str]], file: str) -> Iterator[Example]:
    text = io.StringIO()
    for _, line in lines:
        text.write(line + "\n")
        if text.tell() > _LONGEST_LINE:
            raise TextRefused(f"{file} has more than {_LONGEST_LINE:,} characters", "use --split paragraphs")
    yield Example(text.getvalue().rstrip("\n"))


def _json(lines: Iterable[tuple[int, str]], file: str) -> Iterator[Example]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise InvalidArgument(f"line {number} of {file} is no JSON", "one object a line") from None
        completion = row.get("completion", row.get("text")) if isinstance(row, dict) else None
        prompt = row.get("prompt") or "" if isinstance(row, dict) else ""
        if not isinstance(completion, str) or not isinstance(prompt, str):
            raise InvalidArgument(
                f"line {number} of {file} has no text", 'write {"completion": "…", "prompt": "…"}'
            )
        yield Example(completion, prompt)


_SPLITTERS = {"paragraphs": _paragraphs, "lines": _each_line, "json": _json, "whole": _whole}
