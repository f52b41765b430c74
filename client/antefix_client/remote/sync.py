"""One sync of a profile with its server: first the list of devices, then the newest version."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from antefix.errors import DeviceListRefused
from antefix.keys import DeviceChange
from antefix.records import read_header
from antefix_client.devices import device_changes
from antefix_client.devices.conflicts import open_conflicts
from antefix_client.errors import DeviceRefused, ServerRefused
from antefix_client.profile.profile import Profile
from antefix_client.profile.session import ProfileSession
from antefix_client.profile.version_history import MAX_AHEAD, Version, utc_now
from antefix_client.remote.api_client import ApiClient, unexpected_answer
from antefix_client.remote.grants import renew_if_due
from antefix_client.remote.server_session import ServerSession

_TRIES = 3
_MAX_CHANGES = 1000
_TAG = re.compile(r'"(\d{1,19})-(\d{1,10})-([0-9a-f]{64})"', re.ASCII)


@dataclass(frozen=True)
class SyncResult:
    """What a sync did.

    Attributes:
        received: version that came from another device; None for none.
        sent: version that went out; None for none.
        conflict: another device's version waits for a choice (`PersonalModel.roll_back`).
        granted: version that was granted anew, where the user wants that (`Granting.grant`).
        problem: why one was not that should have been; empty for no reason.
    """

    received: str | None = None
    sent: int | None = None
    conflict: bool = False
    granted: int | None = None
    problem: str = ""


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
    def from_tag(cls, tag: str | None) -> RemoteRecord:
        """Read the tag of a record; None is that of no record.

        Raises:
            ServerRefused: a tag that the gateway does not make.
        """
        if tag is None:
            return cls()
        fields = _TAG.fullmatch(tag)
        if fields is None:
            raise unexpected_answer()
        return cls(int(fields[1]), int(fields[2]), fields[3])


class DeviceSync:
    """Keeps the sealed versions of all devices of a user alike."""

    def __init__(self, server: ServerSession) -> None:
        """Ask nobody yet."""
        self._server, self._session = server, server.model.session

    def sync(self, *, renew_grants: bool = True) -> SyncResult:
        """Take what another device has learned, and hand on what this one has; see `Membership.sync`.

        Args:
            renew_grants: then grant anew what is due.
        """
        try:
            with self._server.connect() as api:
                result = self._exchange(api)
                if renew_grants:
                    renewal = renew_if_due(self._server, api)
                    result = replace(result, granted=renewal.version, problem=renewal.problem)
        except DeviceRefused:
            self._server.update(refused=True)
            raise
        if self._server.state().refused:
            self._server.update(refused=False)
        return result

    def _exchange(self, api: ApiClient) -> SyncResult:
        sync_device_list(self._session, api)
        received = None
        for _ in range(_TRIES):
            with self._server.locked() as (profile, state):
                prefix, known_tag = profile.keys.prefix, state.known
            record, tag = api.record(prefix, known_tag)
            if record is not None:
                received = self._receive(record) or received
                self._server.update(known=tag)
            stored = RemoteRecord.from_tag(tag)
            with self._session.locked() as profile:
                conflict, upload = record_to_upload(profile, stored)
            if upload is None:
                return SyncResult(received, None, conflict)
            if api.put(prefix, upload, stored.version):
                return SyncResult(received, read_header(upload).edition.version, conflict)
        raise ServerRefused("another device of yours writes at the same time", "try again in a moment")

    def _receive(self, record: bytes) -> str | None:
        """Name of the version, where it is new."""
        with self._session.locked() as profile:
            if is_stale(profile, record):
                return None
            before = {version.digest for version in profile.history.versions}
        version = self._server.model.receive(record)
        return None if version.digest in before else version.name


def sync_device_list(session: ProfileSession, api: ApiClient) -> None:
    """Take over what other devices have changed in the list, and hand on what this one has.

    Raises:
        DeviceRemoved: this device is not on it any more.
        DeviceListRefused: two devices changed it at once, and the other one's came first; or it is forged.
        DeviceRefused, ServerUnreachable, ServerRefused.
    """
    for _ in range(_TRIES):
        for _ in range(_MAX_CHANGES):
            if not _apply_next(session, api):
                break
        if _upload_pending(session, api):
            return
    raise ServerRefused("another device of yours changes the list of devices, too", "try again in a moment")


def _apply_next(session: ProfileSession, api: ApiClient) -> bool:
    """Whether there was a change after the list that is known here; it is taken over."""
    with session.locked() as profile:
        version = profile.keys.devices.version
    content = api.change(version + 1)
    if content is None:
        return False
    with session.locked() as profile:
        if profile.keys.devices.version == version:
            try:
                device_changes.apply(profile, content)
            except DeviceListRefused:
                if version == 1 and not device_changes.pending(profile):
                    return False  # not linked yet: it is of the devices that this one may join
                raise
            device_changes.save_pending(profile, [])  # who made that one knows ours
    return True


def _upload_pending(session: ProfileSession, api: ApiClient) -> bool:
    """Whether the server has all that was changed here; else another device was faster."""
    with session.locked() as profile:
        pending = device_changes.pending(profile)
    for content in pending:
        version = DeviceChange.version_of(content)
        stored = api.change(version)
        if stored is None and not api.add_change(content):
            return False
        if stored not in (None, content):
            raise DeviceListRefused(
                f"another device of yours has made version {version} of it at the same time; "
                "this device can only go on as a new profile, linked again"
            )
        with session.locked() as profile:
            left = [change for change in device_changes.pending(profile) if change != content]
            device_changes.save_pending(profile, left)
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
    conflict = bool(open_conflicts(profile.history))
    if newest is None or conflict:
        return conflict, None
    stale = stored.version > 0 and stored.epoch < profile.keys.user_key.epoch
    if newest.number <= stored.version and not stale:
        return conflict, None
    follows = newest.number == stored.version + 1 and profile.history.previous(newest) == stored.digest
    passes = newest.number > stored.version + 1 or newest.digest == stored.digest
    if stale and not (follows or passes):
        newest = _seal_past(profile, newest, stored.version)
    return conflict, profile.history.record(newest)


def _seal_past(profile: Profile, newest: Version, stored: int) -> Version:
    """Seal the version in use again, under a number that passes over the one that is stored."""
    if stored > profile.history.next_number + MAX_AHEAD:
        raise ServerRefused(f"the server says that version {stored} is stored", "ask its operator")
    with profile.prefixes.open(newest) as opened:
        again = newest.model_copy(update={"how": "rolled back", "of": newest.number, "made": utc_now()})
        shape = opened.edition.address.shape
        return profile.prefixes.add(bytes(opened.payload), shape, again, min_number=stored + 2)
