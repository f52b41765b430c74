"""What an engine asks about grants, wherever they are kept."""

from __future__ import annotations

from typing import Protocol

from antefix.grants import Grant
from antefix.records import OpenedRecord

__all__ = ["Granting"]


class Granting(Protocol):
    """`antefix_server.grants.Grants`, or the same over a line to the process that has it."""

    def of(self, user: bytes) -> list[Grant]:
        """Those that hold now.

        Raises:
            UnknownUser.
        """

    def open(self, user: bytes, grant: str, base: bytes) -> OpenedRecord:
        """The record that a grant is about, opened; the caller wipes it.

        Raises:
            GrantRefused, UnknownUser, RecordAbsent, RecordMismatch, RecordRefused, VaultDamaged.
        """

    def tidy(self) -> int:
        """Destroy the keys of epochs that are over; so many were."""
