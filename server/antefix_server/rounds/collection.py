"""Collects the replies of a round: each is opened, checked, added, and forgotten before the next one."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, Message
from flwr.serverapp import Grid

from antefix.errors import UpdateRefused
from antefix.rounds import Round, RoundKey, Update
from antefix_server.registry.nodes import Participant

_LOG = logging.getLogger("antefix.rounds")
_POLL_S = 0.5
_PATIENCE_S = 0.5
MAX_PULLS = 1024
"""Replies that may be on their way at once, each in a thread."""
_HEADER_BYTES = 128
"""That numpy writes before those of a flat array."""
_ARRAYS, _SEALED = "arrays", "sealed"


@dataclass
class RoundResult:
    """What came of a round.

    Attributes:
        users: whose update counts.
        refused: why others do not, and how many of each.
        losses: nats per token before training, of those who told, with their texts.
    """

    users: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    losses: list[tuple[float, int]] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Mean nats per token under the shared prefix of before, weighted by texts; NaN for none."""
        texts = sum(count for _, count in self.losses)
        return sum(loss * count for loss, count in self.losses) / texts if texts else float("nan")


@dataclass(frozen=True)
class UpdateCollector:
    """How the replies of one round are read.

    Attributes:
        round: as it was signed.
        key: of the round.
        participants: who was asked, by node.
        is_active: whether a node may still take part.
        size: numbers of an update.
        on_update: called with each update that counts.
    """

    round: Round
    key: RoundKey
    participants: Mapping[int, Participant]
    is_active: Callable[[int], bool]
    size: int
    on_update: Callable[[Update], None]

    def read(self, replies: Iterable[Message]) -> RoundResult:
        """Read replies as they come. What is wrong with one does not touch the others."""
        result = RoundResult()
        for reply in replies:
            try:
                self._add(result, reply)
            except UpdateRefused as error:
                self._refuse(result, reply, error.message)
            except Exception as error:  # a device must not end everybody's round, whatever it sends
                self._refuse(result, reply, f"it cannot be read ({type(error).__name__})")
        return result

    def _refuse(self, result: RoundResult, reply: Message, why: str) -> None:
        result.refused[why] += 1
        _LOG.warning("node %d: %s", reply.metadata.src_node_id, why)

    def _add(self, result: RoundResult, reply: Message) -> None:
        node = reply.metadata.src_node_id
        sender = self.participants.get(node)
        if sender is None:
            raise UpdateRefused("its node was not asked")
        if sender.user in result.users:
            raise UpdateRefused("its user's update is there already")
        sealed = _sealed_in(reply)
        update = Update.opened(
            sealed, self.round, self.key, node=node, signing=sender.signing, size=self.size
        )
        if not self.is_active(node):
            raise UpdateRefused("its user was removed or suspended meanwhile")
        self.on_update(update)
        result.users.add(sender.user)
        if update.loss == update.loss:
            result.losses.append((update.loss, update.examples))


def collect_replies(grid: Grid, messages: Iterable[Message], until: float) -> Iterable[Message]:
    """Send messages; their replies as they come, until all are there or it is too late (monotonic)."""
    waiting, puller = set(grid.push_messages(messages)), ReplyPuller(grid)
    while waiting and time.monotonic() < until:
        previous_count = len(waiting)
        for name in sorted(waiting):  # one by one: Flower itself cannot read what some devices send
            try:
                replies = puller.pull(name, until)
            except Exception as error:
                _LOG.warning("an answer cannot be read (%s)", type(error).__name__)
                waiting.discard(name)
                continue
            if replies:
                waiting.discard(name)
                yield replies[0]
        if len(waiting) == previous_count:
            time.sleep(min(_POLL_S, max(0.0, until - time.monotonic())))


class ReplyPuller:
    """Pulls replies, none of which can hold up the others or the round.

    A device announces a reply and then uploads its parts. Flower waits three minutes for the parts of one
    that stopped in between, whether it was removed, went out of reach, or wants to stall everybody. Such a
    pull keeps a thread of its own, and its reply may come in a later turn. A small pool would do what such
    a device wants: a few of them would fill it. A pool also waits for its threads when the process ends.
    """

    def __init__(self, grid: Grid) -> None:
        """Nothing is pulled yet."""
        self._grid = grid
        self._slow: dict[str, Future[list[Message]]] = {}

    def pull(self, name: str, until: float) -> list[Message]:
        """A reply; none if it is not there yet.

        Raises:
            Exception: whatever Flower raises about what it cannot read.
        """
        left = until - time.monotonic()
        if left <= 0 or (name not in self._slow and len(self._slow) >= MAX_PULLS):
            return []
        pull, patience = self._slow.pop(name, None), 0.0
        if pull is None:
            pull, patience = Future(), min(_PATIENCE_S / (1 + len(self._slow)), left)
            threading.Thread(target=self._work, args=(name, pull), daemon=True).start()
        if not wait([pull], max(patience, 1e-3)).done:
            self._slow[name] = pull
            return []
        return pull.result()

    def _work(self, name: str, pull: Future[list[Message]]) -> None:
        try:
            pull.set_result(list(self._grid.pull_messages([name])))
        except Exception as error:
            pull.set_exception(error)


def _sealed_in(reply: Message) -> bytes:
    """The ciphertext of a reply.

    Raises:
        UpdateRefused: an error of the device, or anything else than what is asked for.
    """
    if reply.has_error():
        raise UpdateRefused("the device did not take part")
    records = reply.content.array_records
    if set(records) != {_ARRAYS} or set(records[_ARRAYS]) != {_SEALED}:
        raise UpdateRefused("it has other arrays than asked for")
    array = records[_ARRAYS][_SEALED]
    # Not by numpy's reader: it opens archives, and makes arrays of whatever size their header says.
    size = len(array.data) - _HEADER_BYTES
    if array.dtype != "uint8" or size <= 0 or tuple(array.shape) != (size,):
        raise UpdateRefused("it is not bytes")
    if array.data[:_HEADER_BYTES] != Array(np.zeros(size, np.uint8)).data[:_HEADER_BYTES]:
        raise UpdateRefused("it is not an array")
    return array.data[_HEADER_BYTES:]
