"""A device, or somebody in between, sends what must not get into the shared prefix.

Each is refused by itself, with its reason in the log and no number of it; the honest ones count.
"""

import logging
import struct
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from antefix.crypto import hpke
from antefix.keys import DeviceKeys
from antefix.rounds import Round, Update
from antefix_server.rounds.config import RoundConfig
from antefix_server.rounds.runner import RoundRunner
from antefix_server.rounds.shared_prefix import SharedVector
from tests.support.records import some_bytes
from tests.support.server.rounds import Device, replied, rig, sealed_in, signed

pytestmark = pytest.mark.slow

PLAN = RoundConfig(num_server_rounds=1, min_users=3, steps=1, round_timeout_s=3, clip=0.5)
SIZE = 0


def statement(message: Message) -> Round:
    return Round.model_validate_json(signed(message, "round").body)


def vector_of(message: Message, value: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    content = message.content.array_records["arrays"]["shared"].numpy().tobytes()
    return np.full(len(SharedVector.of(content).values), value, np.float32)


def update(message: Message, value: float, device: Device, *, node: int = 1, size: int = 0) -> Message:
    """Sealed and signed as it should be; only its numbers are not."""
    vector = vector_of(message, value)[: size or None]
    return replied(Update(vector, 6).sealed(statement(message), node, device.keys), message)


def refused(forge: Any, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The forged answer of node 1 does not count, the other three do."""
    host, grid = rig(4)
    device = grid.devices[1]
    device.forge = lambda message, reply: forge(message, reply, device)
    with caplog.at_level(logging.WARNING):
        RoundRunner(FedAvg(), host, PLAN, tmp_path).run(grid)
    assert len(host.releases) == 2
    moved = SharedVector.of(host.prefixes[2]).values - SharedVector.of(host.prefixes[1]).values
    assert np.linalg.norm(moved) <= PLAN.clip * 1.001
    said = [one.getMessage() for one in caplog.records if one.name == "antefix.rounds"]
    assert [line for line in said if line.startswith("node 1: ") and why in line]
    assert not [line for line in said if line.startswith(("node 2", "node 3", "node 4"))]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none(value: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refused(lambda m, _, d: update(m, value, d), "NaN or infinite", tmp_path, caplog)


def test_longer_than_the_clip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refused(lambda m, _, d: update(m, 1e30, d), "longer than the clip", tmp_path, caplog)


def test_of_another_shape(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refused(lambda m, _, d: update(m, 0.0, d, size=3), "bytes, expected", tmp_path, caplog)


def test_a_count_that_lies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A weight of four billion texts would drown everybody else."""

    def forge(message: Message, _: Message, device: Device) -> Message:
        round, vector = statement(message), vector_of(message, 0.0)
        body = struct.pack(">IId", 2**32 - 1, len(vector), 0.0) + vector.tobytes()
        bound = round.bound(1)
        signature = device.keys.sign(b"antefix/v1/signed update\0" + bound + body)
        key = hpke.public_key(bytes.fromhex(round.key))
        return replied(hpke.SUITE.encrypt(body + signature, key, info=bound), message)

    refused(forge, "as many as they can be", tmp_path, caplog)


def test_in_another_devices_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sealed for node 1, signed by a device that does not have it: a SuperLink that makes up answers."""
    stranger = DeviceKeys(some_bytes("a stranger", 64))

    def forge(message: Message, _: Message, device: Device) -> Message:
        vector = vector_of(message, 0.0)
        return replied(Update(vector, 6).sealed(statement(message), 1, stranger), message)

    refused(forge, "not signed by the device", tmp_path, caplog)


def test_another_nodes_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refused(lambda m, _, d: update(m, 0.0, d, node=2), "does not open", tmp_path, caplog)


def test_an_answer_of_an_earlier_round(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept: list[bytes] = []

    def forge(message: Message, reply: Message, device: Device) -> Message:
        kept.append(sealed_in(reply))
        return replied(kept[0], message)

    host, grid = rig(4)
    grid.devices[1].forge = lambda message, reply: forge(message, reply, grid.devices[1])
    plan = RoundConfig(num_server_rounds=2, min_users=3, steps=1, round_timeout_s=3, clip=0.5)
    with caplog.at_level(logging.WARNING):
        RoundRunner(FedAvg(), host, plan, tmp_path).run(grid)
    said = [one.getMessage() for one in caplog.records if one.name == "antefix.rounds"]
    assert [line for line in said if line.startswith("node 1: ")] == [
        "node 1: the update is refused: it does not open"
    ]


def test_every_bit_of_an_answer_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def forge(message: Message, reply: Message, device: Device) -> Message:
        sealed = bytearray(sealed_in(reply))
        sealed[len(sealed) // 2] ^= 1
        return replied(bytes(sealed), message)

    refused(forge, "does not open", tmp_path, caplog)


NUMPY = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': "
ODD = {
    "an archive": b"PK\x03\x04" + bytes(200),
    "a huge shape": NUMPY + b"(70368744177664,), }" + bytes(99),
    "half a header": NUMPY + b"((((" + bytes(99),
    "nothing": b"",
}


@pytest.mark.parametrize("what", ODD)
def test_bytes_that_are_no_array(what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Read by numpy, these raise errors of every kind, or take memory without end."""

    def forge(message: Message, reply: Message, device: Device) -> Message:
        array = Array("uint8", (max(1, len(ODD[what]) - 128),), "numpy.ndarray", ODD[what])
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": ArrayRecord({"sealed": array}), "metrics": metrics})
        return Message(content, reply_to=message)

    refused(forge, "the update is refused", tmp_path, caplog)


def test_an_answer_that_flower_cannot_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Garbage in place of a message ends the pull with an error: of that one alone."""
    host, grid = rig(4)
    pull = grid.pull_messages

    def broken(names: Any) -> Any:
        for name in names:
            if name == "0":
                raise RecursionError("a message nested 1,500 deep")
        return pull(names)

    grid.pull_messages = broken  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.WARNING):
        RoundRunner(FedAvg(), host, PLAN, tmp_path).run(grid)
    assert len(host.releases) == 2
    assert "an answer cannot be read (RecursionError)" in caplog.text


def test_answers_that_are_announced_and_never_uploaded(tmp_path: Path) -> None:
    """Flower waits three minutes for the rest of each; neither the others nor the round do."""
    host, grid = rig(6)
    pull, over = grid.pull_messages, threading.Event()

    def stalled(names: Any) -> Any:
        if names[0] in ("0", "2", "4"):
            over.wait(60)
        return pull(names)

    grid.pull_messages = stalled  # type: ignore[method-assign, assignment]
    begun = time.monotonic()
    RoundRunner(FedAvg(), host, PLAN, tmp_path).run(grid)
    over.set()
    assert len(host.releases) == 2
    assert time.monotonic() - begun < 3 * PLAN.round_timeout_s


def test_an_answer_that_takes_its_time_counts(tmp_path: Path) -> None:
    host, grid = rig(3)
    pull = grid.pull_messages

    def slowly(names: Any) -> Any:
        time.sleep(0.7 if names[0] == "0" else 0)
        return pull(names)

    grid.pull_messages = slowly  # type: ignore[method-assign, assignment]
    RoundRunner(FedAvg(), host, PLAN, tmp_path).run(grid)  # three are needed, so all counted
    assert len(host.releases) == 2


def test_whose_user_was_removed_meanwhile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host, grid = rig(4)

    def gone(message: Message, reply: Message) -> Message:
        del host.users[1]
        return reply

    grid.devices[1].forge = gone
    with caplog.at_level(logging.WARNING):
        RoundRunner(FedAvg(), host, PLAN, tmp_path).run(grid)
    assert len(host.releases) == 2
    assert "node 1: the update is refused: its user was removed" in caplog.text


@pytest.mark.parametrize("what", ["other name", "two arrays", "floats", "no bytes", "config"])
def test_other_records(what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def forge(message: Message, reply: Message, device: Device) -> Message:
        good = Array(np.frombuffer(sealed_in(reply), np.uint8))
        arrays = {
            "other name": {"update": good},
            "two arrays": {"sealed": good, "more": good},
            "floats": {"sealed": Array(np.zeros(4, np.float32))},
            "no bytes": {"sealed": Array("uint8", (4,), "numpy.ndarray", b"not an array")},
            "config": {},
        }[what]
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1})})
        if what == "config":
            content["config"] = ConfigRecord({"run": "this"})
        return Message(content, reply_to=message)

    refused(forge, "the update is refused", tmp_path, caplog)
