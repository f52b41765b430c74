"""Which node of Flower belongs to which user's device, for the gateway's fleet and for rounds."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from antefix.crypto.aead import encrypt
from antefix_server.errors import UnknownUser
from antefix_server.registry import devices as devices_module
from antefix_server.registry import nodes
from antefix_server.registry.devices import Session
from antefix_server.registry.nodes import Node, Participant
from antefix_server.registry.retired_nodes import Retired
from antefix_server.registry.user_directory import user_beside
from antefix_server.vault import Vault, user_rows
from antefix_server.vault.user_rows import Kind, UserRow

_LABEL = b"antefix/v1/registry node\0"


class NodeDirectory:
    """Nodes of one vault's users. Any thread may call anything."""

    def __init__(self, vault: Vault, retired: Retired) -> None:
        """Use an open vault; what a device gives up is added to `retired`."""
        self._vault, self._retired = vault, retired
        self._database, self._index_key = vault.shelf.database, vault.identity.index_key

    def keep(self, session: Session, node: Node) -> None:
        """Keep by which node of Flower's a device takes part in rounds; the one that it replaces is retired.

        Raises:
            UnknownUser: removed meanwhile; the node is retired.
        """
        mark = self._mark(node.id)
        with self._vault.writing():
            self._retired.add([node.id])  # first: where it is not kept in the end, nobody would know of it
            with self._vault.owner(session.user) as owner:
                hint = encrypt(self._index_key, _LABEL + mark, owner.user)
                with self._database.writing() as connection:
                    self._retired.add(nodes.keep(connection, owner, node, mark, hint))
            self._retired.done(node.id)

    def has(self, id: int) -> bool:
        """Whether a user's device has a node. Nobody takes one or gives one up meanwhile."""
        with self._vault.writing():
            user, _ = self._find(id)
            try:
                with self._vault.owner(user):
                    return True
            except UnknownUser:
                return False

    def of(self, session: Session) -> Node | None:
        """A device's node.

        Raises:
            UnknownUser: removed meanwhile.
        """
        with self._vault.owner(session.user) as owner, self._database.reading() as connection:
            listed = nodes.listed(connection, owner)
            return next((node for node in listed if node.device == session.device), None)

    def participants(self, ids: Iterable[int]) -> list[Participant]:
        """Which of these nodes may take part in rounds; the rest is left out."""
        participants = (self._participant(id) for id in ids)
        return [participant for participant in participants if participant is not None]

    def _participant(self, id: int) -> Participant | None:
        user, row = self._find(id)
        if row is None:
            return None
        try:
            with self._vault.owner(user) as owner, self._database.reading() as connection:
                device = bytes.fromhex(user_rows.opened(owner, row)["device"])
                signing = devices_module.signing_key(connection, owner, device)
                if signing is None or not user_rows.is_active(
                    owner, user_rows.of(connection, owner, Kind.USER)
                ):
                    return None
                return Participant(id, nodes.pseudonym(owner), signing)
        except UnknownUser:
            return None

    def _find(self, id: int) -> tuple[bytes, UserRow | None]:
        """Whose node it is, and its row; nobody's id where there is none."""
        with self._database.reading() as connection:
            row = user_rows.by_mark(connection, Kind.NODE, self._mark(id))
        user = None if row is None else user_beside(row, self._index_key, _LABEL)
        return user or bytes(16), row

    def _mark(self, id: int) -> bytes:
        return hmac.digest(self._index_key, b"node\0" + id.to_bytes(8, "big"), "sha256")
