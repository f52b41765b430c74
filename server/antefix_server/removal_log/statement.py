"""What the log has beside removals: digests of releases, so that a server cannot deny what it gave out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from antefix.crypto.merkle import leaf_hash


class Kind(IntEnum):
    """What a statement is about; stored, so a number is never used for something else."""

    ANNOUNCEMENT = 1
    RELEASE = 2


_LABELS = {Kind.ANNOUNCEMENT: b"antefix/v1/release\0", Kind.RELEASE: b"antefix/v1/manifest\0"}


@dataclass(frozen=True)
class Statement:
    """One leaf. It stays.

    Attributes:
        kind: with `number` said once only.
        number: serial of an announcement, version of a release.
        digest: SHA-256 of what was signed; zeros where numbers were skipped.
        mark: by which the vault knows that it wrote this.
    """

    kind: Kind
    number: int
    digest: bytes
    mark: bytes = b""

    @property
    def leaf(self) -> bytes:
        """Hash in the tree."""
        return leaf_hash(_LABELS[self.kind] + self.digest)
