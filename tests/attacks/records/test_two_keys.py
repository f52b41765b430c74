"""One ciphertext, two keys, two contents ("salamander"): AES-GCM opens it twice, a record never.

Whoever knows two users' keys could otherwise upload one blob that reads differently for each, and no digest
of the blob would tell. Dodis et al. 2018, "Fast Message Franking"; Len et al. 2021, partitioning oracles.
"""

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from antefix.crypto.aead import SecretBytes, decrypt, encrypt
from antefix.errors import RecordRefused
from antefix.keys import UserKey
from antefix.records.header import BODY_OFFSET, HEADER_BYTES, signed
from tests.support.records import Owner, some_bytes

KEYS = some_bytes("first key", 32), some_bytes("second key", 32)
CONTEXTS = b"user=ann", b"user=bob"
NONCE, BLOCKS = some_bytes("nonce", 12), 40


def times(left: int, right: int) -> int:
    """Product in GCM's field of 2**128 elements."""
    product = 0
    for bit in range(127, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (0xE1 << 120 if right & 1 else 0)
    return product


def inverse(number: int) -> int:
    """By Fermat: to the power of 2**128 - 2."""
    result, square = 1 << 127, number
    for _ in range(127):
        square = times(square, square)
        result = times(result, square)
    return result


def ghash(secret: int, blocks: list[int]) -> int:
    total = 0
    for block in blocks:
        total = times(total ^ block, secret)
    return total


def encrypted_block(key: bytes, block: bytes) -> int:
    aes = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return int.from_bytes(aes.update(block), "big")


def salamander() -> bytes:
    """Ciphertext and tag that AES-GCM opens under both keys, each with its own context."""
    secrets = [encrypted_block(key, bytes(16)) for key in KEYS]
    masks = [encrypted_block(key, NONCE + b"\0\0\0\1") for key in KEYS]
    stream = some_bytes("ciphertext", 16 * BLOCKS)
    blocks = [int.from_bytes(stream[at : at + 16], "big") for at in range(0, len(stream), 16)]
    before = [int.from_bytes(context.ljust(16, b"\0"), "big") for context in CONTEXTS]
    lengths = [len(context) * 8 << 64 | BLOCKS * 128 for context in CONTEXTS]
    blocks[-1] = 0  # the unknown: it enters each tag times the square of that key's secret
    without = [
        ghash(h, [a, *blocks, n]) ^ mask
        for h, a, n, mask in zip(secrets, before, lengths, masks, strict=True)
    ]
    factor = times(secrets[0], secrets[0]) ^ times(secrets[1], secrets[1])
    blocks[-1] = times(without[0] ^ without[1], inverse(factor))
    tag = ghash(secrets[0], [before[0], *blocks, lengths[0]]) ^ masks[0]
    return b"".join(block.to_bytes(16, "big") for block in (*blocks, tag))


BLOB = salamander()


def test_plain_aes_gcm_opens_it_under_both_keys() -> None:
    first, second = (
        AESGCM(key).decrypt(NONCE, BLOB, context) for key, context in zip(KEYS, CONTEXTS, strict=True)
    )
    assert first != second


def test_the_encryption_of_records_is_bound_to_one_key() -> None:
    for key, context in zip(KEYS, CONTEXTS, strict=True):
        assert decrypt(key, context, BLOB) is None
    sealed = encrypt(KEYS[0], b"context", bytes(64))
    # A chunk is AES-GCM inside; the commitment in front of it is what the other key cannot meet.
    assert decrypt(KEYS[0], b"context", sealed) is not None
    assert decrypt(KEYS[1], b"context", sealed) is None
    assert decrypt(KEYS[0], b"context", sealed[:56] + BLOB) is None


@pytest.mark.parametrize("place", ["body", "data key"])
def test_a_signed_record_with_it_inside_opens_under_neither_key(place: str) -> None:
    owner = Owner.named("ann")
    record = bytearray(owner.seal(bytes(2000)))
    if place == "body":
        record[BODY_OFFSET + 56 : BODY_OFFSET + 56 + len(BLOB)] = BLOB
    else:
        record[186 + 56 : HEADER_BYTES] = BLOB[-48:]
    header, body = bytes(record[:HEADER_BYTES]), bytes(record[BODY_OFFSET:])
    forged = header + owner.device.sign(signed(header, hashlib.sha256(body).digest())) + body
    for key in (bytes(owner.key.secret.data), *KEYS):
        other = Owner(owner.name, owner.address, UserKey(SecretBytes(bytearray(key)), 1), owner.device)
        with pytest.raises(RecordRefused):
            other.open(forged)
