"""Gathers the answers of a round: each is opened, checked, added, and forgotten before the next one."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
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
_HEAD = 128
"""Bytes that numpy writes before those of a flat array."""
_ARRAYS, _SEALED = "arrays", "sealed"


@dataclass
class Gathered:
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
class Gathering:
    """How the answers of one round are read.

    Attributes:
        round: as it was signed.
        key: of the round.
        askable: who was asked, by node.
        still: whether a node may still take part.
        size: numbers of an update.
        take: what is done with each update that counts.
    """

    round: Round
    key: RoundKey
    askable: Mapping[int, Participant]
    still: Callable[[int], bool]
    size: int
    take: Callable[[Update], None]

    def read(self, answers: Iterable[Message]) -> Gathered:
        """Read them as they come. What is wrong with one does not touch the others."""
        found = Gathered()
        for answer in answers:
            try:
                self._add(found, answer)
            except UpdateRefused as error:
                self._refuse(found, answer, error.message)
            except Exception as error:  # a device must not end everybody's round, whatever it sends
                self._refuse(found, answer, f"it cannot be read ({type(error).__name__})")
        return found

    def _refuse(self, found: Gathered, answer: Message, why: str) -> None:
        found.refused[why] += 1
        _LOG.warning("node %d: %s", answer.metadata.src_node_id, why)

    def _add(self, found: Gathered, answer: Message) -> None:
        node = answer.metadata.src_node_id
        who = self.askable.get(node)
        if who is None:
            raise UpdateRefused("its node was not asked")
        if who.user in found.users:
            raise UpdateRefused("its user's update is there already")
        sealed = _sealed_in(answer)
        update = Update.opened(sealed, self.round, self.key, node=node, signing=who.signing, size=self.size)
        if not self.still(node):
            raise UpdateRefused("its user was removed or suspended meanwhile")
        self.take(update)
        found.users.add(who.user)
        if update.loss == update.loss:
            found.losses.append((update.loss, update.examples))


def answers_of(grid: Grid, messages: Iterable[Message], until: float) -> Iterable[Message]:
    """Send messages; their answers as they come, until all are there or it is too late (monotonic)."""
    waiting, pulls = set(grid.push_messages(messages)), _Pulls(grid)
    while waiting and time.monotonic() < until:
        before = len(waiting)
        for name in sorted(waiting):  # one by one: Flower itself cannot read what some devices send
            try:
                found = pulls.pull(name, until)
            except Exception as error:
                _LOG.warning("an answer cannot be read (%s)", type(error).__name__)
                waiting.discard(name)
                continue
            if found:
                waiting.discard(name)
                yield found[0]
        if len(waiting) == before:
            time.sleep(min(_POLL_S, max(0.0, until - time.monotonic())))


class _Pulls:
    """Pulls answers, none of which can hold up the others or the round.

    A device announces an answer and then uploads its parts. Flower waits three minutes for the parts of one
    that stopped in between, whether it was removed, went out of reach, or wants to stall everybody.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._slow: dict[str, queue.Queue[list[Message] | Exception]] = {}

    def pull(self, name: str, until: float) -> list[Message]:
        """An answer; none if it is not there yet.

        Raises:
            Exception: whatever Flower raises about what it cannot read.
        """
        if time.monotonic() >= until:
            return []
        asked = self._slow.pop(name, None)
        patience = 0.0 if asked else min(_PATIENCE_S / (1 + len(self._slow)), until - time.monotonic())
        if asked is None:
            asked = queue.Queue(1)
            threading.Thread(target=self._work, args=(name, asked), daemon=True).start()
        try:
            found = asked.get(timeout=max(patience, 1e-3))
        except queue.Empty:
            self._slow[name] = asked  # its thread goes on; the answer may come in a later turn
            return []
        if isinstance(found, Exception):
            raise found
        return found

    def _work(self, name: str, asked: queue.Queue[list[Message] | Exception]) -> None:
        try:
            asked.put(list(self._grid.pull_messages([name])))
        except Exception as error:
            asked.put(error)


def _sealed_in(answer: Message) -> bytes:
    """The ciphertext of an answer.

    Raises:
        UpdateRefused: an error of the device, or anything else than what is asked for.
    """
    if answer.has_error():
        raise UpdateRefused("the device did not take part")
    records = answer.content.array_records
    if set(records) != {_ARRAYS} or set(records[_ARRAYS]) != {_SEALED}:
        raise UpdateRefused("it has other arrays than asked for")
    array = records[_ARRAYS][_SEALED]
    # Not by numpy's reader: it opens archives, and makes arrays of whatever size their header says.
    size = len(array.data) - _HEAD
    if array.dtype != "uint8" or size <= 0 or tuple(array.shape) != (size,):
        raise UpdateRefused("it is not bytes")
    if array.data[:_HEAD] != Array(np.zeros(size, np.uint8)).data[:_HEAD]:
        raise UpdateRefused("it is not an array")
    return array.data[_HEAD:]
