"""Records that were written once must open, or be refused, forever and everywhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from antefix.crypto.aead import SecretBytes
from antefix.errors import RecordMismatch, RecordRefused
from antefix.keys import UserKey
from antefix.records import Address, Expected, OpenedRecord, open_record
from tests.vectors import make

FILE = json.loads((Path(__file__).parents[2] / "vectors" / "records.json").read_text())
VECTORS = {vector["name"]: FILE["defaults"] | vector for vector in FILE["vectors"]}
REFUSALS = {"mismatch": RecordMismatch, "refused": RecordRefused}


def opened(vector: dict[str, Any]) -> OpenedRecord:
    def raw(name: str) -> bytes:
        return bytes.fromhex(vector[name])

    address = Address(raw("tenant"), raw("user"), raw("prefix"), raw("base"), raw("shape"))
    digest, previous = (vector[name] and raw(name) for name in ("digest", "previous"))
    return open_record(
        raw("record"),
        address,
        key=UserKey(SecretBytes(bytearray(raw("user_key"))), vector["epoch"]),
        writers={
            bytes.fromhex(device): Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
            for device, public in vector["writers"].items()
        },
        known=Expected(vector["min_version"], digest, previous),
    )


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_does_what_it_says(name: str) -> None:
    vector = VECTORS[name]
    if vector["expect"] == "opens":
        assert opened(vector).payload.hex() == vector["payload"]
        return
    with pytest.raises(REFUSALS[vector["expect"]]):
        opened(vector)


def test_the_script_still_makes_these_vectors() -> None:
    assert make.defaults() == FILE["defaults"]
    assert summary(list(make.vectors())) == summary(FILE["vectors"])
    assert len(VECTORS) == len(FILE["vectors"]) >= 35


def summary(vectors: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(vector["name"], vector["expect"]) for vector in vectors]
