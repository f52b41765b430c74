"""What is written on a profile in the clear: `profile.json`. Nothing private is on it."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antefix_client.errors import ProfileAbsent, ProfileDamaged
from antefix_client.profile.os_errors import translate_os_errors
from antefix_client.profile.safe_files import replace_file
from antefix_client.profile.unlock_slots import Slot

NAME = "profile.json"
FORMAT: Literal[1] = 1
_HEX16, _HEX32 = r"^[0-9a-f]{32}$", r"^[0-9a-f]{64}$"


class ProfileManifest(BaseModel):
    """Public facts of a profile.

    Attributes:
        format: of the folder; `antefix_client.profile.migration` brings older ones up.
        profile: random id.
        tenant, user, prefix: the place of its records; tenant is zeros until a server knows it.
        base: name, folder or hub id.
        fingerprint: of the base, once it has been loaded.
        max_texts, max_bytes: how much is remembered; the oldest texts go first.
        slots: what unlocks it.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    format: Literal[1] = FORMAT
    profile: str = Field(pattern=_HEX16)
    tenant: str = Field(default="00" * 16, pattern=_HEX16)
    user: str = Field(pattern=_HEX16)
    prefix: str = Field(pattern=_HEX16)
    base: str
    fingerprint: str | None = Field(default=None, pattern=_HEX32)
    max_texts: int = Field(default=4096, ge=4, le=2**20)
    max_bytes: int = Field(default=2**24, ge=2**16, le=2**30)
    slots: list[Slot]

    @classmethod
    def create(cls, base: str) -> Self:
        """Of a new profile; nothing unlocks it yet."""
        profile, user, prefix = (secrets.token_hex(16) for _ in range(3))
        return cls(profile=profile, user=user, prefix=prefix, base=base, slots=[])

    @classmethod
    def require(cls, folder: Path) -> None:
        """Refuse a folder without a card.

        Raises:
            ProfileAbsent.
        """
        with translate_os_errors(folder / NAME):
            there = (folder / NAME).is_file()
        if not there:
            raise ProfileAbsent(f"there is no profile in {folder}", "make one: antefix init, or create()")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """That of a folder.

        Raises:
            ProfileAbsent: there is none.
            ProfileDamaged: it was written by a newer version, or cannot be understood.
        """
        cls.require(folder)
        path = folder / NAME
        with translate_os_errors(path):
            content = path.read_bytes()
        if (stored := stored_format(content)) > FORMAT:  # what a newer version writes is not damaged
            raise format_error(folder, stored)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
            raise ProfileDamaged(
                f"{path} cannot be understood: {where}",
                "put it back from a backup; the other files are as they were",
            ) from None

    def write(self, folder: Path) -> None:
        """Keep it."""
        replace_file(folder / NAME, self.model_dump_json(indent=2).encode() + b"\n")


def stored_format(content: bytes) -> int:
    """Which format a card says; this version's where it is damaged, so that its reader says how."""
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError):
        return FORMAT
    stored = manifest.get("format", FORMAT) if isinstance(manifest, dict) else FORMAT
    return stored if isinstance(stored, int) else FORMAT


def format_error(folder: Path, stored: int) -> ProfileDamaged:
    """What to raise where a profile's format is none that this version can read."""
    return ProfileDamaged(
        f"the profile {folder} is of format {stored}, this version writes {FORMAT}",
        "install the newest antefix",
    )
