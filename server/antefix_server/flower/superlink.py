"""The Flower SuperLink beside the gateway, by its control interface on loopback.

That interface has no authentication, so nothing but this machine may reach it. Needs the extra `federated`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor

from antefix_server.errors import FlowerRefused, FlowerUnreachable

Answer = TypeVar("Answer")


class SuperLink:
    """Registers and unregisters nodes. Any thread may call anything."""

    def __init__(self, address: str, authority: Path) -> None:
        """Connect with the first call.

        Args:
            address: host and port.
            authority: certificate of who signed the SuperLink's, PEM.
        """
        self._client = ControlHttpClient.from_server_address(
            address, False, str(authority), [RuntimeVersionHttpInterceptor(component_name="antefix-server")]
        )

    def register(self, key: bytes, name: str) -> int:
        """Number of a new node.

        Args:
            key: its public key, PEM, of a NIST curve; one that was never registered before.
            name: what Flower shows for it; says nothing of the user.

        Raises:
            FlowerRefused, FlowerUnreachable.
        """
        answer = _called(self._client.RegisterNode, RegisterNodeRequest(public_key=key, name=name))
        return int(answer.node_id)

    def unregister(self, node: int) -> None:
        """Let a node in no more; its key is burnt. One that is not there is no error.

        Raises:
            FlowerUnreachable.
        """
        try:
            _called(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node))
        except FlowerRefused:
            if any(info.node_id == node and info.status != "unregistered" for info in self._nodes()):
                raise

    def _nodes(self) -> list[Any]:
        return list(_called(self._client.ListNodes, ListNodesRequest()).nodes_info)


def _called(call: Callable[[Any], Answer], request: object) -> Answer:
    try:
        return call(request)
    except httpx.HTTPStatusError as error:
        details = FlowerError.from_json(error.response.text)
        why = f"code {details.code}: {details.message}" if details else f"status {error.response.status_code}"
        raise FlowerRefused(f"Flower's SuperLink refused ({why})", "see its log") from None
    except httpx.HTTPError as error:
        raise FlowerUnreachable(
            f"Flower's SuperLink does not answer ({type(error).__name__})", "try again in a moment"
        ) from None
