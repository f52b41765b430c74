"""Grants as a device gives them: asked for by its user, or anew because the user wants that.

Anew happens in a sync, and only after `antefix grant --keep`: when the version in use is another one than was
granted, when half of a grant's time is over, or when the server has it no more because its key went. It never
happens after something was revoked, here or elsewhere: the server is told how many revocations this device
knows of, and takes nothing where there were more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from antefix.errors import GrantRefused, ReleaseRefused
from antefix.grants import Epoch, issue_grant
from antefix.records import read_header
from antefix.wire import Signed
from antefix_client.devices.conflicts import open_conflicts
from antefix_client.errors import ServerRefused
from antefix_client.model import PersonalModel
from antefix_client.profile.profile import Profile
from antefix_client.profile.version_history import Version
from antefix_client.remote.api_client import Remote, not_understood
from antefix_client.remote.server_state import Keeping, Member

REVOKED = "grants were taken back since this device last granted, so it grants no more by itself"
_GRANTING = threading.Lock()  # a profile is open in one process


class Shown(BaseModel):
    """A grant as the server shows it."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    id: str
    version: int
    device: str
    since: int
    until: int


class _Revoked(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    revoked: int


class _Counted(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    revocations: int


_MANY = TypeAdapter(list[Shown])


@dataclass(frozen=True)
class Renewed:
    """What became of the wish to grant anew.

    Attributes:
        version: that was granted; None for none, mostly because nothing was due.
        problem: why what was due was not granted; empty if it was.
    """

    version: int | None = None
    problem: str = ""


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Grants of this process; revoking waits for nothing."""
    with _GRANTING:
        yield


def given(
    model: PersonalModel, remote: Remote, version: Version, seconds: int, known: int | None
) -> Shown | None:
    """Grant a version; None where something was revoked since.

    Args:
        model: its profile is joined.
        remote: its server.
        version: the one in use.
        seconds: how long, at most.
        known: number of revocations; None for whatever it is.

    Raises:
        GrantRefused: the server's key is not its own.
        ServerRefused, ServerUnreachable, DeviceRefused.
    """
    with model.changing() as profile:
        member = Member.read(profile.sealed)
    signed = _signed(model, version, _epoch(remote, member), seconds)
    params = {} if known is None else {"revocations": known}
    answer = remote.request("PUT", "/v1/grants", json=signed.model_dump(), params=params, also=(409,))
    return None if answer.status_code == 409 else _read(answer.content)


def fetched(remote: Remote) -> list[Shown]:
    """What holds, by the server's word."""
    answer = remote.request("GET", "/v1/grants", also=(404,))
    if answer.status_code == 404:
        raise _hosts_nothing()
    try:
        return _MANY.validate_json(answer.content)
    except ValidationError:
        raise not_understood() from None


def revocations(remote: Remote) -> int:
    """How often something of the user was revoked, by the server's word."""
    answer = remote.request("GET", "/v1/grants/revocations", also=(404,))
    if answer.status_code == 404:
        raise _hosts_nothing()
    try:
        return _Counted.model_validate_json(answer.content).revocations
    except ValidationError:
        raise not_understood() from None


def all_revoked(remote: Remote) -> int:
    """Take all back; so many there were, by the server's word."""
    answer = remote.request("DELETE", "/v1/grants")
    try:
        return _Revoked.model_validate_json(answer.content).revoked
    except ValidationError:
        raise not_understood() from None


def keep(model: PersonalModel, keeping: Keeping | None) -> None:
    """Remember what the user wants; durable on return."""
    with model.changing() as profile:
        member = Member.read(profile.sealed)
        if member.keeping != keeping:
            member.model_copy(update={"keeping": keeping}).write(profile.sealed)


def kept(version: Version, seconds: int, known: int) -> Keeping:
    """What is remembered of a version that was granted."""
    return Keeping(seconds=seconds, revocations=known, version=version.number, record=version.digest)


def renewed(model: PersonalModel, remote: Remote) -> Renewed:
    """Grant anew what the user wants granted, if it is due.

    Raises:
        DeviceRefused, ServerUnreachable, ProfileDamaged.
    """
    with one_at_a_time():
        with model.changing() as profile:
            keeping, version = Member.read(profile.sealed).keeping, in_use(profile)
        if keeping is None or version is None:
            return Renewed()
        try:
            return _renewed(model, remote, keeping, version)
        except (GrantRefused, ServerRefused) as error:
            return Renewed(problem=error.message)


def _renewed(model: PersonalModel, remote: Remote, keeping: Keeping, version: Version) -> Renewed:
    _require_not_older(keeping, version)
    if any(_lasts(one, version) for one in fetched(remote)):
        return Renewed()
    if given(model, remote, version, keeping.seconds, keeping.revocations) is None:
        keep(model, None)
        return Renewed(problem=REVOKED)
    with model.changing() as profile:
        member = Member.read(profile.sealed)
        if member.keeping == keeping:  # else it was revoked meanwhile, and stays so
            after = kept(version, keeping.seconds, keeping.revocations)
            member.model_copy(update={"keeping": after}).write(profile.sealed)
    return Renewed(version=version.number)


def _require_not_older(keeping: Keeping, version: Version) -> None:
    """A profile that was put back, or a folder in which somebody exchanged files, grants nothing old."""
    same = version.number == keeping.version and version.digest == keeping.record
    if version.number <= keeping.version and not same:
        raise GrantRefused(
            f"version {version.name} is in use here, and {keeping.version}-{keeping.record[:8]} was granted "
            "before: an older one is not granted anew"
        )


def _lasts(one: Shown, version: Version) -> bool:
    """Whether a grant, of whichever device of the user, is of the version in use and not half over."""
    return one.version == version.number and time.time() < (one.since + one.until) / 2


def in_use(profile: Profile) -> Version | None:
    """The version that may be granted; None while another device's waits for a choice."""
    return None if open_conflicts(profile.history) else profile.history.newest


def _signed(model: PersonalModel, version: Version, epoch: Epoch, seconds: int) -> Signed:
    with model.changing() as profile:
        if profile.history.newest != version:
            raise GrantRefused("another version came into use meanwhile")
        record, keys = profile.history.record(version), profile.keys
        address = read_header(record).edition.address
        if (address.user, address.prefix) != (bytes.fromhex(profile.card.user), keys.prefix):
            raise GrantRefused("the version in use is of another profile")
        return issue_grant(
            record,
            address,
            key=keys.user_key,
            writers=keys.devices.writers,
            device=keys.device,
            epoch=epoch,
            seconds=seconds,
        )


def _epoch(remote: Remote, member: Member) -> Epoch:
    """The server's key of the moment, by its signature."""
    answer = remote.request("GET", "/v1/epoch", also=(404,))
    if answer.status_code == 404:
        raise _hosts_nothing()
    try:
        return Epoch.verified(Signed.parse(answer.content), bytes.fromhex(member.release_key))
    except ReleaseRefused as error:
        raise GrantRefused(f"the server's key is not its own: {error.message}") from None


def _hosts_nothing() -> ServerRefused:
    return ServerRefused("this server generates for nobody", "ask its operator for hosted inference")


def _read(content: bytes) -> Shown:
    try:
        return Shown.model_validate_json(content)
    except ValidationError:
        raise not_understood() from None
