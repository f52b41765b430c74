"""After a revocation nothing of a prefix is left in the memory of the server, which had it in the clear.

The control finds the prefix before, and those of others after.
"""

import json
from pathlib import Path

import psutil
import pytest

from antefix import FrozenBase
from tests.client.people import tiny_folder
from tests.server.needles import Needles
from tests.support.server.hosted_device import Device
from tests.support.server.hosted_server import prefix_of
from tests.support.server.processes import command, part, up, wait_for


def needles_of(device: Device) -> Needles:
    content = device.prefix.values.numpy().tobytes()
    together = 4 * device.prefix.layout.slots[0].head_dim  # bytes, however a prefix is cut up
    return Needles(content[at : at + 20] for at in range(0, len(content), together))


def found_in(device: Device, serving: psutil.Process) -> set[bytes]:
    """Needles in the gateway's memory, and in that of its engines."""
    processes = [serving, *serving.children()]
    return set().union(*(needles_of(device).in_memory(one.pid) for one in processes))


@pytest.mark.slow
@pytest.mark.parametrize("engines", [1, 2])
def test_a_revoked_prefix_is_in_no_memory(tmp_path: Path, engines: int) -> None:
    folder, data = tiny_folder(tmp_path / "base"), tmp_path / "data"
    base = FrozenBase.load(str(folder), progress=False)
    command(data, "init", data)
    (data / "server.toml").write_text(f'inference = "{folder}"\ninference_engines = {engines}\n')
    with up(data, "--no-rounds") as (url, supervisor):
        devices = {}
        for name in ("ann", "bob"):
            code = json.loads(command(data, "users", "add", name, "--json"))["invitation"]
            devices[name] = Device(url, name, code, prefix_of(base, name))
            devices[name].store()
        grants = {name: one.grant() for name, one in devices.items()}
        for tokens in (4, 40, 150):  # the batch grows, and moves its rows
            for one in devices.values():
                one.write("An ornament " * (1 + tokens // 40), tokens)
        serving = part(supervisor, "gateway.process")
        assert len(serving.children()) == (engines if engines > 1 else 0)
        ann, bob = devices["ann"], devices["bob"]
        assert len(found_in(ann, serving)) > ann.prefix.length
        ann.revoke(grants["ann"])
        wait_for(lambda: not found_in(ann, serving), 20)
        bob.write("An ornament", 4)
        assert found_in(ann, serving) == set()
        assert len(found_in(bob, serving)) > bob.prefix.length
        command(data, "users", "suspend", "bob")
        wait_for(lambda: not found_in(bob, serving), 20)
        for one in devices.values():
            one.close()
