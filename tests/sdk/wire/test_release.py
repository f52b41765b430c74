"""Releases: one form, one digest, and what a device takes after what it has seen."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antefix.errors import ReleaseRefused
from antefix.wire import Announcement, Release, ReleaseState, Signed
from antefix.wire.announcement import ReleaseOffer
from antefix.wire.release import Privacy, SharedPrefix
from antefix.wire.signed import MAX_BYTES
from tests.support.releases import BASE, TENANT, a_file, a_release, announced, key, offered, public, unseen
from tests.support.trial_counts import thorough

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
COUNTS = st.integers(1, 2**53 - 1)
AMOUNTS = st.floats(0, 1e300)
NAMES = st.from_regex(r"\A[A-Za-z0-9][a-z0-9_-]{0,20}\.(json|safetensors|txt)\Z")
FILES = st.lists(
    st.builds(
        a_file, NAMES, size=COUNTS, sha256=HEX, sources=st.sampled_from([(), ("https://a.example/x",)])
    ),
    max_size=4,
    unique_by=lambda one: one.name.lower(),
)
RELEASES = st.builds(
    a_release,
    COUNTS,
    files=FILES.map(tuple),
    shared=st.none() | st.builds(SharedPrefix, sha256=HEX, size=COUNTS, layout=HEX),
    previous=st.none() | HEX,
    privacy=st.none()
    | st.builds(
        Privacy, epsilon=AMOUNTS, delta=AMOUNTS, rounds=COUNTS, noise=AMOUNTS, clip=AMOUNTS, users=COUNTS
    ),
    note=st.text(max_size=50).filter(lambda text: text.isprintable()),
)
FEWER = settings(max_examples=thorough(40, 400), deadline=None)  # to draw a release takes long


@pytest.mark.slow
@FEWER
@given(RELEASES)
def test_what_is_signed_is_what_is_read(release: Release) -> None:
    signed = release.signed(key())
    read = Release.verified(Signed.parse(signed.to_bytes()), public())
    assert read == release
    assert read.digest == release.digest


@pytest.mark.slow
@FEWER
@given(RELEASES, RELEASES)
def test_two_releases_have_two_digests(one: Release, other: Release) -> None:
    assert (one.digest == other.digest) == (one == other)


@pytest.mark.slow
@FEWER
@given(RELEASES, st.data())
def test_a_changed_character_is_refused(release: Release, data: st.DataObject) -> None:
    signed = release.signed(key())
    at = data.draw(st.integers(0, len(signed.body) - 1))
    put = data.draw(st.characters().filter(lambda one: one != signed.body[at]))
    forged = signed.model_copy(update={"body": signed.body[:at] + put + signed.body[at + 1 :]})
    with pytest.raises(ReleaseRefused):
        Release.verified(forged, public())


def test_the_canonical_form_is_pinned() -> None:
    """Another implementation must come to the same digest."""
    assert announced(None).to_bytes() == (
        b'{"current":null,"issued":1800000000,"serial":1,"tenant":"' + TENANT.encode() + b'","withdrawn":[]}'
    )
    assert a_release(note="é").to_bytes() == (
        b'{"base":{"fingerprint":"' + BASE.encode() + b'","name":"tiny"},"created":1800000000,"files":[],'
        b'"note":"\\u00e9","previous":null,"privacy":null,"shared":null,"tenant":"'
        + TENANT.encode()
        + b'","version":1}'
    )


def test_a_release_is_no_announcement() -> None:
    """Each kind has its label: a signature of one says nothing about the other."""
    with pytest.raises(ReleaseRefused, match="not signed by this server"):
        Announcement.verified(a_release().signed(key()), public())


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1"},
        {"version": True},
        {"version": 1.0},
        {"version": 0},
        {"version": 2**53},
        {"more": 1},
        {"tenant": TENANT.upper()},
        {"tenant": TENANT + "\n"},
        {"files": None},
        {"note": "x" * 2001},
        {"note": "\x1b[2J"},
        {"privacy": {}},
    ],
)
def test_odd_fields_are_refused_though_they_are_signed(change: dict[str, Any]) -> None:
    fields = json.loads(a_release().to_bytes()) | change
    body = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    signed = Signed(body=body, signature=key().sign(Release.label + body.encode()).hex())
    with pytest.raises(ReleaseRefused) as caught:
        Release.verified(signed, public())
    assert "xxx" not in str(caught.value)


def test_another_form_of_the_same_content_is_refused() -> None:
    body = a_release().to_bytes().decode()
    for other in (body.replace(',"note"', ', "note"'), body.replace("{", '{"version":9,', 1), body + "\n"):
        signed = Signed(body=other, signature=key().sign(Release.label + other.encode()).hex())
        with pytest.raises(ReleaseRefused, match="canonical"):
            Release.verified(signed, public())


def test_what_is_too_large_is_refused_unread() -> None:
    with pytest.raises(ReleaseRefused, match="are allowed"):
        Signed.parse(b"[" * (2 * MAX_BYTES + 1))
    with pytest.raises(ReleaseRefused, match="are allowed"):
        ReleaseOffer.parse(b"[" * (4 * MAX_BYTES + 1))
    with pytest.raises(ReleaseRefused):
        Signed.parse(b"[" * (2 * MAX_BYTES))
    files = tuple(a_file(f"{n:04}{'n' * 100}.json", sources=("https://a/" + "x" * 900,)) for n in range(1000))
    with pytest.raises(ReleaseRefused, match="1,048,576 are allowed"):
        a_release(files=files).signed(key())


def test_a_device_takes_what_is_new_and_the_same_again() -> None:
    first, second = a_release(1), a_release(2, previous=a_release(1).digest)
    seen, taken = unseen().accepting(offered(first, 1), public())
    assert taken == first
    assert seen.accepting(offered(first, 1), public()) == (seen, first)
    seen, taken = seen.accepting(offered(second, 2), public())
    assert taken == second
    seen, taken = seen.accepting(offered(first, 3, withdrawn=(2,)), public())  # the second was a mistake
    assert taken == first
    assert (seen.serial, seen.withdrawn, [version for version, _ in seen.versions]) == (3, (2,), [1, 2])
    with pytest.raises(ReleaseRefused, match="version 2 is withdrawn"):
        seen.require_usable(second)
    seen, taken = seen.accepting(offered(None, 4, withdrawn=(1, 2)), public())
    assert taken is None
    assert ReleaseState.model_validate_json(seen.model_dump_json()) == seen


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(0, 1)), max_size=30))
def test_a_device_never_goes_back_and_never_sees_two_of_one(steps: list[tuple[int, int, int]]) -> None:
    """Whatever comes in whatever order: serial, version, and one of two variants of that version."""
    seen = unseen()
    serials: dict[int, tuple[int, int]] = {}
    variants: dict[int, int] = {}
    highest = 0
    for serial, version, variant in steps:
        fits = serial > highest or (serial == highest and serials[serial] == (version, variant))
        fits = fits and variants.get(version, variant) == variant
        offer = offered(a_release(version, note=str(variant)), serial)
        if not fits:
            with pytest.raises(ReleaseRefused):
                seen.accepting(offer, public())
            continue
        seen, _ = seen.accepting(offer, public())
        highest, serials[serial], variants[version] = serial, (version, variant), variant
        assert seen.serial == highest


def test_the_memory_of_versions_is_bounded() -> None:
    seen = unseen()
    for version in range(1, 1201):
        seen = seen.with_release(a_release(version))
    assert [version for version, _ in seen.versions] == list(range(201, 1201))
