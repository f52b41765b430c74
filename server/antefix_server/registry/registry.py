"""Who may come in: users by the names an operator gave them, invitations, and devices.

Everything here is sealed in the vault's database under the user's shred key (`vault.user_facts`), so that
`remove` leaves none of it. A name finds its user by an HMAC under a key of the vault.

    registry = Registry(vault)
    code = registry.add("ann").invitation.text()      # given to ann, once
    ...
    enrolled = registry.enrol(Invitation.parse(code), device, proof)
    session = registry.authenticate(enrolled.token)
"""

from __future__ import annotations

import hmac
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from antefix.crypto.aead import decrypt, encrypt
from antefix.errors import InvalidArgument
from antefix.keys import DevicePublic
from antefix.receipts import Receipt
from antefix.wire import Invitation, server_id
from antefix_server.errors import (
    DeviceUnknown,
    InvitationRefused,
    NameTaken,
    NameUnknown,
    TokenRefused,
    UnknownUser,
    VaultDamaged,
)
from antefix_server.registry import device_changes, nodes
from antefix_server.registry import devices as devices_module
from antefix_server.registry.devices import Device, Enrolled, Session
from antefix_server.registry.nodes import Node, Participant
from antefix_server.registry.retired_nodes import Retired
from antefix_server.vault import Vault, user_facts
from antefix_server.vault.envelope import Owner
from antefix_server.vault.user_facts import Fact, Kind

__all__ = ["Added", "Device", "Enrolled", "Node", "Participant", "Registry", "Session", "User"]

DAY_S = 86_400
INVITED_S = 7 * DAY_S
_LONGEST_NAME = 200
_NODE_LABEL = b"antefix/v1/registry node\0"


@dataclass(frozen=True)
class User:
    """A user as the operator sees it.

    Attributes:
        name: as it was added.
        id: 16 random bytes.
        added: seconds since 1970.
        suspended: its devices are not let in for now.
    """

    name: str
    id: bytes
    added: int
    suspended: bool


@dataclass(frozen=True)
class Added:
    """A new user, and the way in for its first device."""

    user: User
    invitation: Invitation = field(repr=False)


