"""After a revocation nothing of a prefix is left in the memory of the server, which had it in the clear.

The control finds the prefix before, and those of others after.
"""

import json
from pathlib import Path

import pytest

from antefix import FrozenBase
from tests.client.people import tiny_folder
from tests.hosted import Device
from tests.hosting import prefix_of
from tests.processes import command, part, up, wait_for
from tests.server.needles import Needles


def needles_of(device: Device) -> Needles:
    content = device.prefix.values.numpy().tobytes()
    together = 4 * device.prefix.layout.slots[0].head_dim  # bytes, however a prefix is cut up
    return Needles(content[at : at + 20] for at in range(0, len(content), together))


@pytest.mark.slow
def test_a_revoked_prefix_is_in_no_memory(tmp_path: Path) -> None:
    folder, data = tiny_folder(tmp_path / "base"), tmp_path / "data"
    base = FrozenBase.load(str(folder), progress=False)
    command(data, "init", data)
    (data / "server.toml").write_text(f'inference = "{folder}"\n')
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
        pid = part(supervisor, "_serving").pid
        ann, bob = devices["ann"], devices["bob"]
        assert len(needles_of(ann).in_memory(pid)) > ann.prefix.length
        ann.revoke(grants["ann"])
        wait_for(lambda: not needles_of(ann).in_memory(pid), 20)
        bob.write("An ornament", 4)
        assert needles_of(ann).in_memory(pid) == set()
        assert len(needles_of(bob).in_memory(pid)) > bob.prefix.length
        command(data, "users", "suspend", "bob")
        wait_for(lambda: not needles_of(bob).in_memory(pid), 20)
        for one in devices.values():
            one.close()
