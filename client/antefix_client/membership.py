"""A profile's place on a server: joining it, and keeping the sealed versions of all devices of a user alike.

from antefix_client.membership import Membership

with PersonalModel.open("notes.profile", unlock=passphrase) as model:
    Membership(model).join(code, "https://example.com:8443")
    Membership(model).sync()

Sealed records go out, and nothing else: the server cannot read them. Taking part in rounds is another matter,
which is asked for: `take_part`. Needs the extra `federated`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from antefix.common.validation import require_text
from antefix.errors import RoundRefused
from antefix.records import read_header
from antefix.wire import Enrol, Invitation, Release, ReleaseState
from antefix_client.devices import user_id_change
from antefix_client.errors import DeviceRefused, JoinRefused, NotJoined, ServerRefused
from antefix_client.model import PersonalModel
from antefix_client.remote import server_state
from antefix_client.remote.api_client import ApiClient, fetch_server_keys
from antefix_client.remote.grants import renew_if_due
from antefix_client.remote.server_state import ServerState
from antefix_client.remote.sync import RemoteRecord, is_stale, record_to_upload, sync_device_list

if TYPE_CHECKING:
    from antefix_client.rounds.local_update import Checked
    from antefix_client.rounds.round_request import RoundRequest

__all__ = ["Membership", "Place", "Synced"]

_TRIES = 3


@dataclass(frozen=True)
class Place:
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


@dataclass(frozen=True)
class Synced:
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


class Membership:
    """Of the profile of an open model. Any thread may call anything; nobody waits for the network."""

    def __init__(self, model: PersonalModel) -> None:
        """Ask nobody yet."""
        self._model, self._one_round = model, threading.Lock()

    @property
    def model(self) -> PersonalModel:
        """Whose profile it is."""
        return self._model

    @property
    def place(self) -> Place | None:
        """Where the profile is; None for on no server."""
        try:
            found = self.member()
        except NotJoined:
            return None
        return Place(found.url, found.user, found.rounds, found.refused)

    def join(self, invitation: str, server: str, *, name: str = "") -> Place:
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
        require_text(invitation, "invitation")
        require_text(server, "server")
        code, url = Invitation.parse(invitation), server.rstrip("/")
        self._require_free(url)
        keys = fetch_server_keys(url, code)
        with self._model.locked() as profile:
            # An invitation is good for the keys that it was used with, and for no others afterwards.
            user_id_change.require_alone(profile, bytes.fromhex(keys.tenant))
            device = profile.keys.device
            public, proof = device.public, code.proof(device)
        asked = Enrol(
            invitation=code.text(),
            kem=public.kem_bytes.hex(),
            signing=public.signing_bytes.hex(),
            proof=proof.hex(),
            name=name[:200],
        )
        with ApiClient(url, keys.authority) as remote:
            enrolled = remote.enrol(asked)
        member = ServerState(
            url=url,
            authority=keys.authority,
            release_key=keys.release_key,
            log_key=keys.log_key,
            tenant=enrolled.tenant,
            user=enrolled.user,
            token=enrolled.token,
        )
        with self._model.locked() as profile:
            user_id_change.rebind_user(profile, bytes.fromhex(enrolled.tenant), bytes.fromhex(enrolled.user))
            member.write(profile.sealed)
        return Place(member.url, member.user, member.rounds, member.refused)

    def leave(self) -> None:
        """Forget the server. The profile stays; the server keeps what it has until its operator removes it.

        Raises:
            ProfileUnwritable.
        """
        with self._model.locked() as profile:
            profile.sealed.delete(server_state.NAME)

    def take_part(self, yes: bool) -> Place:
        """Say whether this device takes part in rounds.

        In a round it trains a copy of the shared prefix on the texts here and sends the clipped difference,
        sealed to the round's key. The operator could read a single such difference in the server's memory,
        and something of the texts can be made out from it. Without rounds no gradient leaves this device.

        Raises:
            NotJoined.
        """
        return self._changed(rounds=bool(yes))

    def member(self) -> ServerState:
        """For this package: all that is known of the server. Private.

        Raises:
            NotJoined, ProfileDamaged.
        """
        with self._model.locked() as profile:
            return ServerState.read(profile.sealed)

    def remote(self) -> ApiClient:
        """For this package: the server, with this device's token; close it.

        Raises:
            NotJoined.
        """
        member = self.member()
        return ApiClient(member.url, member.authority, member.token)

    @property
    def device(self) -> bytes:
        """For this package: id of this device, 16 bytes."""
        with self._model.locked() as profile:
            return profile.keys.device.id

    def renew_node(self) -> ServerState:
        """For this package: a fresh key for the node in rounds, kept before anybody hears of it."""
        with self._model.locked() as profile:
            member = ServerState.read(profile.sealed).with_fresh_node()
            member.write(profile.sealed)
        return member

    def round(self, asked: RoundRequest) -> bytes:
        """For this package: the sealed update of a round, if this user takes part and the round is in order.

        Trained on the texts that train, never on those that judge: the shared prefix must not know them.

        Raises:
            NotJoined, RoundRefused, ReleaseRefused: nothing is sent.
        """
        from antefix import Prefix
        from antefix_client.learning.learn import training_texts
        from antefix_client.rounds.local_update import answer, verify_round

        with self._one_round:
            member = self.member()
            if not member.rounds:
                raise RoundRefused("the user of this device does not take part")
            base = self._model.base
            seen = member.seen or ReleaseState(tenant=member.tenant)
            seen = seen.model_copy(update={"base": base.fingerprint})
            believed = verify_round(asked, bytes.fromhex(member.release_key), seen, member.last_round)
            length = Prefix.from_bytes(believed.prefix).length
            with self._model.locked() as profile:
                texts, device = training_texts(profile, base, length), profile.keys.device
            sealed = answer(believed, asked.node, base, texts, device)
            self._agree_again(member, believed)
            return sealed

    def _agree_again(self, before: ServerState, believed: Checked) -> None:
        """Training took minutes: the user may have said no meanwhile, or the server withdrawn the release."""
        with self._model.locked() as profile:
            now = ServerState.read(profile.sealed)
            if not now.rounds or (now.tenant, now.user) != (before.tenant, before.user):
                raise RoundRefused("the user of this device does not take part")
            seen = now.seen or ReleaseState(tenant=now.tenant)
            seen.require_usable(believed.release)
            if believed.release.version < now.last_round:
                raise RoundRefused("a later round was answered meanwhile")
            update = {"seen": seen.with_release(believed.release), "last_round": believed.release.version}
            now.model_copy(update=update).write(profile.sealed)

    def follow(self, *, progress: bool = True) -> int | None:
        """Use the release that the server announces; its version, None for none.

        The base is fetched from the server or its mirrors, and believed by its digest alone.

        Raises:
            NotJoined, DeviceRefused.
            ReleaseUnavailable, ReleaseDamaged: what is in use stays; the same call goes on where it was.
            ReleaseRefused: forged, older than what is known, or of another base than this profile's.
            ProfileFull, ProfileUnwritable.
        """
        from antefix_client.remote.follow_release import follow

        member = self.member()
        with self.remote() as remote:
            after = follow(self._model, member, remote, progress)
        if after != member and after.seen is not None:
            self._learned(after.seen, after.release)
        return self.release

    def _learned(self, seen: ReleaseState, release: str | None) -> None:
        """Keep what is known of releases; what a round has learned meanwhile stays."""
        with self._model.locked() as profile:
            now = ServerState.read(profile.sealed)
            if now.seen is not None and now.seen.tenant == seen.tenant:
                if now.seen.serial > seen.serial:
                    return  # somebody has seen a newer announcement meanwhile
                known = dict(now.seen.versions) | dict(seen.versions)
                seen = seen.model_copy(update={"versions": tuple(sorted(known.items()))})
            now.model_copy(update={"seen": seen, "release": release}).write(profile.sealed)

    @property
    def release(self) -> int | None:
        """Version of the release in use; None for none."""
        text = self.member().release
        return None if text is None else Release.model_validate_json(text).version

    def sync(self) -> Synced:
        """Take what another device of the user has learned, and hand on what this one has.

        So with the list of devices, which comes first. Then what is due is granted anew, if the user asked
        for that.

        Raises:
            DeviceRemoved: another device has removed this one.
            DeviceListRefused: two devices changed the list at once; docs/guides/devices.md.
            NotJoined, DeviceRefused, ServerUnreachable, ServerRefused.
            As `PersonalModel.receive`: what the server has does not open here.
        """
        return self._sync(renews=True)

    def sync_records(self) -> Synced:
        """For this package: the same, and nothing is granted."""
        return self._sync(renews=False)

    def _sync(self, *, renews: bool) -> Synced:
        try:
            with self.remote() as remote:
                done = self._synced(remote)
                if renews:
                    after = renew_if_due(self._model, remote)
                    done = replace(done, granted=after.version, problem=after.problem)
        except DeviceRefused:
            self._changed(refused=True)
            raise
        if self.member().refused:
            self._changed(refused=False)
        return done

    def remove_device(self, device: str) -> None:
        """Remove another device of the user; as `PersonalModel.remove_device`, and the server hears of it.

        It is let in there no more. The others follow with their next sync.

        Raises:
            As `sync` and `PersonalModel.remove_device`.
        """
        self.sync()  # its last version comes along, which nobody could open any more
        self._model.remove_device(device)
        self.sync()

    def _synced(self, remote: ApiClient) -> Synced:
        sync_device_list(self._model, remote)
        received = None
        for _ in range(_TRIES):
            with self._model.locked() as profile:
                prefix, known = profile.keys.prefix, ServerState.read(profile.sealed).known
            record, tag = remote.record(prefix, known)
            if record is not None:
                received = self._received(record) or received
                self._changed(known=tag)
            stored = RemoteRecord.of(tag)
            with self._model.locked() as profile:
                waits, sending = record_to_upload(profile, stored)
            if sending is None:
                return Synced(received, None, waits)
            if remote.put(prefix, sending, stored.version):
                return Synced(received, read_header(sending).edition.version, waits)
        raise ServerRefused("another device of yours writes at the same time", "try again in a moment")

    def _received(self, record: bytes) -> str | None:
        """Name of the version, where it is new."""
        with self._model.locked() as profile:
            if is_stale(profile, record):
                return None
            before = {version.digest for version in profile.history.versions}
        version = self._model.receive(record)
        return None if version.digest in before else version.name

    def _changed(self, **update: object) -> Place:
        with self._model.locked() as profile:
            member = ServerState.read(profile.sealed).model_copy(update=update)
            member.write(profile.sealed)
        return Place(member.url, member.user, member.rounds, member.refused)

    def _require_free(self, url: str) -> None:
        place = self.place
        if place is not None and place.url != url and not place.refused:
            raise JoinRefused(f"this profile is on {place.url} already", "antefix leave, then join")
