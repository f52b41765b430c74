"""Reads texts from files, whatever is in them."""

from __future__ import annotations

import io
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from antefix.common.files import readable
from antefix.data.example import Example
from antefix.errors import ExampleError, InvalidArgument
from antefix_client.cli.options import SplitBy
from antefix_client.errors import TextRefused
from antefix_client.profile.text_store import require_usable

_Line: TypeAlias = "tuple[int, str]"
_Text: TypeAlias = "tuple[int, Example]"
MAX_TEXTS = 4096
_MAX_LINE_BYTES = 400_000


def read_texts(file: str, split: SplitBy | None, newest: bool) -> list[tuple[int, Example]]:
    """Texts of a file, `-` for standard input, each with the line where it begins.

    Args:
        file: path, or `-`.
        split: `paragraphs` are separated by empty lines; `json` has one object a line with `completion` and
            perhaps `prompt`; `whole` is one text. None for `json` where the name ends so, else `paragraphs`.
        newest: of more than a profile keeps, take the last ones.

    Raises:
        InvalidArgument, TextRefused: what cannot be read; the line is said, never its content.
    """
    how = split or (SplitBy.json if file.endswith(".jsonl") else SplitBy.paragraphs)
    with _open(file) as stream:
        numbered = _SPLITTERS[how](_lines(stream, file), file)
        texts = list(deque(numbered, MAX_TEXTS)) if newest else []
        for text in numbered:
            if len(texts) == MAX_TEXTS:
                raise TextRefused(
                    f"{file} has more than {MAX_TEXTS:,} texts, which is what a profile keeps",
                    "take the last ones with --newest, or give less",
                )
            texts.append(text)
        if not texts:
            raise InvalidArgument(f"there is no text in {file}", "it is empty, or holds empty lines only")
        for line, example in texts:
            require_usable(example, f"the text at line {line} of {file}")
    return texts


@contextmanager
def name_lines(file: str, texts: Sequence[tuple[int, Example]]) -> Iterator[None]:
    """A refusal of one of the texts says where in the file it is: nobody counts them in a shell."""
    try:
        yield
    except ExampleError as error:
        if error.number is None:
            raise
        where = f"line {texts[error.number][0]} of {file}"
        raise type(error)(f"{where}: {error.message}", error.hint) from None


@contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    with readable(file), Path(file).open("rb") as stream:
        yield stream


def _lines(stream: BinaryIO, file: str) -> Iterator[_Line]:
    """Numbered lines without their ends; a line without end is never read whole."""
    for number in range(1, sys.maxsize):
        line = stream.readline(_MAX_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > _MAX_LINE_BYTES:
            raise TextRefused(
                f"line {number} of {file} has more than {_MAX_LINE_BYTES:,} bytes",
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


def _paragraphs(lines: Iterable[_Line], file: str) -> Iterator[_Text]:
    paragraph: list[str] = []
    first = 1
    for number, line in lines:
        if line.strip():
            first = first if paragraph else number
            paragraph.append(line)
        elif paragraph:
            yield first, Example("\n".join(paragraph))
            paragraph = []
    if paragraph:
        yield first, Example("\n".join(paragraph))


def _each_line(lines: Iterable[_Line], file: str) -> Iterator[_Text]:
    return ((number, Example(line)) for number, line in lines if line.strip())


def _whole(lines: Iterable[_Line], file: str) -> Iterator[_Text]:
    text = io.StringIO()
    for _, line in lines:
        text.write(line + "\n")
        if text.tell() > _MAX_LINE_BYTES:
            raise TextRefused(
                f"{file} has more than {_MAX_LINE_BYTES:,} characters", "use --split paragraphs"
            )
    yield 1, Example(text.getvalue().rstrip("\n"))


def _json(lines: Iterable[_Line], file: str) -> Iterator[_Text]:
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
        yield number, Example(completion, prompt)


_SPLITTERS = {
    SplitBy.paragraphs: _paragraphs,
    SplitBy.lines: _each_line,
    SplitBy.json: _json,
    SplitBy.whole: _whole,
}
