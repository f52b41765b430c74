"""A release that nobody signed, or somebody else: a proxy, a mirror, another server."""

import pytest

from antefix.errors import ReleaseRefused
from antefix.wire import Announcement, Release, Signed
from antefix.wire.announcement import ReleaseOffer
from tests.support.releases import a_release, announced, key, offered, public, unseen

NOT_SIGNED = "not signed by this server"


def test_nothing_unsigned_is_taken() -> None:
    zeros = "00" * 64
    for genuine in (offered(a_release()), offered(None)):
        unsigned = genuine.announcement.model_copy(update={"signature": zeros})
        with pytest.raises(ReleaseRefused, match=NOT_SIGNED):
            unseen().accepting(genuine.model_copy(update={"announcement": unsigned}), public())


def test_the_signature_of_another_server_is_none() -> None:
    with pytest.raises(ReleaseRefused, match=NOT_SIGNED):
        unseen().accepting(offered(a_release(), signer="thief"), public())


def test_a_genuine_announcement_carries_no_forged_release() -> None:
    genuine, forged = offered(a_release()), a_release(note="take this one")
    for release in (forged.signed(key("thief")), forged.signed(key()), a_release(2).signed(key())):
        swapped = genuine.model_copy(update={"release": release})
        with pytest.raises(ReleaseRefused):
            unseen().accepting(swapped, public())
    with pytest.raises(ReleaseRefused, match="not the one that is announced"):
        unseen().accepting(genuine.model_copy(update={"release": None}), public())
    bare = ReleaseOffer(announcement=offered(None).announcement, release=genuine.release)
    with pytest.raises(ReleaseRefused, match="not the one that is announced"):
        unseen().accepting(bare, public())


def test_a_signature_of_one_kind_serves_for_no_other() -> None:
    release, announcement = a_release().signed(key()), announced(a_release()).signed(key())
    with pytest.raises(ReleaseRefused, match=NOT_SIGNED):
        Release.verified(announcement, public())
    with pytest.raises(ReleaseRefused, match=NOT_SIGNED):
        Announcement.verified(release, public())
    body = release.body
    bare = Signed(body=body, signature=key().sign(body.encode()).hex())
    with pytest.raises(ReleaseRefused, match=NOT_SIGNED):
        Release.verified(bare, public())


def test_a_release_of_another_tenant_is_refused_though_its_key_is_the_same() -> None:
    seen = unseen(tenant="99" * 16)
    for of_another in (offered(a_release()), offered(None)):
        with pytest.raises(ReleaseRefused, match="of server abab"):
            seen.accepting(of_another, public())
    with pytest.raises(ReleaseRefused, match="of server 9999"):
        unseen().accepting(offered(a_release(tenant="99" * 16)), public())


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"null", b"\xff", b'{"announcement":{"body":"\\ud800","signature":""}}', b"[[[["]
)
def test_rubbish_is_refused_as_a_release_is(content: bytes) -> None:
    with pytest.raises(ReleaseRefused):
        ReleaseOffer.parse(content)
