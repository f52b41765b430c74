"""A profile's versions: sealed records, and what is known of each."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from antefix._files import write_whole
from antefix.errors import RecordMismatch
from antefix.records import cover_of
from antefix_client._sealedfiles import SealedFiles, shred
from antefix_client._seam import files
from antefix_client.errors import ProfileDamaged

FOLDER, STATE = "versions", "state"
KEPT = 5
_NAME = re.compile(r"^(\d{8})(-[0-9a-f]{8})?\.record$")


class Version(BaseModel):
    """One version of a profile's prefix.

    Attributes:
        number: 1 for the first; the highest is in use.
        made: when, UTC.
        how: learned here, sealed again by `roll_back`, or received from another device.
        of: the older version that `roll_back` brought back.
        texts: it was trained on so many.
        loss_before, loss_after: nats per token on texts that it was not trained on; before is the version
            in use then.
        length: positions of the prefix.
        steps: optimizer steps.
        base: fingerprint of its base.
        digest: of its record, 64 hex digits.
        beside: another device made the same number; kept, and not in use until chosen.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    number: int
    made: datetime
    how: Literal["learned", "rolled back", "received", "found"]
    of: int | None = None
    texts: int | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    length: int | None = None
    steps: int | None = None
    base: str
    digest: str
    beside: bool = False

    @property
    def name(self) -> str:
        """Number and digest, `3-1a2b3c4d`: no other version has it, not even one of the same number."""
        return f"{self.number}-{self.digest[:8]}"

    @property
    def file(self) -> str:
        """Name of its record."""
        return f"{self.number:08d}-{self.digest[:8]}.record" if self.beside else f"{self.number:08d}.record"


class _State(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    versions: list[Version] = []


class History:
    """The versions of one profile; the newest one that is not beside another is in use."""

    def __init__(self, folder: Path, sealed: SealedFiles) -> None:
        """Read what is known.

        Attributes of the object: `versions`, oldest first; `damaged`, names of files that cannot be read.

        Raises:
            ProfileUnwritable.
        """
        self._folder, self._sealed = folder / FOLDER, sealed
        self.damaged: list[str] = []
        self.versions: list[Version] = self._read()
        self._sweep()

    @property
    def newest(self) -> Version | None:
        """The one in use."""
        own = [version for version in self.versions if not version.beside]
        return own[-1] if own else None

    @property
    def next_number(self) -> int:
        """Of the version that comes next; never one that was there before."""
        return max((version.number for version in self.versions), default=0) + 1

    def record(self, version: Version) -> bytes:
        """The sealed record of a version.

        Raises:
            ProfileDamaged: it is not there.
        """
        path = self._folder / version.file
        with files(path):
            if not path.is_file():
                raise ProfileDamaged(f"{path} is missing", "put it back from a backup, or roll back")
            return path.read_bytes()

    def previous(self, version: Version) -> str | None:
        """Digest of the version before, as the record of a version says; None where that cannot be read."""
        try:
            return cover_of(self.record(version)).edition.previous.hex()
        except (ProfileDamaged, RecordMismatch):
            return None

    def add(self, version: Version, record: bytes) -> None:
        """Keep a version, or the same one in another place: its record first, then what is known of it.

        Durable on return. The last five of its own line stay, and as many beside them that are not older.
        """
        path = self._folder / version.file
        with files(path):
            write_whole(path, record)
        others = [one for one in self.versions if one.digest != version.digest]
        kept = sorted([*others, version], key=lambda one: (one.number, one.beside))
        own = [one for one in kept if not one.beside][-KEPT:]
        beside = [one for one in kept if one.beside and (not own or one.number >= own[0].number)]
        while len(beside) > KEPT:
            beside.remove(next(one for one in beside if one is not version))
        self._write(sorted([*own, *beside], key=lambda one: (one.number, one.beside)))
        self._sweep()

    def _write(self, versions: list[Version]) -> None:
        self._sealed.write(STATE, _State(versions=versions).model_dump_json().encode())
        self.versions = versions

    def _read(self) -> list[Version]:
        try:
            found = self._sealed.read(STATE)
            if found is None:
                return []
            with found:
                return _State.model_validate_json(bytes(found.data)).versions
        except (ProfileDamaged, ValidationError):
            self.damaged.append(STATE)
            return self._from_records()

    def _from_records(self) -> list[Version]:
        """What the records themselves say, where the list of them is lost."""
        found = []
        for path in sorted(self._folder.glob("*.record")):
            try:
                cover = cover_of(path.read_bytes())
            except (RecordMismatch, OSError):
                self.damaged.append(path.name)
                continue
            beside = "-" in path.name
            version = Version(
                number=cover.edition.version,
                made=datetime.fromtimestamp(int(path.stat().st_mtime), UTC),
                how="found",
                base=cover.edition.address.base.hex(),
                digest=cover.digest.hex(),
                beside=beside,
            )
            if version.file == path.name:
                found.append(version)
        return found

    def _sweep(self) -> None:
        """Delete records that no version has: a crash left them, or they are too old."""
        if self.damaged or not self._folder.is_dir():
            return
        known = {version.file for version in self.versions}
        for path in self._folder.iterdir():
            if path.name not in known and (_NAME.match(path.name) or path.name.startswith(".")):
                shred(path)


def now() -> datetime:
    """UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
