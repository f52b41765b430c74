"""A profile's versions: sealed records, and what is known of each."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from antefix.errors import RecordMismatch
from antefix.records import NO_PREVIOUS, read_header
from antefix_client.errors import ProfileDamaged, ProfileUnwritable
from antefix_client.profile.encrypted_files import EncryptedFiles
from antefix_client.profile.os_errors import translate_os_errors
from antefix_client.profile.safe_files import delete_leftovers, open_regular, replace_file, secure_delete

FOLDER, STATE = "versions", "state"
MAX_VERSIONS = 5
MAX_AHEAD = 2**20  # a version may be so much newer than the one before it: numbers end somewhere
_NAME = re.compile(r"^(\d{8,20})(-[0-9a-f]{8})?\.record$")


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
    """What is in the sealed file `state`.

    Attributes:
        versions: oldest first.
        removed: texts were removed since, from which these versions may have learned.
        past: number of the newest version that was dropped for that; 0 for none.
        past_digest: of its record: the next version names it, and says nothing of what was in it.
        logs: identities of the file of texts, the one in use and the one before, hex digits.
        next_text: numbers below were given to texts.
    """

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    versions: list[Version] = []
    removed: bool = False
    past: int = 0
    past_digest: str = NO_PREVIOUS.hex()
    logs: list[str] = []
    next_text: int = 1


class VersionHistory:
    """The versions of one profile; the newest one that is not beside another is in use."""

    def __init__(self, folder: Path, sealed: EncryptedFiles) -> None:
        """Read what is known.

        Attributes of the object: `state`, what is known; `damaged`, names of files that cannot be read.

        Raises:
            ProfileUnwritable.
        """
        self._folder, self._sealed = folder / FOLDER, sealed
        self._require_folder()
        self.damaged: list[str] = []
        self.state = self._read()
        self._sweep()

    @property
    def versions(self) -> list[Version]:
        """All of them, oldest first."""
        return self.state.versions

    @property
    def newest(self) -> Version | None:
        """The one in use."""
        own = [version for version in self.versions if not version.beside]
        return own[-1] if own else None

    @property
    def next_number(self) -> int:
        """Of the version that comes next; never one that was there before."""
        return max([self._highest, *(number for number, _ in self._strays())]) + 1

    @property
    def last_digest(self) -> bytes:
        """Of the version before the next one; zeros where there was none."""
        newest = self.newest
        return bytes.fromhex(self.state.past_digest if newest is None else newest.digest)

    def note(self, **facts: object) -> None:
        """Keep what else is known; durable on return."""
        state = self.state.model_copy(update=facts)
        self._sealed.write(STATE, state.model_dump_json().encode())
        self.state = state

    def record(self, version: Version) -> bytes:
        """The sealed record of a version.

        Raises:
            ProfileDamaged: it is not there.
        """
        path = self._folder / version.file
        with translate_os_errors(path):
            if not path.is_file():
                raise ProfileDamaged(f"{path} is missing", "put it back from a backup, or roll back")
            return path.read_bytes()

    def replace_record(self, version: Version, record: bytes) -> None:
        """The same version under another user key; durable on return."""
        self._sealed.lock.require()
        replace_file(self._folder / version.file, record)

    def previous(self, version: Version) -> str | None:
        """Digest of the version before, as the record of a version says; None where that cannot be read."""
        try:
            return read_header(self.record(version)).edition.previous.hex()
        except (ProfileDamaged, RecordMismatch):
            return None

    def add(self, version: Version, record: bytes) -> None:
        """Keep a version, or the same one in another place: its record first, then what is known of it.

        Durable on return. The last five of its own line stay, and as many beside them that are not older.
        """
        self._sealed.lock.require()
        with translate_os_errors(self._folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
        replace_file(self._folder / version.file, record)
        others = [other for other in self.versions if other.digest != version.digest]
        versions = sorted([*others, version], key=lambda other: (other.number, other.beside))
        own = [other for other in versions if not other.beside][-MAX_VERSIONS:]
        beside = [other for other in versions if other.beside and (not own or other.number >= own[0].number)]
        while len(beside) > MAX_VERSIONS:
            beside.remove(next(other for other in beside if other is not version))
        self._write(sorted([*own, *beside], key=lambda other: (other.number, other.beside)))
        self._sweep()

    def keep_only(self, version: Version) -> None:
        """Drop every other one."""
        self._write([version])
        self._sweep()

    def reset(self, version: Version | None) -> None:
        """Drop all that may have learned from removed texts; `version` did not, None for there is none."""
        last = {"past": self._highest, "past_digest": self.last_digest.hex()}
        self.note(versions=[] if version is None else [version], removed=False, **last)
        self._sweep()

    def recover(self, opens: Callable[[Version], bool]) -> None:
        """Take in records that are newer than all that is known, where they open; the others stay, unused.

        A crash left them before they were noted, or somebody put back an older `state`.
        """
        for _, path in sorted(self._strays()):
            version = self._read_version(path)
            if version is not None and opens(version):
                self._write([*self.versions, version])
            elif path.name not in self.damaged:
                self.damaged.append(path.name)

    @property
    def _highest(self) -> int:
        return max((version.number for version in self.versions), default=self.state.past)

    def _write(self, versions: list[Version]) -> None:
        self.note(versions=versions)

    def _read(self) -> _State:
        try:
            stored = self._sealed.read(STATE)
            if stored is not None:
                with stored:
                    return _State.model_validate_json(bytes(stored.data))
            if not any(self._records()):
                return _State()
        except (ProfileDamaged, ValidationError):
            pass
        self.damaged.append(STATE)
        versions = self._from_records()
        # Whether texts were removed is lost with it: then as if they were.
        return _State(versions=versions, removed=bool(versions))

    def _from_records(self) -> list[Version]:
        """What the records themselves say, where the list of them is lost."""
        versions = [self._read_version(path) for _, path in sorted(self._records())]
        return [version for version in versions if version is not None]

    def _read_version(self, path: Path) -> Version | None:
        """What one record says; None where it cannot be read, or has the name of another."""
        try:
            with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
                modified = datetime.fromtimestamp(int(os.fstat(file.fileno()).st_mtime), UTC)
                header = read_header(file.read())
        except (RecordMismatch, OSError):
            self.damaged.append(path.name)
            return None
        version = Version(
            number=header.edition.version,
            made=modified,
            how="found",
            base=header.edition.address.base.hex(),
            digest=header.digest.hex(),
            beside="-" in path.name,
        )
        return version if version.file == path.name else None

    def _records(self) -> Iterator[tuple[int, Path]]:
        """Number and path of every record in the folder, as their names say."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if named := _NAME.match(path.name):
                    yield int(named[1]), path

    def _strays(self) -> list[tuple[int, Path]]:
        """Records that are newer than what is known, but not so far that no number would be left."""
        newest = self._highest
        return [(number, path) for number, path in self._records() if 0 < number - newest <= MAX_AHEAD]

    def _sweep(self) -> None:
        """Delete records that no version has: they are too old. Newer ones stay."""
        if self.damaged or not self._folder.is_dir():
            return
        delete_leftovers(self._folder)
        known = {version.file for version in self.versions}
        for number, path in self._records():
            if path.name not in known and number <= self._highest:
                secure_delete(path)

    def _require_folder(self) -> None:
        """Nobody else looks in, and it is a folder of this profile: of another one we would delete files."""
        with translate_os_errors(self._folder):
            if self._folder.is_symlink():
                raise ProfileUnwritable(f"{self._folder} is a link", "put the folder itself there")
            if self._folder.is_dir():
                self._folder.chmod(0o700)


def utc_now() -> datetime:
    """UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def stored_log_ids(sealed: EncryptedFiles) -> list[bytes]:
    """Identities that the file of texts may have; none where the state does not open."""
    try:
        stored = sealed.read(STATE)
        if stored is None:
            return []
        with stored:
            return [bytes.fromhex(log) for log in _State.model_validate_json(bytes(stored.data)).logs]
    except (ProfileDamaged, ValueError):
        return []
