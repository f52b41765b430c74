"""Releases for tests, signed by a server's key that is the same each time."""

import functools
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from antefix.wire.announcement import Announcement, CurrentRelease, ReleaseOffer, ReleaseState
from antefix.wire.release import BaseFile, BaseReference, Release
from tests.support.records import some_bytes

TENANT = "ab" * 16
BASE = "cd" * 32


@functools.cache
def key(name: str = "server") -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(some_bytes(f"release key of {name}", 32))


def public(name: str = "server") -> bytes:
    return key(name).public_key().public_bytes_raw()


def a_release(version: int = 1, **changes: Any) -> Release:
    plain: dict[str, Any] = {
        "tenant": TENANT,
        "version": version,
        "created": 1_800_000_000,
        "base": BaseReference(name="tiny", fingerprint=BASE),
    }
    return Release(**{**plain, **changes})


def a_file(name: str = "config.json", **changes: Any) -> BaseFile:
    return BaseFile(**{"name": name, "size": 3, "sha256": "ef" * 32, **changes})


def announced(release: Release | None, serial: int = 1, **changes: Any) -> Announcement:
    current = None if release is None else CurrentRelease(version=release.version, digest=release.digest)
    plain: dict[str, Any] = {"tenant": TENANT, "serial": serial, "issued": 1_800_000_000, "current": current}
    return Announcement(**{**plain, **changes})


def offered(release: Release | None, serial: int = 1, signer: str = "server", **changes: Any) -> ReleaseOffer:
    announcement = announced(release, serial, **changes).signed(key(signer))
    return ReleaseOffer(
        announcement=announcement, release=None if release is None else release.signed(key(signer))
    )


def unseen(**changes: Any) -> ReleaseState:
    return ReleaseState(**{"tenant": TENANT, **changes})
