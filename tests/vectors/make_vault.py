"""Writes `vault`, `vault.json` and `vault-keys-before`: a vault of today's format, and what is in it.

    python -m tests.vectors.make_vault

Ann has a second version of her record, a token, and a grant in an epoch of its own; Bob has a record and is
suspended; Eve had one and is removed. `vault-keys-before` is the file of keys from before that removal: it
must bring nobody back. All keys are test material. Made once per format: old vaults must open forever.
"""

import hashlib
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from antefix import FrozenBase, Prefix
from antefix.grants import issue_grant
from antefix.records import shape_of
from antefix_server.grants import Grants
from antefix_server.grants.epochs import Epochs
from antefix_server.registry import Registry
from antefix_server.releases import Releases
from antefix_server.vault import Vault
from tests.sdk.saved_models import save_base
from tests.support.vaults import Person, new_vault

HERE = Path(__file__).parent
FOLDER, CONTENTS, KEYS_BEFORE = HERE / "vault", HERE / "vault.json", HERE / "vault-keys-before"
NAMES = ("ann", "bob", "eve")


def main() -> None:
    """Make all three anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary, new_vault(FOLDER) as vault:
        base = FrozenBase.load(str(save_base(Path(temporary) / "tiny")), progress=False)
        contents = fill(vault, base, Path(temporary) / "tiny")
    CONTENTS.write_text(json.dumps(contents, indent=1) + "\n")


def fill(vault: Vault, base: FrozenBase, folder: Path) -> dict[str, Any]:
    """Put everything in; what must be found there."""
    registry, epochs = Registry(vault), Epochs(vault.folder)
    people, tokens = {}, {}
    for name in NAMES:
        invitation = registry.add(name).invitation
        device = Person.with_id(vault.tenant, bytes(16), name).owner.device
        enrolled = registry.enrol(invitation, device.public, invitation.proof(device), f"{name}'s phone")
        people[name], tokens[name] = Person.with_id(vault.tenant, enrolled.user, name), enrolled.token
    ann = people["ann"]
    prefix = Prefix(torch.arange(base.layout.size(2)) / 64, base.layout, base.fingerprint)
    shape = shape_of(prefix.layout.digest, prefix.length, "fp32")
    ann.owner.address = replace(ann.owner.address, base=bytes.fromhex(base.fingerprint), shape=shape)
    ann.put(vault, b"ann's first")
    ann.put(vault, prefix.to_bytes())
    people["bob"].put(vault, b"bob's only")
    people["eve"].put(vault, b"eve's, which is removed")
    now = time.time()
    signed = issue_grant(
        ann.record,
        ann.owner.address,
        key=ann.owner.key,
        writers=ann.owner.writers,
        device=ann.owner.device,
        epoch=epochs.current(now).statement(vault.tenant),
        seconds=3600,
    )
    grant = Grants(vault, epochs).put(registry.authenticate(tokens["ann"]), signed)
    releases = Releases(vault)
    release = releases.publish(folder, shared=prefix.to_bytes(), note="of the vectors")
    releases.promote(release.version)
    registry.suspend("bob")
    before = vault.checkpoint().text()
    shutil.copyfile(vault.folder / "keys", KEYS_BEFORE)
    receipt = registry.remove("eve").text()
    return {
        "format": 1,
        "made": int(now),
        "tenant": vault.tenant.hex(),
        "log key": vault.log_key.text(),
        "checkpoint before the removal": before,
        "receipt": receipt,
        "users": {name: described(people[name], tokens[name]) for name in NAMES},
        "grant": {"id": grant.id, "epoch": grant.epoch, "until": grant.until},
        "release": {"version": release.version, "digest": release.digest, "files": release.sizes},
    }


def described(person: Person, token: str) -> dict[str, Any]:
    """A user's ids, and the record that was put last."""
    return {
        "id": person.user.hex(),
        "token": token,
        "prefix": person.prefix.hex(),
        "base": person.owner.address.base.hex(),
        "shape": person.owner.address.shape.hex(),
        "version": person.version,
        "sha256": hashlib.sha256(person.record).hexdigest(),
        "payload": bytes(person.owner.open(person.record).payload).hex(),
    }


if __name__ == "__main__":
    main()
