"""The registry itself; the package says what it keeps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import Connection

from antefix.crypto.aead import encrypt
from antefix.keys import DevicePublic
from antefix.receipts import Receipt
from antefix.wire import Invitation, server_id
from antefix_server.errors import (
    DeviceUnknown,
    InvitationRefused,
    NameTaken,
    TokenRefused,
    UnknownUser,
    VaultDamaged,
)
from antefix_server.registry import device_changes, nodes
from antefix_server.registry import devices as devices_module
from antefix_server.registry.devices import Device, Enrolled, Session
from antefix_server.registry.node_directory import NodeDirectory
from antefix_server.registry.nodes import Node, Participant
from antefix_server.registry.retired_nodes import Retired
from antefix_server.registry.user_directory import User, UserDirectory, user_beside
from antefix_server.vault import Vault, user_rows
from antefix_server.vault.envelope import UserEnvelope
from antefix_server.vault.user_rows import Kind, UserRow

__all__ = ["Added", "Device", "Enrolled", "Node", "Participant", "Registry", "Session", "User"]

DAY_S = 86_400
INVITED_S = 7 * DAY_S
_INVITED_LABEL = b"antefix/v1/registry invitation\0"


@dataclass(frozen=True)
class Added:
    """A new user, and the way in for its first device."""

    user: User
    invitation: Invitation = field(repr=False)


class Registry:
    """Users and devices of one vault. Any thread may call anything.

    Attributes:
        nodes: by which devices take part in rounds.
    """

    def __init__(self, vault: Vault) -> None:
        """Use an open vault; its owner closes it."""
        self._vault, self._retired = vault, Retired(vault.folder)
        self._database = vault.shelf.database
        self._users, self.nodes = UserDirectory(vault), NodeDirectory(vault, self._retired)
        self._server = server_id(vault.identity.releasing.public_key().public_bytes_raw())

    def add(self, name: str, *, invited_s: int = INVITED_S) -> Added:
        """A new user.

        Args:
            name: what the operator calls it; two that differ in case or in width of letters only are one.
            invited_s: how long the invitation is good for.

        Raises:
            InvalidArgument: what is no name.
            NameTaken.
        """
        return self.add_many([name], invited_s=invited_s)[0]

    def add_many(self, names: Sequence[str], *, invited_s: int = INVITED_S) -> list[Added]:
        """New users, all or none, for the price of one.

        Raises:
            InvalidArgument, NameTaken: as `add`; also where two of the names are one.
        """
        marks = {self._users.mark(name): name for name in names}
        if len(marks) < len(names):
            raise NameTaken("two of the names are one", "case and width of letters do not count")
        with self._vault.writing():
            for mark, name in marks.items():
                self._users.refuse_taken(name, mark)
            ids, now = self._vault.enrol_many(len(names)), int(time.time())
            with self._database.writing() as connection:
                added = []
                for (mark, name), id in zip(marks.items(), ids, strict=True):
                    user = User(name, id, now, suspended=False)
                    with self._vault.owner(id) as owner:
                        self._users.insert(connection, owner, user, mark)
                        added.append(Added(user, self._invited(connection, owner, invited_s)))
                return added

    def invite(self, name: str, *, invited_s: int = INVITED_S) -> Invitation:
        """The way in for one more device of a user.

        Raises:
            NameUnknown.
        """
        with (
            self._vault.writing(),
            self._users.owner_of(name) as owner,
            self._database.writing() as connection,
        ):
            return self._invited(connection, owner, invited_s)

    def find(self, name: str) -> User:
        """A user by name.

        Raises:
            NameUnknown.
        """
        return self._users.find(name)

    def users(self) -> Iterator[User]:
        """All of them, in the order in which they were added."""
        return self._users.all()

    def count(self) -> int:
        """How many users there are."""
        return self._users.count()

    def suspend(self, name: str, suspended: bool = True) -> User:
        """Let a user's devices in no more, or again. Its records stay.

        Raises:
            NameUnknown.
        """
        with self._vault.writing():
            return self._users.suspend(name, suspended)

    def remove(self, name: str) -> Receipt:
        """Remove a user with everything that is known of it: `docs/security/removal.md`.

        Raises:
            NameUnknown; and as `Vault.remove`.
        """
        with self._vault.writing():
            with self._users.owner_of(name) as owner:
                user = owner.user
                with suppress(VaultDamaged), self._database.reading() as connection:  # rows stop no removal
                    self._retired.add(node.id for node in nodes.listed(connection, owner))
            return self._vault.remove(user)

    def enrol(self, invitation: Invitation, device: DevicePublic, proof: bytes, name: str = "") -> Enrolled:
        """Let a device in for the first time; the same one may come again while its invitation is good.

        Args:
            invitation: the code it was given.
            device: its public keys.
            proof: `invitation.proof` of it.
            name: what its user calls it.

        Raises:
            InvitationRefused: used by another device, expired, not of this server, or not proved.
        """
        if invitation.server != self._server or not invitation.verify_proof(device, proof):
            raise InvitationRefused
        with self._vault.writing(), self._database.writing() as connection:
            row = user_rows.by_mark(connection, Kind.INVITATION, invitation.lookup_id)
            if row is None:
                raise InvitationRefused
            with self._invited_owner(row, invitation) as owner:
                content = user_rows.opened(owner, row)
                if content["until"] < time.time() or content["used"] not in ("", device.id.hex()):
                    raise InvitationRefused
                user_rows.change(connection, owner, row, {**content, "used": device.id.hex()})
                return devices_module.enrolled(connection, owner, device, name)

    def authenticate(self, token: str) -> Session:
        """Whose device has this token.

        Raises:
            TokenRefused: of none that may come in.
        """
        user, secret = devices_module.parts_of(token)
        try:
            with self._vault.owner(user) as owner, self._database.reading() as connection:
                if not user_rows.is_active(owner, user_rows.of(connection, owner, Kind.USER)):
                    raise TokenRefused
                return devices_module.session(connection, owner, secret)
        except UnknownUser:
            raise TokenRefused from None

    def devices(self, name: str) -> list[Device]:
        """A user's devices, those revoked too.

        Raises:
            NameUnknown.
        """
        with self._users.owner_of(name) as owner, self._database.reading() as connection:
            return devices_module.listed(connection, owner)

    def revoke(self, name: str, device: bytes) -> Device:
        """Let a device in no more; not with another invitation either. A new one needs new keys.

        Its keys stay on the user's own list until another device of the user removes them: `add_change`.

        Raises:
            NameUnknown, DeviceUnknown.
        """
        with (
            self._vault.writing(),
            self._users.owner_of(name) as owner,
            self._database.writing() as connection,
        ):
            self._retired.add(nodes.dropped(connection, owner, device))
            return devices_module.revoked(connection, owner, device)

    def change(self, session: Session, version: int) -> bytes | None:
        """The change that made a version of a user's list of devices; None where there is none.

        Raises:
            UnknownUser: removed meanwhile.
        """
        with self._vault.owner(session.user) as owner, self._database.reading() as connection:
            return device_changes.found(connection, owner, version)

    def add_change(self, session: Session, content: bytes) -> None:
        """Keep the next change of a user's devices; one that it removes is let in no more.

        Raises:
            DeviceListRefused, VersionConflict: nothing was changed.
            UnknownUser: removed meanwhile.
        """
        with (
            self._vault.writing(),
            self._vault.owner(session.user) as owner,
            self._database.writing() as connection,
        ):
            left = device_changes.added(connection, owner, content, session.device)
            if left is not None:
                self._retired.add(nodes.dropped(connection, owner, left))
                with suppress(DeviceUnknown):  # it was never on this server
                    devices_module.revoked(connection, owner, left)

    def _invited(self, connection: Connection, owner: UserEnvelope, invited_s: int) -> Invitation:
        invitation = Invitation.fresh(self._server)
        hint = encrypt(invitation.key, _INVITED_LABEL + invitation.lookup_id, owner.user)
        content = {"until": int(time.time()) + invited_s, "used": ""}
        user_rows.add(connection, owner, Kind.INVITATION, invitation.lookup_id, content, hint)
        return invitation

    def _invited_owner(self, row: UserRow, invitation: Invitation) -> UserEnvelope:
        user = user_beside(row, invitation.key, _INVITED_LABEL)
        try:
            return self._vault.owner(user or bytes(16))
        except UnknownUser:
            raise InvitationRefused from None
