"""The one way of sealing to a public key: HPKE (RFC 9180) with X-Wing, ML-KEM-768 and X25519 together."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from antefix.crypto.aead import SecretBytes

MLKEM, X25519, SEED = 1184, 32, 32
OVERHEAD = 1088 + 32 + 16  # of a message: both encapsulations (FIPS 203 table 3, RFC 7748), and a tag
SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def private_key(seed: bytes | bytearray) -> tuple[MLKEM768X25519PrivateKey, bytes]:
    """The private key of a seed of 32 bytes, and its public key, 1,216 bytes.

    The key is in OpenSSL's memory, which overwrites it when the last reference to the object goes.
    """
    with SecretBytes.take(hashlib.shake_256(seed).digest(96)) as expanded, memoryview(expanded.data) as parts:
        # draft-connolly-cfrg-xwing-kem, 5.2
        mlkem = MLKEM768PrivateKey.from_seed_bytes(parts[:64])
        x25519 = X25519PrivateKey.from_private_bytes(parts[64:])
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return MLKEM768X25519PrivateKey(mlkem, x25519), public


def public_key(content: bytes) -> MLKEM768X25519PublicKey:
    """A public key of 1,216 bytes.

    Raises:
        ValueError: bytes that are none (FIPS 203 section 7.2 refuses numbers out of range).
    """
    mlkem = MLKEM768PublicKey.from_public_bytes(content[:MLKEM])
    return MLKEM768X25519PublicKey(mlkem, X25519PublicKey.from_public_bytes(content[MLKEM:]))