class Registry:
    """Users and devices of one vault. Any thread may call anything."""

    def __init__(self, vault: Vault) -> None:
        """Use an open vault; its owner closes it."""
        self._vault, self._retired = vault, Retired(vault.folder)
        self._database = vault.shelf.database
        self._index_key = vault.identity.index_key
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
        marks = {self._mark(name): name for name in names}
        if len(marks) < len(names):
            raise NameTaken("two of the names are one", "case and width of letters do not count")
        with self._vault.writing():
            for mark, name in marks.items():
                self._refuse_taken(name, mark)
            ids, now = self._vault.enrol_many(len(names)), int(time.time())
            with self._database.writing() as connection:
                pairs = zip(marks.items(), ids, strict=True)
                return [
                    self._added(connection, User(name, id, now, suspended=False), mark, invited_s)
                    for (mark, name), id in pairs
                ]

    def invite(self, name: str, *, invited_s: int = INVITED_S) -> Invitation:
        """The way in for one more device of a user.

        Raises:
            NameUnknown.
        """
        with self._vault.writing(), self._owner_of(name) as owner, self._database.writing() as connection:
            return self._invited(connection, owner, invited_s)

    def find(self, name: str) -> User:
        """A user by name.

        Raises:
            NameUnknown.
        """
        with self._owner_of(name) as owner, self._database.reading() as connection:
            return _user(owner, self._row(connection, owner, name))

    def users(self) -> Iterator[User]:
        """All of them, in the order in which they were added."""
        last = 0
        while True:
            with self._database.reading() as connection:
                rows = user_facts.after(connection, Kind.USER, last)
            if not rows:
                return
            for row in rows:
                try:
                    with self._vault.owner(self._id_in(row)) as owner:
                        yield _user(owner, row)
                except UnknownUser:
                    continue  # removed meanwhile
            last = rows[-1].id

    def count(self) -> int:
        """How many users there are."""
        with self._database.reading() as connection:
            return user_facts.count(connection, Kind.USER)

    def suspend(self, name: str, suspended: bool = True) -> User:
        """Let a user's devices in no more, or again. Its records stay.

        Raises:
            NameUnknown.
        """
        with self._vault.writing(), self._owner_of(name) as owner, self._database.writing() as connection:
            row = self._row(connection, owner, name)
            found = _user(owner, row)
            changed = User(found.name, found.id, found.added, suspended)
            user_facts.change(connection, owner, row, _content(changed))
            return changed

    def remove(self, name: str) -> Receipt:
        """Remove a user with everything that is known of it: `docs/security/removal.md`.

        Raises:
            NameUnknown; and as `Vault.remove`.
        """
        with self._vault.writing():
            with self._owner_of(name) as owner:
                user = owner.user
                with suppress(VaultDamaged), self._database.reading() as connection:  # rows stop no removal
                    self._retired.add(one.id for one in nodes.listed(connection, owner))
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
            row = user_facts.by_mark(connection, Kind.INVITATION, invitation.lookup_id)
            if row is None:
                raise InvitationRefused
            with self._invited_owner(row, invitation) as owner:
                said = user_facts.opened(owner, row)
                if said["until"] < time.time() or said["used"] not in ("", device.id.hex()):
                    raise InvitationRefused
                user_facts.change(connection, owner, row, {**said, "used": device.id.hex()})
                return devices_module.enrolled(connection, owner, device, name)

    def authenticate(self, token: str) -> Session:
        """Whose device has this token.

        Raises:
            TokenRefused: of none that may come in.
        """
        user, secret = devices_module.parts_of(token)
        try:
            with self._vault.owner(user) as owner, self._database.reading() as connection:
                if not user_facts.let_in(owner, user_facts.of(connection, owner, Kind.USER)):
                    raise TokenRefused
                return devices_module.session(connection, owner, secret)
        except UnknownUser:
            raise TokenRefused from None

    def keep_node(self, session: Session, node: Node) -> None:
        """Keep by which node of Flower's a device takes part in rounds; the one that it replaces is retired.

        Raises:
            UnknownUser: removed meanwhile; the node is retired.
        """
        mark = self._node_mark(node.id)
        with self._vault.writing():
            self._retired.add([node.id])  # first: where it is not kept in the end, nobody would know of it
            with self._vault.owner(session.user) as owner:
                hint = encrypt(self._index_key, _NODE_LABEL + mark, owner.user)
                with self._database.writing() as connection:
                    self._retired.add(nodes.keep(connection, owner, node, mark, hint))
            self._retired.done(node.id)

    def has_node(self, id: int) -> bool:
        """Whether a user's device has a node. Nobody takes one or gives one up meanwhile."""
        with self._vault.writing():
            user, _ = self._noded(id)
            try:
                with self._vault.owner(user):
                    return True
            except UnknownUser:
                return False

    def node_of(self, session: Session) -> Node | None:
        """A device's node.

        Raises:
            UnknownUser: removed meanwhile.
        """
        with self._vault.owner(session.user) as owner, self._database.reading() as connection:
            found = [one for one in nodes.listed(connection, owner) if one.device == session.device]
            return found[0] if found else None

    def participants(self, ids: Iterable[int]) -> list[Participant]:
        """Who of these nodes may take part in rounds; the rest is left out."""
        found = (self._participant(id) for id in ids)
        return [one for one in found if one is not None]

    def devices(self, name: str) -> list[Device]:
        """A user's devices, those revoked too.

        Raises:
            NameUnknown.
        """
        with self._owner_of(name) as owner, self._database.reading() as connection:
            return devices_module.listed(connection, owner)

    def revoke(self, name: str, device: bytes) -> Device:
        """Let a device in no more; not with another invitation either. A new one needs new keys.

        Its keys stay on the user's own list until another device of the user removes them: `add_change`.

        Raises:
            NameUnknown, DeviceUnknown.
        """
        with self._vault.writing(), self._owner_of(name) as owner, self._database.writing() as connection:
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

    def _participant(self, id: int) -> Participant | None:
        user, row = self._noded(id)
        if row is None:
            return None
        try:
            with self._vault.owner(user) as owner, self._database.reading() as connection:
                device = bytes.fromhex(user_facts.opened(owner, row)["device"])
                signing = devices_module.signing_key(connection, owner, device)
                if signing is None or not user_facts.let_in(
                    owner, user_facts.of(connection, owner, Kind.USER)
                ):
                    return None
                return Participant(id, nodes.pseudonym(owner), signing)
        except UnknownUser:
            return None

    def _noded(self, id: int) -> tuple[bytes, Fact | None]:
        """Whose node it is, and its row; nobody's id where there is none."""
        with self._database.reading() as connection:
            row = user_facts.by_mark(connection, Kind.NODE, self._node_mark(id))
        user = None if row is None else _hinted(row, self._index_key, _NODE_LABEL)
        return user or bytes(16), row

    def _node_mark(self, id: int) -> bytes:
        return hmac.digest(self._index_key, b"node\0" + id.to_bytes(8, "big"), "sha256")

    def _mark(self, name: str) -> bytes:
        return hmac.digest(self._index_key, b"name\0" + _folded(name).encode(), "sha256")

    def _refuse_taken(self, name: str, mark: bytes) -> None:
        with self._database.reading() as connection:
            if user_facts.by_mark(connection, Kind.USER, mark) is not None:
                raise NameTaken(f"there is a user {name!r}", "choose another name, or invite that one again")

    def _added(self, connection: Connection, user: User, mark: bytes, invited_s: int) -> Added:
        with self._vault.owner(user.id) as owner:
            hint = encrypt(self._index_key, b"antefix/v1/registry name\0" + mark, user.id)
            user_facts.add(connection, owner, Kind.USER, mark, _content(user), hint)
            return Added(user, self._invited(connection, owner, invited_s))

    def _owner_of(self, name: str) -> Owner:
        with self._database.reading() as connection:
            row = user_facts.by_mark(connection, Kind.USER, self._mark(name))
        if row is None:
            raise NameUnknown(f"there is no user {name!r}", "antefix-server users list")
        try:
            return self._vault.owner(self._id_in(row))
        except UnknownUser:  # removed meanwhile
            raise NameUnknown(f"there is no user {name!r}", "antefix-server users list") from None

    def _row(self, connection: Connection, owner: Owner, name: str) -> Fact:
        row = user_facts.by_mark(connection, Kind.USER, self._mark(name))
        if row is None:
            raise NameUnknown(f"there is no user {name!r}", "antefix-server users list")
        return row

    def _id_in(self, row: Fact) -> bytes:
        return _hinted(row, self._index_key, b"antefix/v1/registry name\0") or bytes(16)

    def _invited(self, connection: Connection, owner: Owner, invited_s: int) -> Invitation:
        made = Invitation.fresh(self._server)
        hint = encrypt(made.key, b"antefix/v1/registry invitation\0" + made.lookup_id, owner.user)
        content = {"until": int(time.time()) + invited_s, "used": ""}
        user_facts.add(connection, owner, Kind.INVITATION, made.lookup_id, content, hint)
        return made

    def _invited_owner(self, row: Fact, invitation: Invitation) -> Owner:
        user = _hinted(row, invitation.key, b"antefix/v1/registry invitation\0")
        try:
            return self._vault.owner(user or bytes(16))
        except UnknownUser:
            raise InvitationRefused from None


def _hinted(row: Fact, key: bytes, label: bytes) -> bytes | None:
    """The user's id beside a row."""
    plain = None if row.hint is None else decrypt(key, label + row.mark, row.hint)
    return None if plain is None else bytes(plain.data)


def _folded(name: object) -> str:
    """A name without what the eye does not tell apart.

    Raises:
        InvalidArgument: what is no name.
    """
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        size = len(name) if isinstance(name, str) else 0
        raise InvalidArgument(f"a name of {size:,} characters", f"1 to {_LONGEST_NAME}")
    folded = unicodedata.normalize("NFKC", name).casefold()
    if not folded.isprintable() or folded != folded.strip() or folded == "":
        raise InvalidArgument("the name has characters in it that do not show", "use letters and digits")
    return folded


def _content(user: User) -> dict[str, Any]:
    return {"name": user.name, "added": user.added, "suspended": user.suspended}


def _user(owner: Owner, row: Fact) -> User:
    return User(id=owner.user, **user_facts.opened(owner, row))
