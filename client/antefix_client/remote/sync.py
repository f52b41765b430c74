"""One sync of a profile with its server: first the list of devices, then the newest version."""

from __future__ import annotations

import re
from dataclasses import dataclass

from antefix.errors import DeviceListRefused
from antefix.keys import DeviceChange
from antefix.records import read_header
from antefix_client.devices import device_changes
from antefix_client.devices.conflicts import open_conflicts
from antefix_client.errors import ServerRefused
from antefix_client.model import PersonalModel
from antefix_client.profile.profile import Profile
from antefix_client.profile.version_history import MAX_AHEAD, Version, now
from antefix_client.remote.api_client import ApiClient, unexpected_answer

_TRIES = 3
_MOST_CHANGES = 1000
_TAG = re.compile(r'"(\d{1,19})-(\d{1,10})-([0-9a-f]{64})"', re.ASCII)


@dataclass(frozen=True)
class RemoteRecord:
    """What the server has, as it says itself.

    Attributes:
        version: 0 for none.
        epoch: of the user key.
        digest: hex digits.
    """

    version: int = 0
    epoch: int = 0
    digest: str = ""

    @classmethod
    def of(cls, tag: str | None) -> RemoteRecord:
        """By its tag.

        Raises:
            ServerRefused: a tag that the gateway does not make.
        """
        found = None if tag is None else _TAG.fullmatch(tag)
        if found is not None:
            return cls(int(found[1]), int(found[2]), found[3])
        if tag is None:
            return cls()
        raise unexpected_answer()


def sync_device_list(model: PersonalModel, remote: ApiClient) -> None:
    """Take over what other devices have changed in the list, and hand on what this one has.

    Raises:
        DeviceRemoved: this device is not on it any more.
        DeviceListRefused: two devices changed it at once, and the other one's came first; or it is forged.
        DeviceRefused, ServerUnreachable, ServerRefused.
    """
    for _ in range(_TRIES):
        for _ in range(_MOST_CHANGES):
            if not _one_taken(model, remote):
                break
        if _handed_on(model, remote):
            return
    raise ServerRefused("another device of yours changes the list of devices, too", "try again in a moment")


def _one_taken(model: PersonalModel, remote: ApiClient) -> bool:
    """Whether there was a change after the list that is known here; it is taken over."""
    with model.locked() as profile:
        version = profile.keys.devices.version
    content = remote.change(version + 1)
    if content is None:
        return False
    with model.locked() as profile:
        if profile.keys.devices.version == version:
            try:
                device_changes.apply(profile, content)
            except DeviceListRefused:
                if version == 1 and not device_changes.pending(profile):
                    return False  # not linked yet: it is of the devices that this one may join
                raise
            device_changes.save_pending(profile, [])  # who made that one knows ours
    return True


def _handed_on(model: PersonalModel, remote: ApiClient) -> bool:
    with model.locked() as profile:
        waiting = device_changes.pending(profile)
    for content in waiting:
        version = DeviceChange.version_of(content)
        there = remote.change(version)
        if there is None and not remote.add_change(content):
            return False
        if there not in (None, content):
            raise DeviceListRefused(
                f"another device of yours has made version {version} of it at the same time; "
                "this device can only go on as a new profile, linked again"
            )
        with model.locked() as profile:
            device_changes.save_pending(
                profile, [one for one in device_changes.pending(profile) if one != content]
            )
    return True


def is_stale(profile: Profile, record: bytes) -> bool:
    """Whether a record is under a user key of before: of a device that has not heard of the new one.

    Or of the removed one: nobody here could tell, and its key is gone.
    """
    return read_header(record).epoch < profile.keys.user_key.epoch


def record_to_upload(profile: Profile, stored: RemoteRecord) -> tuple[bool, bytes | None]:
    """Whether a choice is waited for; and the version in use, where the server should have it.

    It should where it has none that is as new, and where what it has is under a user key of before. A version
    there that nobody here can open any more is passed over: the number after the next one replaces it.
    """
    newest = profile.history.newest
    waits = bool(open_conflicts(profile.history))
    if newest is None or waits:
        return waits, None
    behind = stored.version > 0 and stored.epoch < profile.keys.user_key.epoch
    if newest.number <= stored.version and not behind:
        return waits, None
    follows = newest.number == stored.version + 1 and profile.history.previous(newest) == stored.digest
    passes = newest.number > stored.version + 1 or newest.digest == stored.digest
    if behind and not (follows or passes):
        newest = _passing_over(profile, newest, stored.version)
    return waits, profile.history.record(newest)


def _passing_over(profile: Profile, newest: Version, stored: int) -> Version:
    if stored > profile.history.next_number + MAX_AHEAD:
        raise ServerRefused(f"the server says that version {stored} is stored", "ask its operator")
    with profile.open_version(newest) as opened:
        again = newest.model_copy(update={"how": "rolled back", "of": newest.number, "made": now()})
        shape = opened.edition.address.shape
        return profile.add_version(bytes(opened.payload), shape, again, least=stored + 2)
