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

from dataclasses import dataclass, field

from antefix.common.deprecation import former_names
from antefix.errors import GrantRefused, InvalidArgument
from antefix_client.model import PersonalModel
from antefix_client.profile.version_history import Version
from antefix_client.remote import grants
from antefix_client.remote.grants import REVOKED, GrantSummary
from antefix_client.remote.server_session import ServerSession
from antefix_client.remote.sync import DeviceSync

__all__ = ["Access", "ActiveGrant", "Granting"]
__getattr__ = former_names(__name__, {"Granted": "ActiveGrant"})

_HOUR_S = 3600
_MAX_HOURS = 24 * 365


@dataclass(frozen=True)
class ActiveGrant:
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

    @classmethod
    def of(cls, summary: GrantSummary) -> ActiveGrant:
        """As the server shows it."""
        return cls(summary.id, summary.version, summary.device, summary.until)


@dataclass(frozen=True)
class Access:
    """What another program of this device needs to ask the server in this user's name.

    Attributes:
        url: of OpenAI's API there.
        token: of this device, secret: who has it may do what the device may.
        authority: certificate of who signed the server's, PEM; empty for one that every machine knows.
    """

    url: str
    token: str = field(repr=False)
    authority: str


class Granting:
    """Grants of the profile of an open model. Nobody waits for the network."""

    def __init__(self, model: PersonalModel) -> None:
        """Ask nobody yet."""
        self._server = ServerSession(model)

    @property
    def keeping(self) -> bool:
        """Whether the versions after the granted one are granted, too, with `sync` and `antefix serve`.

        Raises:
            NotJoined.
        """
        return self._server.state().keeping is not None

    @property
    def access(self) -> Access:
        """How another program of this device asks under what is granted.

        Raises:
            NotJoined.
        """
        state = self._server.state()
        return Access(f"{state.url}/v1", state.token, state.authority)

    def grant(self, *, hours: float = 12.0, keep: bool = False) -> ActiveGrant:
        """Let the server use the version in use, in place of what was granted before.

        Args:
            hours: how long. The server's key of the moment may end before: it is good for 12 hours at least.
            keep: from now on every `sync` grants anew, for as long again, when another version came into use
                or half of the time is over; until something is revoked, by any device of the user or the
                operator. Without it an earlier wish of that kind ends.

        Raises:
            NotJoined, DeviceRefused, ServerUnreachable.
            ServerRefused: it hosts no inference, or has another version (`Membership.sync`).
            GrantRefused: its key is not signed by it; or something was revoked just now.
            InvalidArgument: hours that are none, or nothing was learned yet.
        """
        if not 0 < hours <= _MAX_HOURS:
            raise InvalidArgument(f"{hours} hours", f"above 0, at most {_MAX_HOURS:,}")
        seconds = max(1, int(hours * _HOUR_S))
        with grants.exclusive():
            if not keep:
                grants.save_auto_grant(self._server, None)
            DeviceSync(self._server).sync(renew_grants=False)  # the server must have what is granted
            version = self._version_in_use()
            with self._server.connect() as api:
                revocations = grants.count_revocations(api) if keep else None
                grant = grants.request_grant(self._server, api, version, seconds, revocations)
            if grant is None:
                raise GrantRefused(REVOKED)
            if revocations is not None:
                auto_grant = grants.auto_grant_for(version, seconds, revocations)
                grants.save_auto_grant(self._server, auto_grant)
        return ActiveGrant.of(grant)

    def listed(self) -> list[ActiveGrant]:
        """What the server may use now, whichever of the user's devices granted it.

        Raises:
            NotJoined, DeviceRefused, ServerUnreachable, ServerRefused.
        """
        with self._server.connect() as api:
            return [ActiveGrant.of(grant) for grant in grants.list_grants(api)]

    def revoke(self, id: str | None = None) -> int:
        """Take a grant back, or all of them; so many there were. What runs under it ends within a second.

        From then on no device of the user grants anew by itself; this one not even where the server cannot be
        reached and the call fails.

        Raises:
            NotJoined, DeviceRefused, ServerUnreachable, ServerRefused.
            InvalidArgument: no such grant.
        """
        grants.save_auto_grant(self._server, None)
        with self._server.connect() as api:
            active = {grant.id for grant in grants.list_grants(api)}
            if id is None:
                return grants.revoke_all(api)
            if id not in active:
                raise InvalidArgument(f"there is no grant {id!r:.40}", "antefix grants")
            api.request("DELETE", f"/v1/grants/{id}", also=(404,))
        return 1

    def _version_in_use(self) -> Version:
        with self._server.model.session.locked() as profile:
            newest = profile.history.newest
        if newest is None:
            raise InvalidArgument("nothing was learned yet, so there is nothing to grant", "antefix learn")
        return newest
