"""Which release is the current one, and what a device remembers in order to take no older one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from antefix.errors import ReleaseRefused
from antefix.wire.release import Release
from antefix.wire.signed import (
    MAX_BYTES,
    MAX_NUMBER,
    Digest,
    Id,
    Number,
    Signed,
    Size,
    Statement,
    StrictModel,
    parse_model,
)

_MAX_VERSIONS = 1000  # that a device remembers


class CurrentRelease(StrictModel):
    """The release to use: version and digest."""

    version: Number
    digest: Digest


class Announcement(Statement):
    """What to use from now on.

    Attributes:
        tenant: id of the server's vault.
        serial: grows with every announcement.
        issued: seconds since 1970.
        current: or None, where there is nothing to use.
        withdrawn: versions that must not be used any more, ascending.
    """

    label: ClassVar[bytes] = b"antefix/v1/announcement\0"

    tenant: Id
    serial: Number
    issued: Size
    current: CurrentRelease | None = None
    withdrawn: Annotated[tuple[Number, ...], Field(max_length=100_000)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.withdrawn) != sorted(set(self.withdrawn)):
            raise ValueError("withdrawn versions are not in order")
        if self.current is not None and self.current.version in self.withdrawn:
            raise ValueError("the current version is withdrawn")
        return self


class ReleaseOffer(StrictModel):
    """What a server answers who asks for its release: an announcement, and the release that it names."""

    announcement: Signed
    release: Signed | None = None

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read one from anyone; nothing is verified.

        Raises:
            ReleaseRefused: too large, or not in the format.
        """
        return parse_model(cls, content, 4 * MAX_BYTES)


class ReleaseState(StrictModel):
    """What a device knows of a server's releases; keep it, for without it an old one cannot be told.

    Attributes:
        tenant: id of the server's vault.
        base: fingerprint that the device's prefixes are for; None takes any.
        serial: the highest one seen; 0 for none.
        announcement: digest of that one, or None.
        versions: the newest known versions, ascending, each with its release's digest.
        withdrawn: versions that must not be used.
    """

    tenant: Id
    base: Digest | None = None
    serial: Annotated[int, Field(ge=0, le=MAX_NUMBER)] = 0
    announcement: Digest | None = None
    versions: tuple[tuple[Number, Digest], ...] = ()
    withdrawn: tuple[Number, ...] = ()

    def require_usable(self, release: Release) -> None:
        """Refuse a verified release that this device must not use.

        Raises:
            ReleaseRefused: of another server or base, withdrawn, or not what its version was before.
        """
        if release.tenant != self.tenant:
            raise ReleaseRefused(f"it is of server {release.tenant}, expected {self.tenant}")
        if release.version in self.withdrawn:
            raise ReleaseRefused(f"version {release.version} is withdrawn")
        known = dict(self.versions).get(release.version)
        if known not in (None, release.digest):
            raise ReleaseRefused(
                f"version {release.version} has digest {release.digest[:16]}…, it had {str(known)[:16]}…"
            )
        if self.base not in (None, release.base.fingerprint):
            raise ReleaseRefused(
                f"its base is {release.base.fingerprint[:16]}…, "
                f"the prefixes of this device are for {str(self.base)[:16]}…"
            )

    def with_release(self, release: Release) -> Self:
        """What is known after a release that is taken."""
        known = dict(self.versions) | {release.version: release.digest}
        return self.model_copy(update={"versions": tuple(sorted(known.items())[-_MAX_VERSIONS:])})

    def accepting(self, offer: ReleaseOffer, key: bytes) -> tuple[Self, Release | None]:
        """Decide about what a server, or who poses as it, offers.

        Args:
            offer: from anyone.
            key: the server's release key, 32 bytes, known from an invitation.

        Returns:
            What is known from now on, and the release to use: None where the server has none.

        Raises:
            ReleaseRefused: forged, older than what is known, or not to be used (`require_usable`).
        """
        announcement = Announcement.verified(offer.announcement, key)
        self._require_newest(announcement)
        after = self.model_copy(
            update={
                "serial": announcement.serial,
                "announcement": announcement.digest,
                "withdrawn": announcement.withdrawn,
            }
        )
        if (announcement.current is None) != (offer.release is None):
            raise ReleaseRefused("it is not the one that is announced")
        if announcement.current is None or offer.release is None:
            return after, None
        release = Release.verified(offer.release, key)
        if CurrentRelease(version=release.version, digest=release.digest) != announcement.current:
            raise ReleaseRefused(
                f"it is version {release.version}, announced is {announcement.current.version}"
                f" with digest {announcement.current.digest[:16]}…"
            )
        after.require_usable(release)
        return after.with_release(release), release

    def _require_newest(self, announcement: Announcement) -> None:
        if announcement.tenant != self.tenant:
            raise ReleaseRefused(f"it is of server {announcement.tenant}, expected {self.tenant}")
        if announcement.serial < self.serial:
            raise ReleaseRefused(
                f"its announcement is number {announcement.serial}, this device has seen {self.serial}"
            )
        if announcement.serial == self.serial and announcement.digest != self.announcement:
            raise ReleaseRefused(f"there are two announcements of number {self.serial}")
