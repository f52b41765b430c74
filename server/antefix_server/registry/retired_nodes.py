"""Flower nodes that must go: a file of their numbers, until Flower has taken them out.

A number is written here before the change by which its device gives it up. So one that a device has goes on:
the change is not made yet, or failed.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from antefix.common.files import atomic_write
from antefix_server.errors import VaultDamaged
from antefix_server.storage.os_errors import files

FOLDER = "flower"
_NUMBERS = TypeAdapter(list[int])
_NAME = "retired.json"
_LOCK = threading.Lock()
_LOG = logging.getLogger(__name__)


class Retired:
    """Numbers that Flower gave; they say nothing of a user. Any thread of the writer may call anything."""

    def __init__(self, data: Path) -> None:
        """Of a server's data."""
        self._path = data / FOLDER / _NAME

    def add(self, nodes: Iterable[int]) -> None:
        """Some more. Durable on return; a file that is damaged stops no change, and is put aside.

        Raises:
            VaultFull, VaultUnavailable.
        """
        with _LOCK:
            more = set(nodes)
            if not more:
                return
            try:
                more.update(self.nodes())
            except VaultDamaged as error:
                _LOG.warning("%s", error.message)
                with files(self._path):
                    self._path.replace(self._path.with_suffix(".damaged"))
            self._write(more)

    def done(self, node: int) -> None:
        """It need not go any more: Flower has taken it out, or a device has it now."""
        with _LOCK:
            self._write(set(self.nodes()) - {node})

    def nodes(self) -> list[int]:
        """Those that are left.

        Raises:
            VaultDamaged: the file is no list of numbers.
        """
        with files(self._path):
            if not self._path.is_file():
                return []
            content = self._path.read_bytes()
        try:
            return _NUMBERS.validate_json(content, strict=True)
        except ValidationError:
            raise VaultDamaged(
                f"{self._path} is no list of nodes", "remove it: those on it stay registered with Flower"
            ) from None

    def _write(self, nodes: set[int]) -> None:
        with files(self._path):
            atomic_write(self._path, json.dumps(sorted(nodes)).encode())
