"""Gateway, SuperLink or a device are killed at random points of a run: it goes on or fails cleanly.

`ANTEFIX_KILLS=50` for the long run; CI does fewer.
"""

import json
import random
import time
from pathlib import Path

import psutil
import pytest

from antefix import FrozenBase
from antefix_client.membership import Membership
from tests.client.people import tiny_folder
from tests.support.server.processes import Device, command, federating, part, up, wait_for
from tests.support.trial_counts import ROUND_KILLS

pytestmark = pytest.mark.slow
OPTIONS = ["--rounds", "2", "--min-users", "2", "-c", "steps=1", "-c", "round-timeout-s=15"]
TARGETS = ("gateway.process", "superlink", "superexec", "device", "node")


def releases(data: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(command(data, "base", "list", "--json"))
    return found


def kill(target: str, supervisor: psutil.Process, devices: list[Device], dice: random.Random) -> None:
    """One program, without warning."""
    device = dice.choice(devices)
    assert device.process is not None
    own = psutil.Process(device.process.pid)
    try:
        if target == "device":
            own.kill()
            device.process.wait(10)
            device.serve()
        elif target == "node":
            for one in own.children():
                one.kill()
        else:
            wait_for(lambda: running(supervisor, target), 60).kill()  # it may just be starting again
    except psutil.NoSuchProcess:
        pass  # it was just ending


def running(supervisor: psutil.Process, target: str) -> psutil.Process | None:
    try:
        return part(supervisor, target)
    except StopIteration:
        return None


def records(devices: list[Device], data: Path) -> dict[str, int]:
    """What the server stores: how many, and how many users."""
    said = json.loads(command(data, "status", "--json"))
    return {"users": said["users"], "records": said["records"]}


def test_kills_lose_nothing(tmp_path: Path) -> None:
    data, folder, dice = tmp_path / "data", tiny_folder(tmp_path / "base"), random.Random(7)
    base, log = FrozenBase.load(str(folder)), tmp_path / "federate.log"
    command(data, "init", data)
    devices = [
        Device(
            tmp_path / f"device{number}", base, folder, [f"text {at} of user {number}" for at in range(12)]
        )
        for number in range(3)
    ]
    done: dict[str, int] = {"completed": 0, "failed": 0}
    try:
        with up(data) as (url, supervisor):
            command(data, "base", "publish", folder, "--fresh-shared", 4)
            command(data, "base", "promote", 1)
            for number, device in enumerate(devices):
                code = json.loads(command(data, "users", "add", f"user {number}", "--json"))["invitation"]
                device.join(code, url)
                with device.opened() as model:
                    model.learn(progress=False)
                    Membership(model).sync()
                device.serve()
            wait_for(lambda: all(device.state().get("node") for device in devices), 240)
            before = records(devices, data)
            for number in range(ROUND_KILLS):
                with federating(data, log, *OPTIONS) as run:
                    time.sleep(dice.uniform(0, 12))
                    kill(TARGETS[number % len(TARGETS)], supervisor, devices, dice)
                    code = run.wait(150)
                done["failed" if code else "completed"] += 1
                wait_for(lambda: all(device.state().get("node") for device in devices), 240)
                assert records(devices, data) == before
            count = len(releases(data))
            with federating(data, log, *OPTIONS) as last:
                assert last.wait(150) == 0, log.read_text()[-3000:]
            assert len(releases(data)) > count
            print(f"{ROUND_KILLS} kills: {done}")
        for device in devices:
            device.stop()
            with device.opened() as model:
                assert len(model.texts()) == 12
                assert model.versions()
                assert not model.status().damaged
    finally:
        for device in devices:
            device.stop()
    assert not [path for path in data.rglob("*") if path.name.endswith(".unfinished")]
