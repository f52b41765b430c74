"""Users' texts from a file of JSON lines."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from transformers import PreTrainedTokenizerBase

from antefix import Example
from antefix.errors import ExampleError

SAMPLE = Path(__file__).parent / "sample" / "writers.jsonl"
_USERS = 32


class DataRefused(ExampleError):
    """A data file that cannot be read, or a line in it; the message has the line's number, never its text."""


def read_users(path: str | Path) -> dict[str, list[Example]]:
    """Each user's examples, in the order of the file.

    A line is an object with `user`, `completion` (or `text`), and if there is one `prompt` (or `input`).
    A list `files` goes in front of the prompt, as commit messages have it: names on one line, body below.
    A prompt that does not end with a line gets its end.

    Args:
        path: `.jsonl` or `.jsonl.gz`.

    Raises:
        DataRefused: no such file, or a line that cannot be used.
        ExampleError: a file without users.
    """
    source = Path(path)
    users: dict[str, list[Example]] = {}
    for number, line in numbered_lines(source):
        user, example, _ = parse_line(f"line {number} of {source}", line)
        users.setdefault(user, []).append(example)
    if not users:
        raise ExampleError(f"{source} has no users", "give a file with one JSON object a line")
    return users


def cut_prompts(
    examples: list[Example], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[Example]:
    """The same examples with prompts of at most `max_tokens` tokens, line end included."""
    return [Example(each.completion, _cut(each.prompt, tokenizer, max_tokens)) for each in examples]


def choose_users(
    users: Mapping[str, list[Example]], count: int | None, rows: int, source: str | Path
) -> dict[str, list[Example]]:
    """The first `rows` texts of the first `count` users who have as many; None takes up to 32.

    Raises:
        ExampleError: fewer users have that many.
    """
    able = {user: texts[:rows] for user, texts in users.items() if len(texts) >= rows}
    needed = count or min(_USERS, len(able)) or 1
    if len(able) < needed:
        raise ExampleError(
            f"{needed} users with {rows} texts each are wanted, {source} has {len(able)} of {len(users)}",
            f"use --users {len(able)}, or other data"
            if able
            else "ask for fewer texts of each, or other data",
        )
    return {user: able[user] for user in list(able)[:needed]}


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank. Bytes that are no UTF-8 come as halves of surrogate pairs."""
    try:
        with open_lines(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DataRefused(f"{path} cannot be read: {why}", "check the path and the file") from error


def open_lines(path: Path) -> IO[str]:
    """The file as text, unpacked."""
    if path.suffix == ".gz":
        # A byte order mark may begin it.
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape")
    return path.open(encoding="utf-8-sig", errors="surrogateescape")


def require_utf8(where: str, line: str) -> None:
    """Of a line as `numbered_lines` gives it.

    Raises:
        DataRefused: it is none; the message has `where`.
    """
    try:
        line.encode()
    except UnicodeEncodeError:  # the error keeps the whole line, so it is not chained
        raise DataRefused(f"{where} is not UTF-8 text", "save it as UTF-8, or leave it out") from None


def object_of(where: str, line: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        DataRefused: it is none; the message has `where`, never the text.
    """
    require_utf8(where, line)
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # the error keeps the whole line, so it is not chained
        raise DataRefused(f"{where} is not JSON", "write one JSON object a line") from None
    if not isinstance(row, dict):
        raise DataRefused(f"{where} is not a JSON object", "write one JSON object a line")
    return row


def parse_line(where: str, line: str) -> tuple[str, Example, dict[str, Any]]:
    """User, example and the whole object of a line.

    Raises:
        DataRefused: it cannot be used; the message has `where`, never the text.
    """
    row = object_of(where, line)
    user = _text(where, row, "user")
    completion = _text(where, row, "completion", "text")
    if not user or not completion:
        missing = "'user'" if not user else "'completion' or 'text'"
        raise DataRefused(f"{where} has no {missing}", "add the field, or leave the line out")
    prompt = "\n".join(part for part in (_files(where, row), _text(where, row, "prompt", "input")) if part)
    return user, Example(completion, prompt + "\n" if prompt and not prompt.endswith("\n") else prompt), row


def _text(where: str, row: dict[str, Any], *names: str) -> str:
    """The first of `names` that is there; empty if none is."""
    for name in names:
        if row.get(name) is not None:
            if not isinstance(row[name], str):
                raise DataRefused(f"{name!r} in {where} is a {type(row[name]).__name__}", "write it as text")
            return characters(where, name, row[name])
    return ""


def characters(where: str, name: str, text: str) -> str:
    """The same text; JSON can hold half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:  # the error keeps the whole text, so it is not chained
        raise DataRefused(
            f"{name!r} in {where} holds half of a surrogate pair", "replace or leave out that half"
        ) from None
    return text


def _files(where: str, row: dict[str, Any]) -> str:
    files = row.get("files") or []
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise DataRefused(
            f"'files' in {where} is not a list of names", "write a list of text, or leave it out"
        )
    return characters(where, "files", " ".join(files))


def _cut(prompt: str, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> str:
    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    if len(prompt.encode()) <= max_tokens:  # no token is shorter than a byte
        return prompt
    whole = tokens(prompt)
    if len(whole) <= max_tokens:
        return prompt
    for keep in range(max_tokens - 1, 0, -1):  # what is read back may take more tokens than were kept
        text = str(tokenizer.decode(whole[:keep])).rstrip("\ufffd\n") + "\n"  # no half of a character
        if len(tokens(text)) <= max_tokens:
            return text
    return "\n"
