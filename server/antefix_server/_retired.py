"""Flower nodes that must go: a file of their numbers, until Flower has taken them out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path

from antefix._files import write_whole
from antefix_server._seam import files

FOLDER = "flower"
_NAME = "retired.json"
_LOCK = threading.Lock()


class Retired:
    """Numbers that Flower gave; they say nothing of a user. Any thread of the writer may call anything."""

    def __init__(self, data: Path) -> None:
        """Of a server's data."""
        self._path = data / FOLDER / _NAME

    def add(self, nodes: Iterable[int]) -> None:
        """Some more. Durable on return.

        Raises:
            VaultFull, VaultUnavailable.
        """
        with _LOCK:
            more = set(nodes)
            if more:
                self._write({*self.nodes(), *more})

    def done(self, node: int) -> None:
        """Flower has taken it out."""
        with _LOCK:
            self._write(set(self.nodes()) - {node})

    def nodes(self) -> list[int]:
        """Those that are left."""
        with files(self._path):
            if not self._path.is_file():
                return []
            return [int(node) for node in json.loads(self._path.read_text())]

    def _write(self, nodes: set[int]) -> None:
        with files(self._path):
            write_whole(self._path, json.dumps(sorted(nodes)).encode())
