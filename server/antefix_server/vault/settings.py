"""Where the parts of a vault are: `vault.json` in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antefix.common.files import atomic_write
from antefix_server.errors import VaultUnavailable
from antefix_server.storage.os_errors import files

KEYS, RECORDS, LOG, SETTINGS = "keys", "records.db", "removals.db", "vault.json"
UNFINISHED = "unfinished"
"""Folder of what a backup needs while it is made."""


class Settings(BaseModel):
    """What was chosen when the vault was made.

    Attributes:
        origin: name of the removal log, `example.com/removals`.
        url: of PostgreSQL; None for SQLite in the folder. May have a password in it.
        mirror: second copy of the removal log, on another disk; None for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    origin: str = "localhost/removals"
    url: str | None = Field(default=None, repr=False)
    mirror: Path | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Those of a vault.

        Raises:
            VaultUnavailable: no vault there.
        """
        path = folder / SETTINGS
        with files(path):
            if not path.exists():
                used = folder.is_dir() and any(folder.iterdir())
                hint = (
                    "put vault.json back from a backup" if used else f"make one: antefix-server init {folder}"
                )
                raise VaultUnavailable(f"there is no vault in {folder}", hint)
            content = path.read_bytes()
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            where = ", ".join(".".join(map(str, problem["loc"])) or "the file" for problem in error.errors())
            raise VaultUnavailable(f"{path} cannot be understood: {where}", "mend it by hand") from None

    def write(self, folder: Path) -> None:
        """Keep them; the mirror by its whole path, which is the same wherever the next start is made from."""
        mirror = None if self.mirror is None else self.mirror.absolute()
        settings = self.model_copy(update={"mirror": mirror})
        with files(folder):
            atomic_write(folder / SETTINGS, settings.model_dump_json(indent=2).encode() + b"\n")
