"""A user's device that lets a server generate under its prefix, over HTTP."""

from typing import Any

import httpx
import openai

from antefix import Prefix
from antefix.grants import Epoch, issue_grant
from antefix.records import shape_of
from antefix.wire import Invitation, Signed
from tests.support.records import Owner
from tests.support.server.gateway import enrolled
from tests.support.vaults import Person


class Device:
    """A device with keys and a prefix, and no profile.

    Attributes:
        person: its user, who has stored the newest of its records.
        prefix: of that record, or of the next one.
        http, openai: clients that send its token.
    """

    def __init__(self, url: str, name: str, invitation: str, prefix: Prefix) -> None:
        """Enrol with an invitation."""
        owner = Owner.named(name)
        answer = enrolled(url, Invitation.parse(invitation), owner.device)
        self.person = Person.with_id(bytes.fromhex(answer.tenant), bytes.fromhex(answer.user), name)
        self.prefix = prefix
        headers = {"Authorization": f"Bearer {answer.token}"}
        self.http = httpx.Client(base_url=url, headers=headers, verify=False, timeout=60)
        self.openai: Any = openai.OpenAI(
            base_url=f"{url}/v1", api_key=answer.token, http_client=self.http, max_retries=0
        )

    def store(self) -> None:
        """Store the prefix as the next version."""
        owner = self.person.owner
        at, base = owner.address, bytes.fromhex(self.prefix.base_fingerprint)
        shape = shape_of(self.prefix.layout.digest, self.prefix.length, "fp32")
        owner.address = type(at)(at.tenant, at.user, at.prefix, base, shape)
        record, before = self.person.next(self.prefix.to_bytes()), self.person.version
        path = f"/v1/records/{self.person.prefix.hex()}"
        answer = self.http.put(path, content=record, params={"replaces": before})
        assert answer.status_code == 200, answer.text
        self.person.record, self.person.version = record, before + 1

    def grant(self) -> str:
        """Grant the newest version, and return the id of the grant."""
        owner = self.person.owner
        epoch = Epoch.model_validate_json(Signed.parse(self.http.get("/v1/epoch").content).body)
        signed = issue_grant(
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

    def revoke(self, grant: str) -> None:
        """Revoke a grant."""
        answer = self.http.delete(f"/v1/grants/{grant}")
        assert answer.status_code == 200, answer.text

    def write(self, prompt: str, tokens: int, **more: Any) -> Any:
        """Ask for a completion under the granted prefix."""
        request = {"model": "personal", "prompt": prompt, "max_tokens": tokens, "temperature": 0, **more}
        return self.openai.completions.create(**request)

    def close(self) -> None:
        """Close the connection."""
        self.http.close()
