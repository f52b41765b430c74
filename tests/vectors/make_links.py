"""Writes `links.json`: the messages of two devices, for this and any other implementation.

    python -m tests.vectors.make_links > tests/vectors/links.json

A phone admits a laptop and a tablet, then removes the laptop. Seeds and user keys are there, so that all of
it can be opened. Written once per format version: old vectors must be read forever.
"""

import json
from typing import Any

from antefix.crypto.aead import SecretBytes
from antefix.keys import DeviceChange, DeviceKeys, DeviceList, UserKey
from antefix_client.devices import link_request
from antefix_client.devices.welcome import Welcome
from tests.support.records import some_bytes

SEEDS = {name: some_bytes(f"{name} of the links", 64) for name in ("phone", "laptop", "tablet")}
PHONE, LAPTOP, TABLET = map(DeviceKeys, SEEDS.values())
TENANT, USER, PREFIX = (some_bytes(f"{name} of the links", 16) for name in ("tenant", "user", "prefix"))
FINGERPRINT = some_bytes("base of the links", 32)
BASE = "tiny-llama"
FIRST_KEY, SECOND_KEY = (
    UserKey(SecretBytes(bytearray(some_bytes(f"key {epoch} of the links", 32))), epoch) for epoch in (1, 2)
)


def vectors() -> dict[str, Any]:
    """All messages, in hex, in the order in which they are written."""
    first = DeviceList.first(tenant=TENANT, user=USER, device=PHONE)
    laptop = DeviceChange.adding(first, LAPTOP.public, signer=PHONE)
    tablet = DeviceChange.adding(laptop.devices, TABLET.public, signer=PHONE)
    removed = DeviceChange.removing(tablet.devices, LAPTOP.id, key=SECOND_KEY, signer=PHONE)
    sealed = FIRST_KEY.seal_for(LAPTOP.public, tenant=TENANT, user=USER)
    welcome = Welcome(PHONE.id, LAPTOP.id, PREFIX, FINGERPRINT, BASE, sealed, laptop.devices)
    return {
        "format": 1,
        **known(),
        "request": link_request.to_bytes(LAPTOP.public).hex(),
        "first list": first.to_bytes().hex(),
        "welcome": welcome.to_bytes(PHONE).hex(),
        "changes": [change.content.hex() for change in (laptop, tablet, removed)],
    }


def known() -> dict[str, Any]:
    """What the messages are made of."""
    return {
        "seeds": {name: seed.hex() for name, seed in SEEDS.items()},
        "ids": {"phone": PHONE.id.hex(), "laptop": LAPTOP.id.hex(), "tablet": TABLET.id.hex()},
        "tenant": TENANT.hex(),
        "user": USER.hex(),
        "prefix": PREFIX.hex(),
        "fingerprint": FINGERPRINT.hex(),
        "base": BASE,
        "user keys": {"1": FIRST_KEY.secret.data.hex(), "2": SECOND_KEY.secret.data.hex()},
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
