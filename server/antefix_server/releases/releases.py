"""Releases of a vault: shared bases that an operator publishes, and which of them devices are to use.

Everything here is public to the vault's users, and signed. Each release and each announcement is a leaf of
the removal log: neither can be denied later, and no number comes twice, not even after a restore.

    releases = Releases(vault)
    release = releases.publish("smollm2-135m-q4", shared=Path("shared.safetensors"))
    releases.promote(release.version)
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from antefix.errors import InvalidArgument
from antefix.wire import Announcement, Release, Signed
from antefix.wire.announcement import CurrentRelease, ReleaseOffer
from antefix.wire.release import Privacy, SharedPrefix
from antefix_server.errors import (
    ReleaseAbsent,
    ReleaseUnsuitable,
    ReleaseWithdrawn,
    VaultBusy,
    VaultDamaged,
)
from antefix_server.releases import assembly
from antefix_server.releases.assembly import Base
from antefix_server.releases.store import Store
from antefix_server.removal_log.log import RemovalLog
from antefix_server.removal_log.statement import Kind
from antefix_server.storage.os_errors import files
from antefix_server.storage.staging import scratch
from antefix_server.vault import Vault

__all__ = ["Published", "Releases"]

_FOLDER = "releases"
_LARGEST_PREFIX = 2**30
_LONGEST_NOTE = 2000


@dataclass(frozen=True)
class Published:
    """A release and what became of it."""

    release: Release
    current: bool
    withdrawn: bool


class Releases:
    """The releases of one open vault. Any thread may call anything; several objects of one vault agree."""

    def __init__(self, vault: Vault) -> None:
        """Use an open vault, which its owner closes; finish what a crash cut off.

        Raises:
            VaultDamaged: a signed file was changed.
        """
        self._vault, self._signing = vault, vault.identity.releasing
        self._store = Store(vault.folder / _FOLDER, self._signing.public_key().public_bytes_raw())
        self._given: tuple[object, frozenset[str]] = ((), frozenset())
        with contextlib.suppress(VaultBusy), scratch(self._store.unfinished):
            pass  # what a killed publish left is gone; another one may be at work
        with self._changing():
            pass

    def publish(
        self,
        base: str | os.PathLike[str] | None = None,
        *,
        shared: Path | bytes | None = None,
        sources: Sequence[str] = (),
        note: str = "",
        privacy: Privacy | None = None,
    ) -> Release:
        """A new release; devices use it once it is promoted.

        Args:
            base: name of the catalogue, folder or hub id; None for that of the newest release.
            shared: a prefix file for it, or its content.
            sources: beginnings of URLs, to which a file's name is added: where else devices find the files.
            note: for people.
            privacy: of the rounds that `shared` came from.

        Raises:
            ReleaseUnsuitable: base or prefix is none that devices could use.
            ReleaseAbsent: no base was named, and there is no release.
            BaseError: no base of that name, or a damaged one.
            VaultBusy: somebody else publishes.
        """
        content = _content(shared)
        if len(note) > _LONGEST_NOTE or not note.isprintable():
            raise InvalidArgument(
                f"a note of {len(note):,} characters", f"one line, {_LONGEST_NOTE:,} at most"
            )
        with scratch(self._store.unfinished) as work:  # the vault goes on meanwhile
            released_base = self._base(base, work, sources)
            prefix = None
            if content is not None:
                prefix = assembly.shared_prefix(
                    content, released_base, self._layouts(released_base.named.fingerprint)
                )
            with self._changing() as log:
                release = self._next(log, released_base, prefix, privacy, note)
                signed = release.signed(self._signing)
                assembly.keep(work, released_base, self._store.files)
                if content is not None and prefix is not None:
                    assembly.keep_bytes(content, prefix.sha256, self._store.files)
                self._store.add_release(log, release, signed)
                return release

    def promote(self, version: int) -> Announcement:
        """Have devices use a release from now on.

        Raises:
            ReleaseAbsent, ReleaseWithdrawn: there is none of that version, or not any more.
            VaultDamaged: a file of it is not there.
        """
        with self._changing() as log:
            withdrawn = self._withdrawn()
            if version in withdrawn:
                raise ReleaseWithdrawn(
                    f"version {version} was withdrawn", "publish it again, as a new version"
                )
            release = self._release(version)
            self._require_files(release)
            return self._announce(log, release, withdrawn)

    def withdraw(self, version: int) -> Announcement:
        """Have devices use a release no more, for good. If it is the current one, an earlier one gets it.

        The newest that is not withdrawn itself, or none. Its files are given to nobody from now on.

        Raises:
            ReleaseAbsent, ReleaseWithdrawn: there is none of that version, or not any more.
        """
        with self._changing() as log:
            previous = self._withdrawn()
            if version in previous:
                raise ReleaseWithdrawn(f"version {version} is withdrawn already")
            if log.statement(Kind.RELEASE, version) is None:
                raise _absent(version)
            withdrawn = tuple(sorted({*previous, version}))
            current = self._announced(log)
            if current is not None and current.version == version:
                left = [n for n in self._store.versions() if n < version and n not in withdrawn]
                current = self._store.release(left[-1]) if left else None
            return self._announce(log, current, withdrawn)

    def prune(self, keep: int) -> list[int]:
        """Delete all but the newest `keep` releases and the current one, with files that no other names.

        Their numbers stay used, and what is withdrawn stays withdrawn.

        Returns:
            The versions deleted.
        """
        if type(keep) is not int or keep < 1:
            raise InvalidArgument(f"{keep!r} releases to keep", "keep 1 or more")
        with self._changing() as log:
            current = self._announced(log)
            old = [n for n in self._store.versions()[:-keep] if current is None or n != current.version]
            for version in old:
                self._store.drop(version)
            self._store.settle(log)
            return old

    def list(self) -> list[Published]:
        """All releases, by version."""
        with self._vault.log() as log:
            current, withdrawn = self._announced(log), self._withdrawn()
            return [
                Published(release, release == current, release.version in withdrawn)
                for release in self._store.releases()
            ]

    def current(self) -> Release | None:
        """The release that devices are to use, if one is promoted."""
        with self._vault.log() as log:
            return self._announced(log)

    def offer(self) -> ReleaseOffer:
        """What devices get: the newest announcement, and the release that it names.

        Raises:
            ReleaseAbsent: nothing was announced yet, or not since a restore.
        """
        with self._vault.log() as log:
            signed = self._store.signed_announcement()
            if signed is None or not self._is_newest(log):
                raise ReleaseAbsent("no release is announced", "antefix-server base promote VERSION")
            current = self._announced(log)
            release = None if current is None else self._store.signed_release(current.version)
            return ReleaseOffer(announcement=signed, release=release)

    def manifest(self, version: int) -> Signed:
        """A release as it was signed.

        Raises:
            ReleaseAbsent: none of that version.
        """
        result = self._store.signed_release(version)
        if result is None:
            raise _absent(version)
        return result

    def file(self, digest: str) -> Path:
        """Where the file with that SHA-256 lies.

        Raises:
            ReleaseAbsent: no release names it that is not withdrawn.
        """
        with self._vault.writing():
            if digest in self._names():
                return self._store.files / digest
        raise ReleaseAbsent("no release has that file", "ask for the current release again")

    @contextmanager
    def _changing(self) -> Iterator[RemovalLog]:
        with self._vault.log() as log:
            self._store.settle(log)
            yield log

    def _base(self, base: str | os.PathLike[str] | None, work: Path, sources: Sequence[str]) -> Base:
        if base is not None:
            return assembly.assembled(base, work, sources)
        newest = self._newest()
        if newest is None:
            raise ReleaseAbsent("there is no release to take the base from", "name a base")
        return assembly.again(newest, work, self._store.files)

    def _next(
        self, log: RemovalLog, base: Base, shared: SharedPrefix | None, privacy: Privacy | None, note: str
    ) -> Release:
        newest = self._newest()
        try:
            return Release(
                tenant=self._vault.tenant.hex(),
                version=log.next_number(Kind.RELEASE),
                created=int(time.time()),
                base=base.named,
                files=base.files,
                shared=shared,
                previous=None if newest is None else newest.digest,
                privacy=privacy,
                note=note,
            )
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ReleaseUnsuitable(
                f"no device would take {where} of the release: {first['msg'].lower()}",
                "1,000 files at most, whose names do not differ in case alone",
            ) from None

    def _layouts(self, fingerprint: str) -> set[str]:
        same = (release for release in self._store.releases() if release.base.fingerprint == fingerprint)
        return {release.shared.layout for release in same if release.shared is not None}

    def _newest(self) -> Release | None:
        versions = self._store.versions()
        return self._store.release(versions[-1]) if versions else None

    def _release(self, version: int) -> Release:
        result = self._store.release(version)
        if result is None:
            raise _absent(version)
        return result

    def _require_files(self, release: Release) -> None:
        with files(self._store.files):
            for digest, size in release.sizes.items():
                path = self._store.files / digest
                if not path.is_file() or path.stat().st_size != size:
                    raise VaultDamaged(f"{path} is missing or cut off", "publish the base again")

    def _is_newest(self, log: RemovalLog) -> bool:
        """Whether the announcement that is here is the last one there was: not so after a restore."""
        announcement = self._store.announcement()
        return announcement is not None and announcement.serial + 1 == log.next_number(Kind.ANNOUNCEMENT)

    def _announced(self, log: RemovalLog) -> Release | None:
        announcement = self._store.announcement()
        if announcement is None or announcement.current is None or not self._is_newest(log):
            return None
        return self._release(announcement.current.version)

    def _withdrawn(self) -> tuple[int, ...]:
        announcement = self._store.announcement()
        return () if announcement is None else announcement.withdrawn

    def _announce(self, log: RemovalLog, current: Release | None, withdrawn: tuple[int, ...]) -> Announcement:
        announcement = Announcement(
            tenant=self._vault.tenant.hex(),
            serial=log.next_number(Kind.ANNOUNCEMENT),
            issued=int(time.time()),
            current=None
            if current is None
            else CurrentRelease(version=current.version, digest=current.digest),
            withdrawn=withdrawn,
        )
        self._store.announce(log, announcement, announcement.signed(self._signing))
        return announcement

    def _names(self) -> frozenset[str]:
        """SHA-256 of all files that anybody is given."""
        versions, withdrawn = self._store.versions(), self._withdrawn()
        if self._given[0] != (versions, withdrawn):
            some = (release for release in self._store.releases() if release.version not in withdrawn)
            self._given = (versions, withdrawn), frozenset(name for release in some for name in release.sizes)
        return self._given[1]


def _content(shared: Path | bytes | None) -> bytes | None:
    if shared is None or isinstance(shared, bytes):
        return shared
    with files(shared):
        if shared.stat().st_size > _LARGEST_PREFIX:
            raise InvalidArgument(f"{shared} has more than {_LARGEST_PREFIX:,} bytes", "give a prefix file")
        return shared.read_bytes()


def _absent(version: int) -> ReleaseAbsent:
    return ReleaseAbsent(f"there is no release {version}", "antefix-server base list")
