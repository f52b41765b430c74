"""Letting a server generate under this user's prefix: one version, for some hours, until it is taken back.

    from antefix_client.granting import Granting

    with PersonalModel.open("notes.profile", unlock=passphrase) as model:
        Granting(model).grant(hours=8)
        ...
        Granting(model).revoke()

The server opens the granted version in its memory, and could remember it: only what comes after is out of its
reach again. It gets no key of the profile, no text, no other version. Needs the extra `federated`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from antefix.errors import GrantRefused, InvalidArgument, ReleaseRefused
from antefix.grants import Epoch, granted
from antefix.records import cover_of
from antefix.wire import Signed
from antefix_client._member import Member
from antefix_client._remote import Remote
from antefix_client.errors import ServerRefused
from antefix_client.membership import Membership
from antefix_client.model import PersonalModel

__all__ = ["Granted", "Granting"]

_HOUR_S = 3600
_MOST_HOURS = 24 * 365
_ODD = "is there a proxy that changes it?"


@dataclass(frozen=True)
class Granted:
    """What a server may use; nothing in it is private.

    Attributes:
        id: 32 hex digits.
        version: number of the version.
        device: id of the device that granted it, 32 hex digits.
        until: seconds since 1970.
    """

    id: str
    version: int
    device: str
    until: int


class Granting:
    """Grants of the profile of an open model. Nobody waits for the network."""

    def __init__(self, model: PersonalModel) -> None:
        """Ask nobody yet."""
        self._model, self._membership = model, Membership(model)

    def grant(self, *, hours: float = 12.0) -> Granted:
        """Let the server use the version in use, in place of what was granted before.

        Args:
            hours: how long. The server's key of the moment may end before: it is good for 12 hours at least.

        Raises:
            NotJoined, DeviceRefused, ServerUnreachable.
            ServerRefused: it hosts no inference, or has another version (`Membership.sync`).
            GrantRefused: its key is not signed by it.
            InvalidArgument: hours that are none, or nothing was learned yet.
        """
        if not 0 < hours <= _MOST_HOURS:
            raise InvalidArgument(f"{hours} hours", f"above 0, at most {_MOST_HOURS:,}")
        self._membership.sync()  # the server must have what is granted
        member = self._membership.member()
        with self._membership.remote() as remote:
            signed = self._signed(_epoch(remote, member), int(hours * _HOUR_S))
            answer = remote.request("PUT", "/v1/grants", json=signed.model_dump())
        return _read(answer.content)

    def listed(self) -> list[Granted]:
        """What the server may use now, whichever of the user's devices granted it.

        Raises:
            NotJoined, DeviceRefused, ServerUnreachable, ServerRefused.
        """
        with self._membership.remote() as remote:
            return _fetched(remote)

    def revoke(self, id: str | None = None) -> int:
        """Take a grant back, or all of them; so many there were. What runs under it ends within a second.

        Raises:
            NotJoined, DeviceRefused, ServerUnreachable, ServerRefused.
            InvalidArgument: no such grant.
        """
        with self._membership.remote() as remote:
            found = [one.id for one in _fetched(remote)]
            if id is not None and id not in found:
                raise InvalidArgument(f"there is no grant {id!r:.40}", "antefix grants")
            for one in found if id is None else [id]:
                remote.request("DELETE", f"/v1/grants/{one}", also=(404,))
        return len(found) if id is None else 1

    def _signed(self, epoch: Epoch, seconds: int) -> Signed:
        with self._model.changing() as profile:
            newest = profile.history.newest
            if newest is None:
                raise InvalidArgument(
                    "nothing was learned yet, so there is nothing to grant", "antefix learn"
                )
            record, keys = profile.history.record(newest), profile.keys
            address = cover_of(record).edition.address
            if (address.user, address.prefix) != (bytes.fromhex(profile.card.user), keys.prefix):
                raise GrantRefused("the version in use is of another profile")
            return granted(
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


def _fetched(remote: Remote) -> list[Granted]:
    answer = remote.request("GET", "/v1/grants", also=(404,))
    if answer.status_code == 404:
        raise _hosts_nothing()
    try:
        return [one.plain for one in _MANY.validate_json(answer.content)]
    except ValidationError:
        raise ServerRefused("the server answers what is not understood", _ODD) from None


def _hosts_nothing() -> ServerRefused:
    return ServerRefused("this server generates for nobody", "ask its operator for hosted inference")


class _Shown(BaseModel):
    """As the server shows a grant."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    id: str
    version: int
    device: str
    until: int

    @property
    def plain(self) -> Granted:
        return Granted(self.id, self.version, self.device, self.until)


_MANY = TypeAdapter(list[_Shown])


def _read(content: bytes) -> Granted:
    try:
        return _Shown.model_validate_json(content).plain
    except ValidationError:
        raise ServerRefused("the server answers what is not understood", _ODD) from None
