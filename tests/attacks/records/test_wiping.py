"""Where a library gives a key as bytes, these are zeroed too, not the copy alone."""

import os

import pytest
from cryptography.hazmat.primitives.kdf import argon2

from antefix.crypto.aead import SecretBytes
from antefix.errors import InvalidArgument
from antefix.keys import (
    Cost,
    DeviceKeys,
    DevicePublic,
    RecoveryCode,
    UserKey,
    open_with_passphrase,
    passphrase,
    seal_under_passphrase,
)
from tests.support.records import Owner, some_bytes

CHEAP = Cost(19 * 1024, 2, 1)
IDS = {"tenant": some_bytes("tenant", 16), "user": some_bytes("user", 16)}


def test_what_is_taken_is_gone_where_it_was() -> None:
    data = some_bytes("key", 32)
    with SecretBytes.take(data) as secret:
        assert secret.data == some_bytes("key", 32)
        assert data == bytes(32)


def test_a_single_byte_is_everybodys() -> None:
    SecretBytes.take(bytes([65])).wipe()
    assert bytes([65]) == b"A"


def test_of_random_keys_no_copy_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bytes] = []
    real = os.urandom

    def remembering(size: int) -> bytes:
        given.append(real(size))
        return given[-1]

    monkeypatch.setattr(os, "urandom", remembering)
    Owner.named("ann").seal(b"mine")
    UserKey.generate().rotated().wipe()
    DeviceKeys.new_seed().wipe()
    RecoveryCode.generate().wipe()
    assert [len(one) for one in given] == [32, 32, 32, 64, 32]
    assert not any(any(one) for one in given)


def test_of_a_derived_key_no_copy_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bytes] = []

    class Remembering:
        def __init__(self, **settings: object) -> None:
            self._real = argon2.Argon2id(**settings)  # type: ignore[arg-type]

        def derive(self, typed: bytes) -> bytes:
            given.append(self._real.derive(typed))
            return given[-1]

    monkeypatch.setattr(passphrase, "Argon2id", Remembering)
    slot = seal_under_passphrase(UserKey.generate(), "correct horse", cost=CHEAP, **IDS)
    open_with_passphrase(slot, "correct horse", epoch=1, **IDS).wipe()
    assert given == [bytes(32), bytes(32)]


def test_a_passphrase_that_is_no_text_is_refused_and_not_kept_in_the_error() -> None:
    with pytest.raises(InvalidArgument) as caught:
        seal_under_passphrase(UserKey.generate(), "geheim\udc80", cost=CHEAP, **IDS)
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_ids_cannot_slide_into_each_other() -> None:
    """15 and 17 bytes have the same sum as 16 and 16."""
    odd = {"tenant": IDS["tenant"][:15], "user": IDS["tenant"][15:] + IDS["user"]}
    with pytest.raises(InvalidArgument, match="have 15 and 17 bytes, expected 16"):
        seal_under_passphrase(UserKey.generate(), "correct horse", cost=CHEAP, **odd)
    with pytest.raises(InvalidArgument, match="have 15 and 17 bytes, expected 16"):
        RecoveryCode.generate().keys(**odd)


def test_a_device_key_that_everybody_could_open_is_refused() -> None:
    """X25519 of a point of small order gives a shared key that is known beforehand."""
    good = DeviceKeys(some_bytes("phone", 64)).public
    weak = DevicePublic(good.kem_bytes[:-32] + bytes(32), good.signing_bytes)
    with pytest.raises(InvalidArgument, match="has a public key that is none"):
        UserKey.generate().seal_for(weak, **IDS)
