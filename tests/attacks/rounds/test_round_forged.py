"""A server, or somebody in between, wants an update that the user did not agree to: nothing is sent."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from antefix.errors import ReleaseRefused, RoundRefused
from antefix.rounds import Round, RoundKey
from antefix.wire import Release
from antefix.wire.announcement import ReleaseState
from antefix.wire.release import BaseReference
from antefix.wire.signed import Signed
from antefix_client.rounds.local_update import verify_round
from antefix_client.rounds.round_request import RoundRequest
from tests.support.records import some_bytes
from tests.support.server.rounds import KEY, PUBLIC, TENANT, MemoryCoordinator, base, fresh_prefix

MALLORY = Ed25519PrivateKey.from_private_bytes(some_bytes("mallory", 32))
SEEN = ReleaseState(tenant=TENANT, base=base().fingerprint)


@pytest.fixture(scope="module")
def host() -> MemoryCoordinator:
    return MemoryCoordinator({}, fresh_prefix())


def statement(host: MemoryCoordinator, **changed: Any) -> Round:
    key = RoundKey()
    said: dict[str, Any] = {
        "tenant": TENANT,
        "id": key.id.hex(),
        "release": host.latest_release().digest,
        "number": 1,
        "key": key.public.hex(),
        "clip": 1.0,
        "steps": 2,
        "learning_rate": 0.01,
        "until": int(time.time()) + 600,
    }
    return Round(**{**said, **changed})


def asked(host: MemoryCoordinator, stated: Round | None = None, /, **changed: bytes) -> RoundRequest:
    standing, stated = host.latest_release(), stated or statement(host)
    parts = {"release": standing.signed, "round": stated.signed(KEY).to_bytes(), "prefix": standing.prefix}
    return RoundRequest(1, **{**parts, **changed})


def test_an_honest_round_is_believed(host: MemoryCoordinator) -> None:
    assert verify_round(asked(host), PUBLIC, SEEN, 0).release.version == 1


REFUSED: dict[str, Callable[[MemoryCoordinator], RoundRequest]] = {
    "unsigned round": lambda host: asked(host, **_unsigned(host)),
    "round of another key": lambda host: asked(host, round=statement(host).signed(MALLORY).to_bytes()),
    "a release in place of the round": lambda host: asked(host, round=host.latest_release().signed),
    "release of another key": lambda host: asked(host, release=host.releases[-1].signed(MALLORY).to_bytes()),
    "another shared prefix for this device": lambda host: asked(host, prefix=fresh_prefix(8)),
    "a bit of the shared prefix": lambda host: asked(host, prefix=flipped(host.latest_release().prefix)),
    "round of another release": lambda host: asked(host, statement(host, release="0" * 64)),
    "round of another server": lambda host: asked(host, statement(host, tenant="1" * 32)),
    "round that is over": lambda host: asked(host, statement(host, until=int(time.time()) - 3600)),
    "round without an end": lambda host: asked(host, statement(host, until=2**40)),
    "another base": lambda host: asked(host, release=_another_base(host)),
    "nothing": lambda host: asked(host, release=b"", round=b""),
}


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def _unsigned(host: MemoryCoordinator) -> dict[str, bytes]:
    body = statement(host).to_bytes().decode()
    return {"round": Signed(body=body, signature="00" * 64).to_bytes()}


def _another_base(host: MemoryCoordinator) -> bytes:
    other = BaseReference(name="tiny", fingerprint="0" * 64)
    release: Release = host.releases[-1].model_copy(update={"base": other})
    return release.signed(KEY).to_bytes()


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused(what: str, host: MemoryCoordinator) -> None:
    with pytest.raises((RoundRefused, ReleaseRefused)):
        verify_round(REFUSED[what](host), PUBLIC, SEEN, 0)


def test_a_swapped_round_key_is_refused(host: MemoryCoordinator) -> None:
    """Somebody in between puts a key of his own into the signed statement."""
    signed = Signed.parse(asked(host).round)
    body = signed.body.replace(Round.model_validate_json(signed.body).key, RoundKey().public.hex())
    swapped = Signed(body=body, signature=signed.signature).to_bytes()
    with pytest.raises(ReleaseRefused, match="not signed"):
        verify_round(asked(host, round=swapped), PUBLIC, SEEN, 0)


def test_an_older_release_is_refused(host: MemoryCoordinator) -> None:
    with pytest.raises(RoundRefused, match="release 1, the last one was about 2"):
        verify_round(asked(host), PUBLIC, SEEN, 2)


def test_two_releases_of_one_version_are_refused(host: MemoryCoordinator) -> None:
    seen = SEEN.model_copy(update={"versions": ((1, "0" * 64),)})
    with pytest.raises(ReleaseRefused, match="version 1 has digest"):
        verify_round(asked(host), PUBLIC, seen, 0)


def test_a_withdrawn_release_is_refused(host: MemoryCoordinator) -> None:
    with pytest.raises(ReleaseRefused, match="withdrawn"):
        verify_round(asked(host), PUBLIC, SEEN.model_copy(update={"withdrawn": (1,)}), 0)


@pytest.mark.parametrize(
    ("name", "value"), [("steps", 10**6), ("clip", float("nan")), ("learning_rate", 1e9)]
)
def test_a_round_out_of_bounds_cannot_be_signed_or_read(
    name: str, value: float, host: MemoryCoordinator
) -> None:
    with pytest.raises(ValueError, match=name):
        statement(host, **{name: value})


@pytest.mark.parametrize("cut", [0, 3, 19, 20, 100])
def test_a_message_that_is_cut_off_is_refused(cut: int, host: MemoryCoordinator) -> None:
    content = asked(host).to_bytes()
    assert RoundRequest.from_bytes(content) == asked(host, **parts_of(content))
    with pytest.raises(RoundRefused):
        RoundRequest.from_bytes(content[:cut])
    with pytest.raises(RoundRefused):
        RoundRequest.from_bytes(content + b"x")


def parts_of(content: bytes) -> dict[str, bytes]:
    found = RoundRequest.from_bytes(content)
    return {"release": found.release, "round": found.round, "prefix": found.prefix}
