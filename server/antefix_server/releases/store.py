"""The folder of releases: signed statements and the files that they name.

    files/SHA256       what devices fetch
    versions/N.json    release N, signed
    announcement.json  the newest announcement, signed
    next/              a statement that may not be in the log yet
    unfinished/        what a publish works on

A statement counts if its digest is in the log under its number. It is written to `next` first, logged then,
and moved to its place: what a crash leaves is finished or swept by the next `settle`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from antefix.common.files import atomic_write, sync_folder
from antefix.errors import ReleaseRefused
from antefix.wire import Announcement, Release, Signed
from antefix_server.errors import VaultDamaged
from antefix_server.removal_log.log import RemovalLog
from antefix_server.removal_log.statement import Kind, Statement
from antefix_server.storage.os_errors import files

_HINT = "put the folder of releases back from a copy, or delete it and publish again"


class Store:
    """The folder; the caller holds the vault's lock where anything is changed."""

    def __init__(self, folder: Path, key: bytes) -> None:
        """Use a folder, which need not exist, and a release key of 32 bytes."""
        self._folder, self._key = folder, key
        self.files, self._versions = folder / "files", folder / "versions"
        self._announcement, self._next = folder / "announcement.json", folder / "next"
        with files(folder):
            for path in (self.files, self._versions, self._next):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def unfinished(self) -> Path:
        """Folder for `scratch`, on the same disk as `files`."""
        return self._folder / "unfinished"

    def versions(self) -> list[int]:
        """Numbers of all releases, ascending."""
        with files(self._versions):
            stems = [path.stem for path in self._versions.glob("*.json") if path.stem.isascii()]
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def signed_release(self, version: int) -> Signed | None:
        """Release `version` as it was signed."""
        return _read(self._path(version))

    def release(self, version: int) -> Release | None:
        """The same, read.

        Raises:
            VaultDamaged: changed since.
        """
        return self._verified(self._path(version))

    def releases(self) -> Iterator[Release]:
        """All of them, by version."""
        for version in self.versions():
            release = self.release(version)
            if release is not None:
                yield release

    def signed_announcement(self) -> Signed | None:
        """The newest one that is here."""
        return _read(self._announcement)

    def announcement(self) -> Announcement | None:
        """The same, read.

        Raises:
            VaultDamaged: changed since.
        """
        return self._opened(self._announcement)

    def add_release(self, log: RemovalLog, release: Release, signed: Signed) -> None:
        """Let a release count. Its files are there."""
        with files(self._folder):
            sync_folder(self.files)
        statement = Statement(Kind.RELEASE, release.version, bytes.fromhex(release.digest))
        self._add(log, statement, signed, self._path(release.version))

    def announce(self, log: RemovalLog, announcement: Announcement, signed: Signed) -> None:
        """Let an announcement count, in place of the one before."""
        statement = Statement(Kind.ANNOUNCEMENT, announcement.serial, bytes.fromhex(announcement.digest))
        self._add(log, statement, signed, self._announcement)

    def drop(self, version: int) -> None:
        """Delete a release; its files go with the next `settle`."""
        with files(self._versions):
            self._path(version).unlink()

    def settle(self, log: RemovalLog) -> None:
        """Finish what a crash or a full disk cut off, and take away what does not count."""
        announcement = self._opened(self._next / self._announcement.name)
        if announcement is not None and _logged(
            log, Kind.ANNOUNCEMENT, announcement.serial, announcement.digest
        ):
            self._move(self._announcement)
        with files(self._next):
            waiting = [path for path in self._next.iterdir() if path.stem.isdigit()]
        for path in waiting:
            release = self._verified(path)
            if release is not None and _logged(log, Kind.RELEASE, release.version, release.digest):
                self._move(self._path(release.version))
        with files(self._next):
            for left in self._next.iterdir():
                left.unlink()
        self._sweep(log)

    def _sweep(self, log: RemovalLog) -> None:
        keep: set[str] = set()
        for release in self.releases():
            if _logged(log, Kind.RELEASE, release.version, release.digest):
                keep |= release.sizes.keys()
            else:
                self.drop(release.version)
        with files(self._folder):
            for file in self.files.iterdir():
                if file.name not in keep:
                    file.unlink()

    def _add(self, log: RemovalLog, statement: Statement, signed: Signed, target: Path) -> None:
        with files(self._next):
            atomic_write(self._next / target.name, signed.to_bytes())
        log.append([statement])
        self._move(target)

    def _move(self, target: Path) -> None:
        with files(target):
            os.replace(self._next / target.name, target)
            sync_folder(target.parent)

    def _verified(self, path: Path) -> Release | None:
        signed = _read(path)
        try:
            return None if signed is None else Release.verified(signed, self._key)
        except ReleaseRefused as error:
            raise _damaged(path, error) from None

    def _opened(self, path: Path) -> Announcement | None:
        signed = _read(path)
        try:
            return None if signed is None else Announcement.verified(signed, self._key)
        except ReleaseRefused as error:
            raise _damaged(path, error) from None

    def _path(self, version: int) -> Path:
        return self._versions / f"{version}.json"


def _read(path: Path) -> Signed | None:
    with files(path):
        if not path.is_file():
            return None
        content = path.read_bytes()
    try:
        return Signed.parse(content)
    except ReleaseRefused as error:
        raise _damaged(path, error) from None


def _logged(log: RemovalLog, kind: Kind, number: int, digest: str) -> bool:
    statement = log.statement(kind, number)
    return statement is not None and statement.digest.hex() == digest


def _damaged(path: Path, error: ReleaseRefused) -> VaultDamaged:
    return VaultDamaged(f"{path} is damaged: {error.message}", _HINT)
