"""One file, known by size and SHA-256, from whoever has it: nobody is believed, everything is resumed.

A source may stop, stall, send another range than was asked for, more than was signed, or other bytes. Then
the next one goes on from where it stopped; if the whole is not what was signed, a source that only gave the
end of it is asked for all of it, before the next one is.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import httpx

from antefix.common.files import sync_folder
from antefix.loading.stored_tensors import file_digest
from antefix_client.errors import ReleaseDamaged, ReleaseUnavailable
from antefix_client.profile.os_errors import translate_os_errors
from antefix_client.profile.safe_files import has_name, open_locked

_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


@dataclass(frozen=True)
class SourceLimits:
    """How long a source may take.

    Attributes:
        wait_s: without any answer; and before its rate counts.
        least_rate: bytes per second on average; a source that sends a byte now and then is none.
    """

    wait_s: float = 30.0
    least_rate: float = 1024.0


@dataclass(frozen=True)
class Source:
    """Where a file may be had.

    Attributes:
        client: asks for it. A mirror's must not carry the token of the server.
        url: absolute, or relative to the client's.
        redirects: whether it may send elsewhere.
    """

    client: httpx.Client
    url: str
    redirects: bool

    def __str__(self) -> str:
        """Who it is, without a path."""
        return urlsplit(self.url).netloc or str(self.client.base_url.netloc.decode())


@dataclass(frozen=True)
class ExpectedFile:
    """A file: bytes, and their SHA-256 in hex."""

    size: int
    sha256: str

    def is_at(self, path: Path) -> bool:
        """Whether a file is this one."""
        with translate_os_errors(path):
            return path.is_file() and path.stat().st_size == self.size and file_digest(path) == self.sha256


class _Stopped(Exception):
    """A source gave no more, or nothing of use."""

    def __init__(self, why: str, damaged: bool = False) -> None:
        super().__init__(why)
        self.damaged = damaged


def download(
    wanted: ExpectedFile,
    sources: Sequence[Source],
    part: Path,
    target: Path,
    tick: Callable[[int], None],
    patience: SourceLimits,
) -> None:
    """Fetch a file; it is at `target`, whole and on the disk, or not at all.

    Args:
        wanted: what is believed.
        sources: tried in this order.
        part: what came so far; kept where this fails.
        target: where the file is to be.
        tick: told how many bytes came, or, below 0, how many count no more.
        patience: with each source.

    Raises:
        ReleaseUnavailable: nobody gives the rest now, or another program fetches the same file.
        ReleaseDamaged: whoever gives anything gives something else.
        ProfileFull, ProfileUnwritable: the disk.
    """
    with _alone(part, wanted):
        if wanted.is_at(target):  # another program has fetched it meanwhile
            return
        refusals: list[str] = []
        damaged = True
        for source in sources:
            try:
                _complete(wanted, source, part, tick, patience)
            except _Stopped as stopped:
                refusals.append(f"{source} {stopped}")
                damaged = damaged and stopped.damaged
                continue
            with translate_os_errors(target):
                part.replace(target)
                sync_folder(target.parent)
            return
        reasons = f"{wanted.sha256[:16]}… ({wanted.size:,} bytes): {'; '.join(refusals) or 'nobody has it'}"
        if damaged and refusals:
            raise ReleaseDamaged(f"nobody gives the file that was signed, {reasons}", "tell the operator")
        received = f"{_size(part):,} bytes are kept" if _size(part) else "nothing came"
        raise ReleaseUnavailable(f"a file cannot be fetched now, {reasons}; {received}", "try again later")


@contextmanager
def _alone(part: Path, wanted: ExpectedFile) -> Iterator[None]:
    """Nobody else writes to `part`, which the profiles of an account share.

    The appends of two would mix, and who is late would write into the file that the other has verified.

    Raises:
        ReleaseUnavailable: another program fetches it.
    """
    with translate_os_errors(part):
        handle = open_locked(part)
    if handle is None:
        raise ReleaseUnavailable(
            f"another program fetches the file {wanted.sha256[:16]}… now", "try again when it is done"
        )
    try:
        yield
    finally:
        try:
            with translate_os_errors(part):
                if has_name(handle, part) and not os.fstat(handle).st_size:
                    part.unlink()
        finally:
            os.close(handle)


def _complete(
    wanted: ExpectedFile, source: Source, part: Path, tick: Callable[[int], None], patience: SourceLimits
) -> None:
    """Let `part` be the file, with what this source gives.

    Raises:
        _Stopped: it is not.
    """
    for _ in range(2):
        begun = _size(part)
        if begun > wanted.size:
            _drop(part, tick)
            begun = 0
        if begun < wanted.size:
            begun = _append(wanted, source, part, tick, patience)
        if wanted.is_at(part):
            return
        if _size(part) < wanted.size:
            raise _Stopped(f"ended after {_size(part):,} bytes")
        _drop(part, tick)
        if not begun:  # all of it was this source's
            break
    raise _Stopped("gives other bytes", damaged=True)


def _append(
    wanted: ExpectedFile, source: Source, part: Path, tick: Callable[[int], None], patience: SourceLimits
) -> int:
    """Add what the source gives to `part`; the byte at which that began."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with _heard(source, headers, patience) as answer:
        begun = _start(answer, have, wanted.size)
        if begun < have:
            _drop(part, tick)
        with translate_os_errors(part), part.open("ab") as file:
            _take(answer, file, wanted.size - begun, tick, patience)
            file.flush()
            os.fsync(file.fileno())
    return begun


def _take(
    answer: httpx.Response,
    file: BinaryIO,
    max_bytes: int,
    tick: Callable[[int], None],
    patience: SourceLimits,
) -> None:
    began, received = time.monotonic(), 0
    for chunk in answer.iter_raw():
        file.write(chunk[: max_bytes - received])
        tick(min(len(chunk), max_bytes - received))
        received += len(chunk)
        if received >= max_bytes:  # whatever else it sends
            return
        seconds = time.monotonic() - began
        if seconds > patience.wait_s and received < patience.least_rate * seconds:
            raise _Stopped(f"is too slow, {received / seconds:,.0f} bytes a second")


@contextmanager
def _heard(source: Source, headers: dict[str, str], patience: SourceLimits) -> Iterator[httpx.Response]:
    try:
        with source.client.stream(
            "GET", source.url, headers=headers, timeout=patience.wait_s, follow_redirects=source.redirects
        ) as answer:
            yield answer
    except httpx.TimeoutException:
        raise _Stopped(f"says nothing for {patience.wait_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _Stopped(f"cannot be reached ({type(error).__name__})") from None


def _start(answer: httpx.Response, have: int, size: int) -> int:
    """The byte with which the answer begins.

    Raises:
        _Stopped: it is not what was asked for.
    """
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise _Stopped("sends it packed")
    if answer.status_code == 200:
        return 0  # it knows no ranges
    span = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    if answer.status_code != 206 or not have:
        raise _Stopped(f"answers {answer.status_code}")
    if span is None or int(span[1]) != have or span[3] not in ("*", str(size)):
        raise _Stopped("sends another range than was asked for")
    return have


def _size(path: Path) -> int:
    with translate_os_errors(path):
        return path.stat().st_size if path.exists() else 0


def _drop(part: Path, tick: Callable[[int], None]) -> None:
    tick(-_size(part))
    with translate_os_errors(part):
        os.truncate(part, 0)  # not deleted: the lock is on this very file
