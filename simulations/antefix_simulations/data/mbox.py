"""Texts from a mailbox: what each sender wrote, without what they quote, after the subject."""

from __future__ import annotations

import mailbox
from collections.abc import Iterator
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parseaddr, parsedate_to_datetime
from pathlib import Path

from antefix import Example
from antefix_simulations.data.jsonl import time_of
from antefix_simulations.data.text import Text
from antefix_simulations.data.user_texts import DataRefused

__all__ = ["read_mbox"]

_SIGNATURE = "-- "
_QUOTES = (">", "|")
_FORWARDED = ("-----Original Message", "---------- Forwarded", "From:")


def read_mbox(path: Path) -> Iterator[Text]:
    """Every mail with a sender and a text.

    Raises:
        DataRefused: no such file, or it may not be read.
    """
    try:
        yield from _texts(path)
    except OSError as error:
        raise DataRefused(f"{path} cannot be read: {error.strerror}", "check the path and the file") from None


def _texts(path: Path) -> Iterator[Text]:
    if not path.is_file():
        raise DataRefused(f"{path} is no mailbox", "give a file in mbox format")
    box = mailbox.mbox(path, create=False)
    try:
        for mail in box:
            user = _whole(parseaddr(str(mail["From"] or ""))[1].lower())
            if user:
                yield Text(user, _when(mail), Example(_own_words(_plain(mail)), _subject(mail)))
    finally:
        box.close()


def _when(mail: Message) -> str | None:
    try:
        return time_of(parsedate_to_datetime(str(mail["Date"])))
    except (TypeError, ValueError, OverflowError):
        return None


def _subject(mail: Message) -> str:
    try:
        subject = _whole(" ".join(str(make_header(decode_header(str(mail["Subject"] or "")))).split()))
    except (LookupError, ValueError, MessageError):
        return ""
    return f"Subject: {subject}\n" if subject else ""


def _plain(mail: Message) -> str:
    for part in mail.walk():
        if part.get_content_type() == "text/plain" and not part.get_filename():
            raw = part.get_payload(decode=True)
            if not isinstance(raw, bytes):
                continue
            try:
                return _whole(raw.decode(part.get_content_charset() or "utf-8", "replace"))
            except (LookupError, ValueError):  # a character set that nobody knows, or that is for no text
                return raw.decode("utf-8", "replace")
    return ""


def _whole(text: str) -> str:
    """Some character sets can write half of a surrogate pair, which is no character."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _own_words(text: str) -> str:
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if line == _SIGNATURE or line.startswith(_FORWARDED):
            break
        if not line.startswith(_QUOTES):
            lines.append(line.rstrip())
    return "\n".join(lines).strip()
