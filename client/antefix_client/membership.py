"""A profile's place on a server: joining it, and keeping the sealed versions of all devices of a user alike.

from antefix_client.membership import Membership

with PersonalModel.open("notes.profile", unlock=passphrase) as model:
    Membership(model).join(code, "https://example.com:8443")
    Membership(model).sync()

Sealed records go out, and nothing else: the server cannot read them. Taking part in rounds is another matter,
which is asked for: `take_part`. Needs the extra `federated`.
"""

from __future__ import annotations

from dataclasses import dataclass

from antefix.common.deprecation import former_names
from antefix_client.errors import NotJoined
from antefix_client.model import PersonalModel
from antefix_client.remote import enrolment
from antefix_client.remote.follow_release import ReleaseFollower
from antefix_client.remote.server_session import ServerSession
from antefix_client.remote.server_state import ServerState
from antefix_client.remote.sync import DeviceSync, SyncResult
from antefix_client.rounds.participation import RoundParticipation

__all__ = ["Membership", "ServerLink", "SyncResult"]
__getattr__ = former_names(__name__, {"Place": "ServerLink", "Synced": "SyncResult"})


@dataclass(frozen=True)
class ServerLink:
    """Where a profile is; nothing in it is private.

    Attributes:
        url: of the server.
        user: its id there, 32 hex digits.
        rounds: it takes part in rounds.
        refused: the server did not know this device the last time.
    """

    url: str
    user: str
    rounds: bool
    refused: bool

    @classmethod
    def of(cls, state: ServerState) -> ServerLink:
        """What may be shown of all that is known of the server."""
        return cls(state.url, state.user, state.rounds, state.refused)


class Membership:
    """Of the profile of an open model. Any thread may call anything; nobody waits for the network.

    Attributes:
        server: what is known of the server, for the other parts of this package; it may change with any
            release. So may the next three.
        devices: sync.
        releases: what the server announces.
        rounds: taking part.
    """

    def __init__(self, model: PersonalModel) -> None:
        """Ask nobody yet."""
        self.server = ServerSession(model)
        self.devices = DeviceSync(self.server)
        self.releases = ReleaseFollower(self.server)
        self.rounds = RoundParticipation(self.server)

    @property
    def model(self) -> PersonalModel:
        """Whose profile it is."""
        return self.server.model

    @property
    def place(self) -> ServerLink | None:
        """Where the profile is; None for on no server."""
        try:
            return ServerLink.of(self.server.state())
        except NotJoined:
            return None

    def join(self, invitation: str, server: str, *, name: str = "") -> ServerLink:
        """Enrol this device as one of the invited user.

        The profile takes the ids that the server gives. Its texts and the version in use stay.

        Args:
            invitation: the code, as the operator gave it. Good once.
            server: address, `https://example.com:8443`.
            name: what the operator sees of this device.

        Raises:
            InvalidArgument: a mistyped code.
            JoinRefused: it is on a server already, or linked with other devices.
            ServerNotTrusted: not the server of the invitation.
            ServerRefused: the invitation is used or expired.
            ServerUnreachable, ProfileFull, ProfileUnwritable.
        """
        return ServerLink.of(enrolment.join(self.server, invitation, server, name))

    def leave(self) -> None:
        """Forget the server. The profile stays; the server keeps what it has until its operator removes it.

        Raises:
            ProfileUnwritable.
        """
        enrolment.leave(self.server)

    def take_part(self, yes: bool) -> ServerLink:
        """Say whether this device takes part in rounds.

        In a round it trains a copy of the shared prefix on the texts here and sends the clipped difference,
        sealed to the round's key. The operator could read a single such difference in the server's memory,
        and something of the texts can be made out from it. Without rounds no gradient leaves this device.

        Raises:
            NotJoined.
        """
        return ServerLink.of(self.rounds.take_part(bool(yes)))

    def follow(self, *, progress: bool = True) -> int | None:
        """Use the release that the server announces; its version, None for none.

        The base is fetched from the server or its mirrors, and believed by its digest alone.

        Raises:
            NotJoined, DeviceRefused.
            ReleaseUnavailable, ReleaseDamaged: what is in use stays; the same call goes on where it was.
            ReleaseRefused: forged, older than what is known, or of another base than this profile's.
            ProfileFull, ProfileUnwritable.
        """
        return self.releases.follow(progress)

    @property
    def release(self) -> int | None:
        """Version of the release in use; None for none."""
        return self.releases.version

    def sync(self) -> SyncResult:
        """Take what another device of the user has learned, and hand on what this one has.

        So with the list of devices, which comes first. Then what is due is granted anew, if the user asked
        for that.

        Raises:
            DeviceRemoved: another device has removed this one.
            DeviceListRefused: two devices changed the list at once; docs/devices.md.
            NotJoined, DeviceRefused, ServerUnreachable, ServerRefused.
            As `PersonalModel.receive`: what the server has does not open here.
        """
        return self.devices.sync()

    def remove_device(self, device: str) -> None:
        """Remove another device of the user; as `PersonalModel.remove_device`, and the server hears of it.

        It is let in there no more. The others follow with their next sync.

        Raises:
            As `sync` and `PersonalModel.remove_device`.
        """
        self.sync()  # its last version comes along, which nobody could open any more
        self.model.remove_device(device)
        self.sync()
