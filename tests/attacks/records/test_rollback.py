"""Whoever stores records gives an older one, another one of the same version, or a fork: refused.

A device remembers the newest version it has seen, and its digest; a server never goes back either.
"""

from pathlib import Path

import pytest

from antefix.errors import RecordMismatch
from antefix.records import Expected, digest_of
from antefix_server.errors import VersionConflict
from tests.support.records import Owner
from tests.support.vaults import Person, new_vault

ANN = Owner.named("ann")
FIRST = ANN.seal(b"one")
SECOND = ANN.seal(b"two", 2, digest_of(FIRST))
REMEMBERED = Expected(2, digest_of(SECOND), digest_of(FIRST))


def test_what_the_device_remembers_opens() -> None:
    assert bytes(ANN.open(SECOND, REMEMBERED).payload) == b"two"


def test_an_older_version_is_refused() -> None:
    with pytest.raises(RecordMismatch, match="version of the record is 1, expected 2 or later"):
        ANN.open(FIRST, REMEMBERED)


def test_another_record_of_the_same_version_is_refused() -> None:
    other = ANN.seal(b"other", 2, digest_of(FIRST))
    with pytest.raises(RecordMismatch, match="digest of the record is") as caught:
        ANN.open(other, REMEMBERED)
    assert digest_of(SECOND).hex() in str(caught.value)


def test_a_newer_version_of_a_fork_is_refused() -> None:
    other = ANN.seal(b"other", 2, digest_of(FIRST))
    fork = ANN.seal(b"three", 3, digest_of(other))
    with pytest.raises(RecordMismatch, match="previous digest"):
        ANN.open(fork, Expected(3, previous=digest_of(SECOND)))


def test_a_record_from_before_a_rotation_is_refused() -> None:
    """A device that was removed has the old user key: what it could still write is of no use."""
    rotated = Owner(ANN.name, ANN.address, ANN.key.rotated(), ANN.device)
    with pytest.raises(RecordMismatch, match="epoch of the record is 1, expected 2"):
        rotated.open(SECOND)


def test_the_vault_never_goes_back(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        ann = Person.enrolled(vault, "ann")
        older = [ann.put(vault, text) for text in (b"one", b"two", b"three")]
        for record in older[:2]:
            for replaces in (0, 1, 2, 3):
                with pytest.raises(VersionConflict):
                    vault.put(record, replaces=replaces)
        assert ann.stored(vault) == older[2]
