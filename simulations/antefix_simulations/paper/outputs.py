"""What cells wrote, kept beside the inputs and their references: to be read, and scored again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from antefix.common.files import atomic_write
from antefix.errors import InvalidArgument
from antefix_simulations.paper.tasks import Item

__all__ = ["Outputs"]


class Outputs:
    """A folder with a file for each cell."""

    def __init__(self, folder: Path) -> None:
        """Open it, or make it.

        Raises:
            InvalidArgument: it cannot be made.
        """
        self._folder = folder
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InvalidArgument(
                f"{folder} cannot be made: {error.strerror}", "choose another --out"
            ) from None

    def keep(self, cell: str, digest: str, tests: Sequence[Item], texts: Sequence[str]) -> None:
        """Keep what a cell wrote.

        Args:
            cell: its name.
            digest: of the file of its task.
            tests: what it was asked.
            texts: one for each.
        """
        lines = [
            {"input": item.source, "references": item.references, "written": text}
            for item, text in zip(tests, texts, strict=True)
        ]
        content = {"cell": cell, "texts": lines}
        atomic_write(self._path(cell, digest), json.dumps(content, indent=1, ensure_ascii=False).encode())

    def read(self, cell: str, digest: str, tests: Sequence[Item]) -> list[str] | None:
        """What it wrote; None where that is not there, or was for other inputs."""
        try:
            lines = json.loads(self._path(cell, digest).read_bytes())["texts"]
            inputs = [line["input"] for line in lines]
            texts = [str(line["written"]) for line in lines]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return texts if inputs == [item.source for item in tests] else None

    def _path(self, cell: str, digest: str) -> Path:
        return self._folder / f"{hashlib.sha256(f'{cell} {digest}'.encode()).hexdigest()[:16]}.json"
