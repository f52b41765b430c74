"""The device's node in rounds: `python -m antefix_client.rounds.node SOCKET`, run by the resident service.

A process of its own without torch: it carries messages between the server and the service, which alone has
the profile. It runs the installed `antefix_client.rounds.flower_app` and nothing that comes from a server.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from flwr.app import Context, Message, RecordDict
from flwr.app.error import Error
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ObjectTree

from antefix.errors import AntefixError
from antefix.rounds.fab_digest import DIGEST
from antefix_client.errors import DeviceRefused, MembershipError, ServerRefused
from antefix_client.remote.server_state import load_node_key
from antefix_client.rounds.exit_codes import DEVICE_REFUSED, KEY_REJECTED
from antefix_client.rounds.fleet_client import HEARTBEAT_S, FleetClient

_LOG = logging.getLogger("antefix.node")
_POLL_S = 2.0
_LONGEST_WAIT_S = 60.0


class NodeKeyRejected(ServerRefused):
    """Flower does not take the node's key any more."""


App = Callable[[Message, Context], Message]


@dataclass(frozen=True)
class NodeCredentials:
    """What a node needs; the service gives it over its socket. Private.

    Attributes:
        server: host and port.
        authority: PEM, or empty.
        token: of the device.
        key: of the node, PEM.
    """

    server: str
    authority: str
    token: str = field(repr=False)
    key: str = field(repr=False)


def run(passport: NodeCredentials, app: App, stop: threading.Event, poll_s: float = _POLL_S) -> None:
    """Take part until `stop`, or until the server knows this device no more.

    Raises:
        DeviceRefused, NodeKeyRejected.
    """
    wait = poll_s
    while not stop.is_set():
        key = load_node_key(passport.key)
        link = FleetClient(passport.server, passport.authority, passport.token, key)
        try:
            number = _activated(link)
            _LOG.info("node %d is there", number)
            wait = poll_s
            _serve(link, app, stop, poll_s)
        except (DeviceRefused, NodeKeyRejected):
            raise
        except MembershipError as error:
            _LOG.warning("%s; tried again in %.0f s", error.message, wait)
            stop.wait(wait)
            wait = min(_LONGEST_WAIT_S, 2 * wait)
        finally:
            link.close()


def answer(link: FleetClient, app: App, message: Message, tree: ObjectTree) -> Message:
    """The reply to a message; an error where it is of another bundle, or cannot be answered."""
    bundle = link.bundle_of(message)
    if bundle != DIGEST:
        _LOG.warning("a run with bundle %.12s… is refused, this version knows %.12s…", bundle, DIGEST)
        reason = f"this device takes part in runs of bundle {DIGEST} alone"
        return Message(Error(ErrorCode.INVALID_FAB, reason), reply_to=message)
    whole = link.pull_content(message, tree)
    context = Context(
        run_id=whole.metadata.run_id,
        node_id=whole.metadata.dst_node_id,
        node_config={},
        state=RecordDict(),
        run_config={},
    )
    try:
        return app(whole, context)
    except Exception as error:  # whatever a hostile message sets off must not end the node
        _LOG.warning("a message was not answered: %s", type(error).__name__)
        reason = f"{type(error).__name__}"
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=whole)


def _activated(link: FleetClient) -> int:
    try:
        return link.activate()
    except ServerRefused as error:
        raise NodeKeyRejected(error.message, error.hint, error.status) from None


def _serve(link: FleetClient, app: App, stop: threading.Event, poll_s: float) -> None:
    gone = threading.Event()
    beating = threading.Thread(target=_beat, args=(link, gone), daemon=True)
    beating.start()
    try:
        while not stop.is_set():
            pulled = link.receive()
            if pulled is None:
                stop.wait(poll_s)
                continue
            began = time.monotonic()
            reply = answer(link, app, *pulled)
            link.reply(reply, time.monotonic() - began)
    finally:
        gone.set()
        beating.join()


def _beat(link: FleetClient, gone: threading.Event) -> None:
    """Training takes minutes; meanwhile Flower must not take the node for lost."""
    while not gone.wait(HEARTBEAT_S / 3):
        try:
            link.heartbeat()
        except MembershipError as error:
            _LOG.warning("no heartbeat: %s", error.message)


def _passport(socket: str) -> NodeCredentials:
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=socket, verify=False), base_url="http://antefix"
    ) as service:
        answer = service.get("/antefix/v1/passport").raise_for_status()
    return NodeCredentials(**json.loads(answer.content))


def main() -> None:
    """Until SIGTERM, or until the service that started it is gone."""
    from antefix_client.rounds.flower_app import app

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    socket, stop = sys.argv[1], threading.Event()
    os.environ["ANTEFIX_SOCKET"] = socket
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_end_with_parent, args=(os.getppid(), stop), daemon=True).start()
    try:
        run(_passport(socket), app, stop)
    except DeviceRefused as error:
        _LOG.warning("%s", error.message)
        sys.exit(DEVICE_REFUSED)
    except NodeKeyRejected as error:
        _LOG.warning("%s", error.message)
        sys.exit(KEY_REJECTED)
    except (AntefixError, httpx.HTTPError) as error:
        _LOG.warning("%s", error)
        sys.exit(1)


def _end_with_parent(parent: int, stop: threading.Event) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    stop.set()


if __name__ == "__main__":
    main()
