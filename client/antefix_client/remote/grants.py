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
from antefix_client.profile.profile import Profile
from antefix_client.profile.version_history import Version
from antefix_client.remote.api_client import ApiClient, unexpected_answer
from antefix_client.remote.server_session import ServerSession
from antefix_client.remote.server_state import AutoGrant, ServerState

REVOKED = "grants were taken back since this device last granted, so it grants no more by itself"
_LOCK = threading.Lock()  # a profile is open in one process


class GrantSummary(BaseModel):
    """A grant as the server shows it."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    id: str
    version: int
    device: str
    since: int
    until: int


class _RevokedCount(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    revoked: int


class _RevocationCount(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    revocations: int


_SUMMARIES = TypeAdapter(list[GrantSummary])


@dataclass(frozen=True)
class RenewalResult:
    """What became of the wish to grant anew.

    Attributes:
        version: that was granted; None for none, mostly because nothing was due.
        problem: why what was due was not granted; empty if it was.
    """

    version: int | None = None
    problem: str = ""


@contextmanager
def exclusive() -> Iterator[None]:
    """Grants of this process; revoking waits for nothing."""
    with _LOCK:
        yield


def request_grant(
    server: ServerSession, api: ApiClient, version: Version, seconds: int, revocations: int | None
) -> GrantSummary | None:
    """Grant a version; None where something was revoked since.

    Args:
        server: of a joined profile.
        api: connection to it.
        version: the one in use.
        seconds: how long, at most.
        revocations: as often as something was revoked before; None for whatever it is.

    Raises:
        GrantRefused: the server's key is not its own.
        ServerRefused, ServerUnreachable, DeviceRefused.
    """
    epoch = _fetch_epoch(api, server.state())
    signed = _issue(server, version, epoch, seconds)
    params = {} if revocations is None else {"revocations": revocations}
    answer = api.request("PUT", "/v1/grants", json=signed.model_dump(), params=params, also=(409,))
    return None if answer.status_code == 409 else _parse_summary(answer.content)


def list_grants(api: ApiClient) -> list[GrantSummary]:
    """What holds, by the server's word."""
    answer = api.request("GET", "/v1/grants", also=(404,))
    if answer.status_code == 404:
        raise _no_inference()
    try:
        return _SUMMARIES.validate_json(answer.content)
    except ValidationError:
        raise unexpected_answer() from None


def count_revocations(api: ApiClient) -> int:
    """How often something of the user was revoked, by the server's word."""
    answer = api.request("GET", "/v1/grants/revocations", also=(404,))
    if answer.status_code == 404:
        raise _no_inference()
    try:
        return _RevocationCount.model_validate_json(answer.content).revocations
    except ValidationError:
        raise unexpected_answer() from None


def revoke_all(api: ApiClient) -> int:
    """Take all back; so many there were, by the server's word."""
    answer = api.request("DELETE", "/v1/grants")
    try:
        return _RevokedCount.model_validate_json(answer.content).revoked
    except ValidationError:
        raise unexpected_answer() from None


def save_auto_grant(server: ServerSession, auto_grant: AutoGrant | None) -> None:
    """Remember what the user wants; durable on return."""
    with server.locked() as (profile, state):
        if state.keeping != auto_grant:
            state.model_copy(update={"keeping": auto_grant}).write(profile.sealed)


def auto_grant_for(version: Version, seconds: int, revocations: int) -> AutoGrant:
    """What is remembered of a version that was granted."""
    return AutoGrant(seconds=seconds, revocations=revocations, version=version.number, record=version.digest)


def renew_if_due(server: ServerSession, api: ApiClient) -> RenewalResult:
    """Grant anew what the user wants granted, if it is due.

    Raises:
        DeviceRefused, ServerUnreachable, ProfileDamaged.
    """
    with exclusive():
        with server.locked() as (profile, state):
            auto_grant, version = state.keeping, grantable_version(profile)
        if auto_grant is None or version is None:
            return RenewalResult()
        try:
            return _renew(server, api, auto_grant, version)
        except (GrantRefused, ServerRefused) as error:
            return RenewalResult(problem=error.message)


def _renew(server: ServerSession, api: ApiClient, auto_grant: AutoGrant, version: Version) -> RenewalResult:
    _require_not_older(auto_grant, version)
    if any(_covers(grant, version) for grant in list_grants(api)):
        return RenewalResult()
    if request_grant(server, api, version, auto_grant.seconds, auto_grant.revocations) is None:
        save_auto_grant(server, None)
        return RenewalResult(problem=REVOKED)
    with server.locked() as (profile, state):
        if state.keeping == auto_grant:  # else it was revoked meanwhile, and stays so
            renewed = auto_grant_for(version, auto_grant.seconds, auto_grant.revocations)
            state.model_copy(update={"keeping": renewed}).write(profile.sealed)
    return RenewalResult(version=version.number)


def _require_not_older(auto_grant: AutoGrant, version: Version) -> None:
    """A profile that was put back, or a folder in which somebody exchanged files, grants nothing old."""
    same = version.number == auto_grant.version and version.digest == auto_grant.record
    if version.number <= auto_grant.version and not same:
        raise GrantRefused(
            f"version {version.name} is in use here, and {auto_grant.version}-{auto_grant.record[:8]} "
            "was granted before: an older one is not granted anew"
        )


def _covers(grant: GrantSummary, version: Version) -> bool:
    """Whether a grant, of whichever device of the user, is of the version in use and not half over."""
    return grant.version == version.number and time.time() < (grant.since + grant.until) / 2


def grantable_version(profile: Profile) -> Version | None:
    """The version that may be granted; None while another device's waits for a choice."""
    return None if open_conflicts(profile.history) else profile.history.newest


def _issue(server: ServerSession, version: Version, epoch: Epoch, seconds: int) -> Signed:
    with server.model.session.locked() as profile:
        if profile.history.newest != version:
            raise GrantRefused("another version came into use meanwhile")
        record, keys = profile.history.record(version), profile.keys
        address = read_header(record).edition.address
        if (address.user, address.prefix) != (bytes.fromhex(profile.manifest.user), keys.prefix):
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


def _fetch_epoch(api: ApiClient, state: ServerState) -> Epoch:
    """The server's key of the moment, by its signature."""
    answer = api.request("GET", "/v1/epoch", also=(404,))
    if answer.status_code == 404:
        raise _no_inference()
    try:
        return Epoch.verified(Signed.parse(answer.content), bytes.fromhex(state.release_key))
    except ReleaseRefused as error:
        raise GrantRefused(f"the server's key is not its own: {error.message}") from None


def _no_inference() -> ServerRefused:
    return ServerRefused("this server generates for nobody", "ask its operator for hosted inference")


def _parse_summary(content: bytes) -> GrantSummary:
    try:
        return GrantSummary.model_validate_json(content)
    except ValidationError:
        raise unexpected_answer() from None
