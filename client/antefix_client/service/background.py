"""What the service of a joined device does by itself: it syncs, and keeps the node for rounds running."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from antefix.errors import AntefixError
from antefix.wire import NodeKey
from antefix_client.errors import DeviceRefused, NotJoined, ServerRefused
from antefix_client.membership import Membership
from antefix_client.remote.server_state import ServerState
from antefix_client.rounds.exit_codes import KEY_REJECTED

_LOG = logging.getLogger("antefix.service")
SYNC_S, _LONGEST_S = 30.0, 600.0
_STOP_S = 10.0
_MAX_REJECTED_KEYS = 3


@dataclass
class SyncState:
    """How it stands; nothing in it is private.

    Attributes:
        synced: seconds since 1970 of the last sync that went through; None for none yet.
        problem: why the last one did not, or granted nothing that was due; empty for neither.
        conflict: a version of another device waits for a choice.
        refused: the server does not let this device in.
        node: the node for rounds runs.
        release: version of the release in use.
    """

    synced: float | None = None
    problem: str = ""
    conflict: bool = False
    refused: bool = False
    node: bool = False
    release: int | None = None


class BackgroundSync:
    """One thread beside the service, and the node's process.

    Attributes:
        membership: of the service's model.
    """

    def __init__(self, membership: Membership, socket: Path | None, every_s: float = SYNC_S) -> None:
        """Do nothing yet.

        Args:
            membership: of the service's model.
            socket: of the service; without one there is no node.
            every_s: seconds between two syncs.
        """
        self.membership, self._socket, self._every_s = membership, socket, every_s
        self._state, self._stopping, self._now = SyncState(), threading.Event(), threading.Event()
        self._node: subprocess.Popen[bytes] | None = None
        self._rejected_keys = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def own_socket(self) -> bool:
        """Whether the service listens on a socket of the profile, not on a port."""
        return self._socket is not None

    def start(self) -> None:
        """Begin, where the profile is on a server or comes on one."""
        self._thread.start()

    def stop(self) -> None:
        """End the node and the thread."""
        self._stopping.set()
        self._now.set()
        self._thread.join(_STOP_S)
        self._end_node()

    def trigger(self) -> None:
        """Sync now."""
        self._now.set()

    def state(self) -> dict[str, Any]:
        """How it stands, as JSON."""
        self._state.node = self._node is not None and self._node.poll() is None
        return asdict(self._state)

    def node_credentials(self) -> dict[str, str]:
        """What the node's process needs, for our own socket alone. Private.

        Raises:
            NotJoined.
        """
        state = self.membership.server.state()
        return {
            "server": urlsplit(state.url).netloc,
            "authority": state.authority,
            "token": state.token,
            "key": state.node_key,
        }

    def _run(self) -> None:
        wait = self._every_s
        while not self._stopping.is_set():
            try:
                result = self.membership.sync()
                version = self.membership.follow(progress=False)
                if result.problem and result.problem != self._state.problem:
                    _LOG.warning("granted nothing: %s", result.problem)
                self._state = SyncState(time.time(), result.problem, result.conflict, release=version)
                self._ensure_node()
                wait = self._every_s
            except NotJoined:
                self._state, wait = SyncState(), self._every_s
                self._end_node()
            except AntefixError as error:
                if error.message != self._state.problem:
                    _LOG.warning("%s", error.message)
                refused = isinstance(error, DeviceRefused)
                self._state = SyncState(self._state.synced, error.message, self._state.conflict, refused)
                if refused:
                    self._end_node()
                wait = min(_LONGEST_S, 2 * wait)
            except Exception as error:  # the thread must not end in silence, whatever a server sends
                _LOG.exception("the sync failed")
                self._state = SyncState(self._state.synced, f"{type(error).__name__}", self._state.conflict)
                wait = min(_LONGEST_S, 2 * wait)
            # Not all devices at once: after an outage they would all come back together.
            self._now.wait(wait * random.uniform(0.8, 1.2))
            self._now.clear()

    def _ensure_node(self) -> None:
        """Keep the node running where the user wants it, and not where not."""
        state = self.membership.server.state()
        if not state.rounds or self._socket is None:
            self._end_node()
            return
        code = None if self._node is None else self._node.poll()
        if self._node is not None and code is None:
            return
        self._rejected_keys = self._rejected_keys + 1 if code == KEY_REJECTED else 0
        if self._rejected_keys > _MAX_REJECTED_KEYS:  # each key stays in Flower's database for good
            raise ServerRefused("Flower takes no key of this device", "start the service again")
        self._register(state, fresh=code == KEY_REJECTED)
        command = [sys.executable, "-m", "antefix_client.rounds.node", str(self._socket)]
        self._node = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def _register(self, state: ServerState, fresh: bool) -> None:
        """Tell the server by which key the node comes; a key that is rejected gives way to a new one."""
        with self.membership.model.session.locked() as profile:
            device = profile.keys.device.id
        for again in (False, True):
            if fresh or again or not state.node_key:
                state = self.membership.rounds.renew_node()
            with self.membership.server.connect() as api:
                if api.register_node(NodeKey.proved(state.node, device)) is not None:
                    return
        raise ServerRefused("the server takes no key for rounds", "ask its operator")

    def _end_node(self) -> None:
        node, self._node = self._node, None
        if node is None or node.poll() is not None:
            return
        node.terminate()
        try:
            node.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()
