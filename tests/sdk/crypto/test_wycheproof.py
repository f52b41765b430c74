"""Project Wycheproof's known answers for the primitives behind records and keys.

Runs where its folder lies beside the checkout, or where WYCHEPROOF names it: the vectors are not ours.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

BESIDE = Path(__file__).resolve().parents[4] / "shared" / "vectors" / "wycheproof"
FOLDER = Path(os.environ.get("WYCHEPROOF", BESIDE))
Vector = dict[str, Any]

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no Wycheproof vectors in {FOLDER}")


class NotOffered(Exception):
    """The library has no way to ask for it."""


def unhex(vector: Vector, *names: str) -> list[bytes]:
    return [bytes.fromhex(vector[name]) for name in names]


def aes_gcm(group: Vector, vector: Vector) -> bytes:
    key, nonce, context, plain, sealed, tag = unhex(vector, "key", "iv", "aad", "msg", "ct", "tag")
    if not 8 <= len(nonce) <= 128:  # the library takes no other; ours have 12
        raise NotOffered
    opened = AESGCM(key).decrypt(nonce, sealed + tag, context)
    assert AESGCM(key).encrypt(nonce, plain, context) == sealed + tag
    return opened if opened != plain else b""


def ed25519(group: Vector, vector: Vector) -> bytes:
    message, signature = unhex(vector, "msg", "sig")
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(group["publicKey"]["pk"])).verify(signature, message)
    return b""


def hkdf(algorithm: hashes.HashAlgorithm) -> Callable[[Vector, Vector], bytes]:
    def derive(group: Vector, vector: Vector) -> bytes:
        secret, salt, info, wanted = unhex(vector, "ikm", "salt", "info", "okm")
        found = HKDF(algorithm, vector["size"], salt, info).derive(secret)
        return b"" if found == wanted else found

    return derive


def x25519(group: Vector, vector: Vector) -> bytes:
    private, public, wanted = unhex(vector, "private", "public", "shared")
    key = X25519PrivateKey.from_private_bytes(private)
    found = key.exchange(X25519PublicKey.from_public_bytes(public))
    return b"" if found == wanted else found


def ml_kem(group: Vector, vector: Vector) -> bytes:
    seed, sealed, wanted = unhex(vector, "seed", "c", "K")
    found = MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(sealed)
    return b"" if found == wanted else found


def ml_kem_key(group: Vector, vector: Vector) -> bytes:
    seed, public = unhex(vector, "seed", "ek")
    found = MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    return b"" if found == public else found


def ml_kem_public(group: Vector, vector: Vector) -> bytes:
    """The library encapsulates with randomness of its own, so only whether it takes the key is checked."""
    MLKEM768PublicKey.from_public_bytes(*unhex(vector, "ek")).encapsulate()
    return b""


FILES: dict[str, tuple[Callable[[Vector, Vector], bytes], int]] = {
    "aes_gcm_test.json": (aes_gcm, 316 - 33),  # 33 have nonces of sizes that nobody should use
    "ed25519_test.json": (ed25519, 151),
    "hkdf_sha256_test.json": (hkdf(hashes.SHA256()), 86),
    "hkdf_sha512_test.json": (hkdf(hashes.SHA512()), 83),
    "x25519_test.json": (x25519, 518),
    "mlkem_768_test.json": (ml_kem, 193),
    "mlkem_768_keygen_seed_test.json": (ml_kem_key, 100),
    "mlkem_768_encaps_test.json": (ml_kem_public, 265),
}


@pytest.mark.parametrize("name", FILES)
def test_every_vector_comes_out_as_it_should(name: str) -> None:
    check, wanted = FILES[name]
    groups = json.loads((FOLDER / name).read_text(encoding="utf-8"))["testGroups"]
    passed = 0
    for group in groups:
        for vector in group["tests"]:
            try:
                ok = check(group, vector) == b""
            except NotOffered:
                continue
            except (InvalidTag, InvalidSignature, ValueError):
                ok = False
            assert vector["result"] in ("acceptable", "valid" if ok else "invalid"), vector["tcId"]
            passed += 1
    assert passed == wanted
