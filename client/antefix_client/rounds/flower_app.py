"""The device's side of rounds, as Flower calls it: it hands the message to the resident service.

The service alone has the profile, and decides whether its user takes part. Imports no torch.
"""

from __future__ import annotations

import os

import httpx
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from antefix_client.errors import ServerRefused
from antefix_client.rounds.round_request import RoundRequest

app = ClientApp()
_SOCKET = "ANTEFIX_SOCKET"
_WAIT_S = 3600.0


@app.train()
def train(message: Message, context: Context) -> Message:
    """The sealed update, or an error that says why there is none."""
    try:
        sealed = forward_to_service(parse_request(message, context.node_id))
    except ServerRefused as error:
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, error.message), reply_to=message)
    arrays = ArrayRecord({"sealed": Array(np.frombuffer(sealed, np.uint8))})
    return Message(
        RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message
    )


def parse_request(message: Message, node: int) -> RoundRequest:
    """What a message asks for; nothing in it is believed yet.

    Raises:
        ServerRefused: it is no round.
    """
    try:
        config, arrays = message.content["config"], message.content["arrays"]
        if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord):
            raise TypeError
        release, statement, prefix = config["release"], config["round"], arrays["shared"]
        if not isinstance(release, bytes) or not isinstance(statement, bytes):
            raise TypeError
        if prefix.dtype != "uint8" or len(prefix.shape) != 1:
            raise TypeError
        return RoundRequest(node, release, statement, prefix.numpy().tobytes())
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ServerRefused("the message is no round") from None


def forward_to_service(asked: RoundRequest) -> bytes:
    """What the service makes of it.

    Raises:
        ServerRefused: it does not take part, and says why.
    """
    transport = httpx.HTTPTransport(uds=os.environ[_SOCKET], verify=False)
    try:
        with httpx.Client(transport=transport, base_url="http://antefix", timeout=_WAIT_S) as service:
            answer = service.post("/antefix/v1/round", content=asked.to_bytes())
    except httpx.HTTPError as error:
        raise ServerRefused(f"the device's service is not there ({type(error).__name__})") from None
    if answer.status_code != 200:
        raise ServerRefused(str(answer.json()["error"]["message"])[:300])
    return answer.content
