"""Receiving a version of another device of the same user."""

from __future__ import annotations

from antefix.common.validation import require
from antefix.errors import RecordMismatch
from antefix.records import open_record, read_header
from antefix_client.errors import BaseChanged
from antefix_client.profile.profile import Profile
from antefix_client.profile.version_history import MAX_AHEAD, Version, VersionHistory, utc_now


def receive(profile: Profile, record: bytes) -> Version:
    """Keep a version of another device; see `PersonalModel.receive`.

    Args:
        profile: of this device; its base was loaded once.
        record: bytes from anywhere.
    """
    require(record, bytes, "the record")
    version, previous = _opened(profile, record, profile.manifest.fingerprint or "")
    history = profile.history
    for known in history.versions:
        if known.digest == version.digest:
            return known
    _require_place(history, version)
    placed = version.model_copy(update={"beside": _is_beside(history, version, previous)})
    history.add(placed, record)
    _catch_up(history)
    return placed


def _opened(profile: Profile, record: bytes, base: str) -> tuple[Version, str]:
    """What a record is, and the digest of the version before; nothing is believed before it has opened.

    Raises:
        BaseChanged: of another base.
        RecordMismatch: another user's, or of a device that is not on the list.
        RecordRefused: it does not open, or what is in it is no prefix.
    """
    place = read_header(record).edition.address
    if place.base.hex() != base:
        raise BaseChanged(
            f"the record is for base {place.base.hex()[:16]}…, this profile is for {base[:16]}…",
            "use the same base on both devices",
        )
    keys = profile.keys
    address = profile.prefixes.address(base, place.shape)
    with open_record(record, address, key=keys.user_key, writers=keys.devices.writers) as opened:
        length = opened.prefix().length  # before it is kept: what is no prefix must never come into use
        number, previous = opened.edition.version, opened.edition.previous.hex()
        digest = opened.digest.hex()
    found = Version(number=number, made=utc_now(), how="received", length=length, base=base, digest=digest)
    return found, previous


def _require_place(history: VersionHistory, version: Version) -> None:
    """Refuse what is older than all that is kept: it would be dropped at once, or was.

    Nor may a device of ours, once taken over, use up all numbers.
    """
    oldest = min(
        (kept.number for kept in history.versions if not kept.beside), default=history.state.past + 1
    )
    max_number = history.next_number + MAX_AHEAD
    if version.number > max_number:
        raise RecordMismatch(
            f"the record is version {version.number}, the newest here is {history.next_number - 1}",
            f"numbers go up one by one, to {max_number} at most; remove the device that made it",
        )
    if version.number < oldest:
        raise RecordMismatch(
            f"the record is version {version.number}, the oldest that is kept here is {oldest}",
            "it is as it was on the device that made it; send its newest: antefix export --what record",
        )


def _is_beside(history: VersionHistory, version: Version, previous: str) -> bool:
    """Whether a version that is not kept yet is beside our line, and not a part of it."""
    newest = history.newest
    if newest is None:
        return False
    if version.number > newest.number:
        # What is between is on the other device, and so is our newest: nothing made here is passed over.
        gap = newest.how == "received" and version.number > newest.number + 1
        return previous != newest.digest and not gap
    own = {other.number: other for other in history.versions if not other.beside}
    after = own.get(version.number + 1)
    late = version.number not in own and after is not None and history.previous(after) == version.digest
    return not late


def _catch_up(history: VersionHistory) -> None:
    """Take into our line what was beside it only because the version between came later."""
    while (newest := history.newest) is not None:
        later = [other for other in history.versions if other.beside and other.number > newest.number]
        following = [other for other in later if history.previous(other) == newest.digest]
        if not following:
            return
        history.add(following[0].model_copy(update={"beside": False}), history.record(following[0]))
