"""Writes `records.json`: records and what must come of them, for this and any other implementation.

    python -m tests.vectors.make > tests/vectors/records.json

Every vector has one thing wrong, or nothing. A record is kept whole, in hex; fields that are the same in
most vectors stand once, in `defaults`. Written once per format version: old vectors must open forever.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from antefix.crypto.aead import encrypt
from antefix.keys import DeviceKeys
from antefix.records import RecordVersion, digest_of, rewrap
from antefix.records.header import BODY_OFFSET, HEADER_BYTES, signed
from tests.support.records import Owner, some_bytes

ANN, EVE = Owner.named("ann"), Owner.named("eve")
PAYLOAD = some_bytes("payload", 20)
RECORD = ANN.seal(PAYLOAD)


def again(record: bytes | bytearray, device: DeviceKeys = ANN.device) -> bytes:
    """The record with a good signature."""
    header, body = bytes(record[:HEADER_BYTES]), bytes(record[BODY_OFFSET:])
    return header + device.sign(signed(header, hashlib.sha256(body).digest())) + body


def flipped(at: int) -> bytearray:
    """One bit changed."""
    changed = bytearray(RECORD)
    changed[at] ^= 1
    return changed


def vectors() -> Iterator[dict[str, Any]]:
    """Name, record, what is expected, and fields that differ from the defaults."""
    yield opens("first version", RECORD)
    second = ANN.seal(b"two", 2, digest_of(RECORD))
    known = {"min_version": 2, "digest": digest_of(second).hex(), "previous": digest_of(RECORD).hex()}
    yield opens("second version, all known", second, payload=b"two".hex(), **known)
    yield opens("no payload", ANN.seal(b""), payload="")
    yield opens("payload fills a bucket", ANN.seal(bytes(4092)), payload=bytes(4092).hex())
    new = ANN.key.rotated()
    rotated = rewrap(RECORD, ANN.address, old=ANN.key, new=new, device=ANN.device, writers=ANN.writers)
    yield opens("another epoch", rotated, user_key=new.secret.data.hex(), epoch=2)
    yield mismatch("too short", RECORD[: BODY_OFFSET - 1])
    yield mismatch("magic", again(flipped(7)))
    yield mismatch("suite", again(flipped(9)))
    yield mismatch("body cut", again(RECORD[:-1]))
    yield mismatch("body longer", again(RECORD + b"\0"))
    for field, value in asdict(ANN.address).items():
        yield mismatch(field, RECORD, **{field: some_bytes("other", len(value)).hex()})
    yield mismatch("older version", RECORD, min_version=2)
    yield mismatch("another digest", RECORD, digest=digest_of(second).hex())
    yield mismatch("another history", second, previous=digest_of(second).hex())
    yield mismatch("epoch of another user key", RECORD, epoch=2)
    yield mismatch("writer unknown", Owner("ann", ANN.address, ANN.key, EVE.device).seal(PAYLOAD))
    for name, at in (("tenant", 10), ("user", 26), ("prefix", 42), ("base", 66), ("shape", 98)):
        size = len(getattr(ANN.address, name))
        moved = again(RECORD[:at] + some_bytes("other", size) + RECORD[at + size :])
        yield refused(f"moved to another {name}", moved, **{name: some_bytes("other", size).hex()})
    yield refused("signature", flipped(300))
    yield refused("signature of another device", again(RECORD, EVE.device))
    yield refused("wrapped key", again(flipped(186 + 60)))
    yield refused("wrapped key of another user key", RECORD, user_key=some_bytes("other", 32).hex())
    yield refused("body salt", again(flipped(BODY_OFFSET)))
    yield refused("body commitment", again(flipped(BODY_OFFSET + 30)))
    yield refused("body content", again(flipped(BODY_OFFSET + 100)))
    yield refused("body tag", again(flipped(len(RECORD) - 1)))
    yield refused("body of another version", again(second[:BODY_OFFSET] + RECORD[BODY_OFFSET:]))
    yield from badly_padded()


def badly_padded() -> Iterator[dict[str, Any]]:
    """Rightly encrypted and signed, wrong inside."""
    edition, key = RecordVersion(ANN.address, 1, bytes(32)), some_bytes("data key", 32)
    wrap_context = edition.context(b"data key", (1).to_bytes(4, "big"))
    plains = {
        "length beyond the end": (4093).to_bytes(4, "big") + bytes(4092),
        "a byte in the padding": bytes(4095) + b"\1",
        "more padding than a bucket": bytes(8192),
        "no room for a length": b"\0\0\0",
    }
    for name, plain in plains.items():
        body = encrypt(key, edition.context(b"body"), plain)
        wrapped = encrypt(ANN.key.secret.data, wrap_context, key)
        header = edition.core(len(body)) + (1).to_bytes(4, "big") + ANN.device.id + wrapped
        yield refused(name, again(header + bytes(64) + body))
    body = encrypt(key[:31] + b"\0", edition.context(b"body"), bytes(4096))
    short = encrypt(ANN.key.secret.data, wrap_context, key[:31]) + b"\0"
    header = edition.core(len(body)) + (1).to_bytes(4, "big") + ANN.device.id + short
    yield refused("a data key of 31 bytes", again(header + bytes(64) + body))


def opens(name: str, record: bytes, **fields: Any) -> dict[str, Any]:
    return {"name": name, "expect": "opens", "record": record.hex(), **fields}


def mismatch(name: str, record: bytes, **fields: Any) -> dict[str, Any]:
    return {"name": f"mismatch: {name}", "expect": "mismatch", "record": record.hex(), **fields}


def refused(name: str, record: bytes | bytearray, **fields: Any) -> dict[str, Any]:
    return {"name": f"refused: {name}", "expect": "refused", "record": bytes(record).hex(), **fields}


def defaults() -> dict[str, Any]:
    """Fields of a vector that does not say otherwise."""
    return {
        **{name: value.hex() for name, value in asdict(ANN.address).items()},
        "user_key": ANN.key.secret.data.hex(),
        "epoch": 1,
        "writers": {ANN.device.id.hex(): ANN.device.public.signing_bytes.hex()},
        "min_version": 1,
        "digest": None,
        "previous": None,
        "payload": PAYLOAD.hex(),
    }


if __name__ == "__main__":
    print(json.dumps({"format": 1, "defaults": defaults(), "vectors": list(vectors())}, indent=1))
