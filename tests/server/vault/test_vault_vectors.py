"""A vault that was written once must open forever, say the same, and bring nobody back who was removed."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antefix import FrozenBase, Prefix
from antefix.errors import GrantRefused
from antefix.receipts import Checkpoint, LogKey, verify_growth, verify_receipt
from antefix.records import Address, digest_of
from antefix_server.errors import NameUnknown, TokenRefused, UnknownUser
from antefix_server.grants import Grants
from antefix_server.grants.epochs import Epochs
from antefix_server.registry import Registry
from antefix_server.releases import Releases
from antefix_server.vault import Vault
from tests.support.vaults import Person

VECTORS = Path(__file__).parents[2] / "vectors"
SAVED = json.loads((VECTORS / "vault.json").read_text())
USERS: dict[str, dict[str, Any]] = SAVED["users"]
PRESENT, REMOVED = ("ann", "bob"), "eve"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy: opening a vault to write changes it."""
    return Path(shutil.copytree(VECTORS / "vault", tmp_path / "vault"))


@pytest.fixture
def vault(folder: Path) -> Iterator[Vault]:
    with Vault.open(folder) as opened:
        yield opened


def id_of(name: str) -> bytes:
    return bytes.fromhex(USERS[name]["id"])


def prefix_of(name: str) -> bytes:
    return bytes.fromhex(USERS[name]["prefix"])


def read_record(vault: Vault, name: str) -> bytes:
    return vault.get(id_of(name), prefix_of(name))


def open_record(vault: Vault, name: str) -> bytes:
    """As the user's own device does."""
    owner = Person.with_id(vault.tenant, id_of(name), name).owner
    base, shape = (bytes.fromhex(USERS[name][what]) for what in ("base", "shape"))
    owner.address = Address(vault.tenant, id_of(name), prefix_of(name), base, shape)
    return bytes(owner.open(read_record(vault, name)).payload)


def test_users_are_found_by_name_and_by_token(vault: Vault) -> None:
    registry = Registry(vault)
    assert vault.tenant.hex() == SAVED["tenant"]
    assert [(user.name, user.id, user.suspended) for user in registry.users()] == [
        ("ann", id_of("ann"), False),
        ("bob", id_of("bob"), True),
    ]
    assert [device.name for device in registry.devices("ANN")] == ["ann's phone"]
    assert registry.authenticate(USERS["ann"]["token"]).user == id_of("ann")
    for name in ("bob", REMOVED):  # suspended, and removed
        with pytest.raises(TokenRefused):
            registry.authenticate(USERS[name]["token"])


@pytest.mark.parametrize("name", PRESENT)
def test_records_are_the_bytes_that_were_put(name: str, vault: Vault) -> None:
    record, user = read_record(vault, name), USERS[name]
    assert hashlib.sha256(record).hexdigest() == user["sha256"]
    assert b"".join(vault.stream(id_of(name), prefix_of(name))) == record
    (head,) = vault.heads(id_of(name))
    assert (head.prefix, head.version, head.digest) == (prefix_of(name), user["version"], digest_of(record))
    assert open_record(vault, name).hex() == user["payload"]


def test_the_next_version_is_put_after_the_stored_one(vault: Vault) -> None:
    bob = Person.with_id(vault.tenant, id_of("bob"), "bob")
    bob.record, bob.version = read_record(vault, "bob"), USERS["bob"]["version"]
    record = bob.put(vault, b"bob's next")
    assert read_record(vault, "bob") == record


def test_the_log_verifies_and_grew_by_the_removal(vault: Vault) -> None:
    key = LogKey.parse(SAVED["log key"])
    assert vault.log_key == key
    earlier = Checkpoint.parse(SAVED["checkpoint before the removal"])
    earlier.verify(key)
    with vault.log() as log:
        newest = log.verify(earlier)
    newest.verify(key)
    assert (earlier.size, newest.size) == (2, 3)
    verify_growth(earlier, newest, vault.consistency(earlier.size))
    receipt = verify_receipt(SAVED["receipt"], key, user=id_of(REMOVED))
    assert (receipt.checkpoint.size, receipt.checkpoint.root) == (newest.size, newest.root)


@pytest.mark.parametrize("keys", ["as they are", "from before the removal"])
def test_a_removed_user_stays_removed(keys: str, folder: Path) -> None:
    if keys == "from before the removal":
        shutil.copyfile(VECTORS / "vault-keys-before", folder / "keys")
    with Vault.open(folder) as vault:
        with pytest.raises(UnknownUser):
            vault.heads(id_of(REMOVED))
        with pytest.raises(UnknownUser):
            read_record(vault, REMOVED)
        with pytest.raises(NameUnknown):
            Registry(vault).find(REMOVED)
        assert open_record(vault, "ann").hex() == USERS["ann"]["payload"]


def test_the_grant_opens_until_its_end(vault: Vault) -> None:
    grant, now = SAVED["grant"], [SAVED["made"] + 60]
    grants = Grants(vault, Epochs(vault.folder), lambda: now[0])
    assert [(one.id, one.epoch, one.until) for one in grants.of(id_of("ann"))] == [
        (grant["id"], grant["epoch"], grant["until"])
    ]
    base = bytes.fromhex(USERS["ann"]["base"])
    with grants.open(id_of("ann"), grant["id"], base) as opened:
        assert bytes(opened.payload).hex() == USERS["ann"]["payload"]
    now[0] = grant["until"]
    with pytest.raises(GrantRefused):
        grants.open(id_of("ann"), grant["id"], base)


def test_the_release_is_offered_with_its_files(vault: Vault) -> None:
    releases, saved = Releases(vault), SAVED["release"]
    (found,) = releases.list()
    assert (found.release.version, found.release.digest) == (saved["version"], saved["digest"])
    assert found.current
    assert found.release.sizes == saved["files"]
    for digest in saved["files"]:
        assert hashlib.sha256(releases.file(digest).read_bytes()).hexdigest() == digest
    shared = found.release.shared
    assert shared is not None
    assert Prefix.load(releases.file(shared.sha256)) == Prefix.from_bytes(open_record(vault, "ann"))
    offer = releases.offer()
    assert offer.release is not None
    assert hashlib.sha256(offer.release.body.encode()).hexdigest() == saved["digest"]


def test_the_base_of_the_release_has_the_fingerprint_that_it_had(vault: Vault, tmp_path: Path) -> None:
    """Else every prefix that was ever trained would be refused."""
    releases = Releases(vault)
    (found,) = releases.list()
    for file in found.release.files:
        shutil.copyfile(releases.file(file.sha256), tmp_path / file.name)
    base = FrozenBase.load(str(tmp_path), progress=False)
    assert base.fingerprint == found.release.base.fingerprint == USERS["ann"]["base"]
