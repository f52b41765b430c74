"""Flower's fleet interface as a node speaks it, over the gateway, with the device's token.

Flower's own SuperNode would install and run the code that a server sends. This one takes messages alone.
Needs the extra `federated`; Flower calls what is used here its own business, so its version is pinned.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto, run_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from antefix_client.errors import DeviceRefused, ServerRefused, ServerUnreachable

Answer = TypeVar("Answer")
HEARTBEAT_S = 30.0
_MOST_OBJECTS = 256
_WAIT_S = 60.0


class FleetClient:
    """One node's connection. One thread receives and replies; another may send heartbeats."""

    def __init__(self, server: str, authority: str, token: str, key: ec.EllipticCurvePrivateKey) -> None:
        """Connect with the first call.

        Args:
            server: host and port of the gateway.
            authority: certificate of who signed the gateway's, PEM; empty for those that the system knows.
            token: of the device.
            key: of the node, P-384, as the server knows it.
        """
        self._server, self._public = server, key.public_key()
        self._client = FleetHttpClient.from_server_address(
            server,
            False,
            authority.encode() or None,
            [
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, self._public),
                _Token(token),
            ],
        )
        self._node = Node()

    def activate(self) -> int:
        """Say that this node is there; its number.

        Raises:
            ServerUnreachable, DeviceRefused, ServerRefused.
        """
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        key = public_key_to_bytes(self._public)
        request = ActivateNodeRequest(public_key=key, heartbeat_interval=HEARTBEAT_S)
        self._node = Node(node_id=self._send(self._client.ActivateNode, request).node_id)
        return int(self._node.node_id)

    def heartbeat(self) -> None:
        """Say that it is still there."""
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_S)
        self._send(self._client.SendNodeHeartbeat, request)

    def receive(self) -> tuple[Message, ObjectTree] | None:
        """The next message without its content; None for none."""
        answer = self._send(self._client.PullMessages, PullMessagesRequest(node=self._node))
        if not answer.messages_list:
            return None
        return message_from_proto(answer.messages_list[0]), answer.message_object_trees[0]

    def bundle_of(self, message: Message) -> str:
        """SHA-256 of the bundle of a message's run, in hex; the bundle itself is never asked for."""
        request = GetRunRequest(node=self._node, run_id=message.metadata.run_id)
        return run_from_proto(self._send(self._client.GetRun, request).run).fab_hash

    def pull_content(self, message: Message, tree: ObjectTree) -> Message:
        """A message with its content.

        Raises:
            ServerRefused: it has too many parts.
        """
        run = message.metadata.run_id
        if sum(1 for _ in iterate_object_tree(tree)) > _MOST_OBJECTS:
            raise ServerRefused("a message with too many parts")
        pull = make_pull_object_fn_protobuf(self._asking(self._client.PullObject), self._node, run)
        confirm = make_confirm_message_received_fn_protobuf(
            self._asking(self._client.ConfirmMessageReceived), self._node, run
        )
        content = pull_and_inflate_object_from_tree(tree, pull, confirm, return_type=Message)
        content.metadata.__dict__["_message_id"] = message.metadata.message_id
        return content

    def reply(self, reply: Message, seconds: float) -> None:
        """Send an answer, which took so long."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        parts = get_all_nested_objects(reply)
        with no_object_id_recompute():
            tree = get_object_tree(reply)
            bare = remove_content_from_message(reply) if reply.has_content() else reply
            request = PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(bare)],
                message_object_trees=[tree],
                clientapp_runtime_list=[seconds],
            )
            answer = self._send(self._client.PushMessages, request)
            push = make_push_object_fn_protobuf(
                self._asking(self._client.PushObject), self._node, reply.metadata.run_id, answer.session_id
            )
            push_objects(parts, push, object_ids_to_push=set(answer.objects_to_push))

    def close(self) -> None:
        """Say that it goes, if anybody listens."""
        try:
            if self._node.node_id:
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))
        except (httpx.HTTPError, RuntimeError):
            pass
        self._client.close()

    def _asking(self, call: Callable[..., Answer]) -> Callable[..., Answer]:
        return lambda request: self._send(call, request)

    def _send(self, call: Callable[..., Answer], request: object) -> Answer:
        """An answer; what is busy is asked again for a minute."""
        until, wait = time.monotonic() + _WAIT_S, 0.2
        while True:
            try:
                return call(request)
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                if status == 401:
                    raise DeviceRefused from None
                if status not in (429, 502, 503, 504) or time.monotonic() > until:
                    raise ServerRefused(f"the server refused (status {status})", status=status) from None
            except httpx.HTTPError as error:
                if time.monotonic() > until:
                    raise ServerUnreachable(
                        f"{self._server} does not answer ({type(error).__name__})", "it is tried again"
                    ) from None
            time.sleep(wait)
            wait = min(5.0, 2 * wait)


class _Token:
    """The device's token on every request: without it the gateway lets nothing through."""

    def __init__(self, token: str) -> None:
        self._value = f"Bearer {token}"

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add it."""
        context.request.headers["Authorization"] = self._value
        return call_next(context)
