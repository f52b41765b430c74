"""After a revocation nothing of a prefix is left in the memory of the server, which had it in the clear.

The control finds the prefix before, and those of others after.
"""

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from antefix import FrozenBase, Prefix
from antefix.grants import Epoch, granted
from antefix.records import shape_of
from antefix.wire import Invitation, Signed
from tests.client.people import tiny_folder
from tests.hosting import prefix_of
from tests.processes import command, part, up, wait_for
from tests.sealed import Owner
from tests.server.needles import Needles
from tests.servers import enrolled
from tests.vaults import Person


class Device:
    """A device that is nothing but its keys, and a prefix."""

    def __init__(self, url: str, name: str, invitation: str, base: FrozenBase) -> None:
        owner = Owner.named(name)
        found = enrolled(url, Invitation.parse(invitation), owner.device)
        self.person = Person.with_id(bytes.fromhex(found.tenant), bytes.fromhex(found.user), name)
        self.prefix: Prefix = prefix_of(base, name)
        headers = {"Authorization": f"Bearer {found.token}"}
        self.http = httpx.Client(base_url=url, headers=headers, verify=False, timeout=60)
        self.openai: Any = openai.OpenAI(
            base_url=f"{url}/v1", api_key=found.token, http_client=self.http, max_retries=0
        )

    @property
    def needles(self) -> Needles:
        content = self.prefix.values.numpy().tobytes()
        together = 4 * self.prefix.layout.slots[0].head_dim  # bytes, however a prefix is cut up
        return Needles(content[at : at + 20] for at in range(0, len(content), together))

    def store(self) -> None:
        owner = self.person.owner
        at, base = owner.address, bytes.fromhex(self.prefix.base_fingerprint)
        shape = shape_of(self.prefix.layout.digest, self.prefix.length, "fp32")
        owner.address = type(at)(at.tenant, at.user, at.prefix, base, shape)
        record = self.person.next(self.prefix.to_bytes())
        path = f"/v1/records/{self.person.prefix.hex()}"
        assert self.http.put(path, content=record).status_code == 200
        self.person.record = record

    def grant(self) -> str:
        owner = self.person.owner
        epoch = Epoch.model_validate_json(Signed.parse(self.http.get("/v1/epoch").content).body)
        signed = granted(
            self.person.record,
            owner.address,
            key=owner.key,
            writers=owner.writers,
            device=owner.device,
            epoch=epoch,
            seconds=600,
        )
        answer = self.http.put("/v1/grants", json=signed.model_dump())
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def write(self, prompt: str, tokens: int) -> None:
        asked = {"model": "personal", "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        assert self.openai.completions.create(**asked).usage.completion_tokens > 0


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
            devices[name] = Device(url, name, code, base)
            devices[name].store()
        grants = {name: one.grant() for name, one in devices.items()}
        for tokens in (4, 40, 150):  # the batch grows, and moves its rows
            for one in devices.values():
                one.write("An ornament " * (1 + tokens // 40), tokens)
        pid = part(supervisor, "_serving").pid
        ann, bob = devices["ann"], devices["bob"]
        assert len(ann.needles.in_memory(pid)) > ann.prefix.length
        assert ann.http.delete(f"/v1/grants/{grants['ann']}").status_code == 200
        wait_for(lambda: not ann.needles.in_memory(pid), 20)
        bob.write("An ornament", 4)
        assert ann.needles.in_memory(pid) == set()
        assert len(bob.needles.in_memory(pid)) > bob.prefix.length
        command(data, "users", "suspend", "bob")
        wait_for(lambda: not bob.needles.in_memory(pid), 20)
        for one in devices.values():
            one.http.close()
