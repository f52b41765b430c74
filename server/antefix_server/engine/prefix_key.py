"""What a prefix is, wherever it is kept or used: all of it, so that no two can be taken for one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from antefix.errors import GrantRefused
from antefix.grants import Grant
from antefix.records import OpenedRecord

__all__ = ["PrefixKey"]


@dataclass(frozen=True)
class PrefixKey:
    """Key of everything that is kept of an opened prefix. Public, and of no use without the vault.

    Attributes:
        tenant, user, prefix: 16 bytes each.
        base: fingerprint, 32 bytes.
        version: of the record.
        digest: of the record, 32 bytes.
        grant: id, in hex: a grant that was given anew is opened anew.
    """

    tenant: bytes
    user: bytes
    prefix: bytes
    base: bytes
    version: int
    digest: bytes
    grant: str

    @classmethod
    def by(cls, grant: Grant) -> Self:
        """What a grant allows."""
        at, record = grant.address, bytes.fromhex(grant.record)
        return cls(at.tenant, at.user, at.prefix, at.base, grant.version, record, grant.id)

    def require(self, opened: OpenedRecord) -> None:
        """Compare with what was opened, once more, where it is about to be used.

        Raises:
            GrantRefused: it is another one.
        """
        at, edition = opened.edition.address, opened.edition
        identity = (at.tenant, at.user, at.prefix, at.base, edition.version, opened.digest)
        if identity != (self.tenant, self.user, self.prefix, self.base, self.version, self.digest):
            raise GrantRefused("the record that was opened is another one")
