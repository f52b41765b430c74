"""Looks for bytes that must be gone: in files, and in a process's memory."""

import base64
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

WINDOW = 20
_BLOCK = 2**24
_LARGEST_MAPPING = 2**30


class Needles:
    """Byte strings to look for, each also as hex and base64, thousands in one pass.

    Two tables say where the first two and the next two bytes of some needle are; what is left is looked up.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        """Take secrets of 16 bytes or more."""
        self._secrets: dict[bytes, bytes] = {}
        for secret in secrets:
            for form in forms(secret):
                self._secrets[form[:WINDOW]] = secret
        self._lengths = sorted({len(needle) for needle in self._secrets})
        self._first, self._second = np.zeros(2**16, bool), np.zeros(2**16, bool)
        for needle in self._secrets:
            self._first[int.from_bytes(needle[:2], "little")] = True
            self._second[int.from_bytes(needle[2:4], "little")] = True

    def within(self, content: bytes) -> set[bytes]:
        """Secrets that are in it, in any form."""
        found = set()
        for start in range(0, len(content), _BLOCK):
            block = content[start : start + _BLOCK + WINDOW]
            for at in self._places(block):
                for length in self._lengths:
                    secret = self._secrets.get(block[at : at + length])
                    if secret is not None:
                        found.add(secret)
        return found

    def _places(self, block: bytes) -> Iterator[int]:
        """Where the first four bytes of some needle may be: at even places, then at odd ones."""
        for odd in range(2):
            pairs = np.frombuffer(block, "<u2", max(0, len(block) - odd) // 2, odd)
            places = np.flatnonzero(self._first[pairs[:-1]])
            yield from (2 * places[self._second[pairs[places + 1]]] + odd).tolist()

    def in_files(self, folders: Iterable[Path]) -> dict[str, int]:
        """How many secrets each file has, where it has any."""
        hits = {}
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and (count := len(self.within(path.read_bytes()))):
                    hits[path.name] = count
        return hits

    def in_memory(self, pid: int) -> set[bytes]:
        """Secrets in the writable memory of a process."""
        found = set()
        for content in memory(pid):
            found |= self.within(content)
        return found


def forms(secret: bytes) -> Iterator[bytes]:
    """A secret as it may lie about."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for skipped in range(3):
        encoded = base64.b64encode(secret[skipped:])
        yield encoded[: len(encoded) // 4 * 4 - 4]  # the end depends on what follows


def windows(content: bytes) -> Iterator[bytes]:
    """Start, middle and end of something long."""
    for at in (0, len(content) // 2, len(content) - 32):
        yield content[at : at + 32]


def memory(pid: int) -> Iterator[bytes]:
    """Every writable mapping."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None or "[vvar" in line:
                continue
            start, end = int(match[1], 16), int(match[2], 16)
            if end - start > _LARGEST_MAPPING:
                continue
            try:
                mem.seek(start)
                yield mem.read(end - start)
            except OSError:
                continue
