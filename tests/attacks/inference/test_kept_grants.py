"""Attack: a server, a folder put back or a moment between two calls, to get a grant that nobody wants.

Expected: without the user's word nothing is signed at all; with it, nothing older than what was granted, and
nothing after a revocation.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from antefix.grants import EpochKey
from antefix.wire import Signed
from antefix_client import PersonalModel
from antefix_client.granting import Granting
from antefix_client.membership import Membership, SyncResult
from antefix_client.remote import grants as grants_module
from antefix_client.remote.api_client import ApiClient
from antefix_client.remote.server_state import ServerState
from antefix_server.errors import GrantsRevoked
from tests.client.people import opened
from tests.client.test_granting import joined
from tests.client.test_kept_grants import end_epochs, versions
from tests.client.two_devices import device, learned
from tests.support import tiny_models
from tests.support.records import some_bytes
from tests.support.server.gateway import Server, server
from tests.support.server.hosted_server import Host

pytestmark = pytest.mark.slow

BASE = tiny_models.base("llama")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("server") / "data", base=BASE) as made:
        yield made


@pytest.fixture
def model(tmp_path: Path) -> Iterator[PersonalModel]:
    with device(tmp_path / "profile") as made:
        made.load_base()
        yield made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What devices ask of their server."""
    found: list[str] = []
    request = ApiClient.request

    def seen(remote: ApiClient, method: str, path: str, **given: Any) -> httpx.Response:
        found.append(f"{method} {path}")
        return request(remote, method, path, **given)

    monkeypatch.setattr(ApiClient, "request", seen)
    return found


@pytest.mark.parametrize("before", ["nothing was granted", "granted once", "kept and revoked"])
def test_epochs_that_come_and_go_cause_no_grant_by_themselves(
    model: PersonalModel, there: Server, asked: list[str], before: str
) -> None:
    membership, granting = joined(model, there, f"user of whom {before}"), Granting(model)
    learned(model, 0.3)
    membership.sync()
    if before != "nothing was granted":
        granting.grant(keep=before == "kept and revoked")
    if before == "kept and revoked":
        granting.revoke()
    asked.clear()
    for value in (0.4, 0.5, 0.6):
        end_epochs(there)
        learned(model, value)
        membership.sync()
    assert not any("/v1/epoch" in one or "/v1/grants" in one for one in asked)
    assert granting.listed() == []


def test_a_folder_that_was_put_back_grants_nothing_old(
    tmp_path: Path, there: Server, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody exchanges the files of the versions, and the server would take whatever comes."""
    folder, before = tmp_path / "profile", tmp_path / "before"
    with device(folder) as model:
        model.load_base()
        membership = joined(model, there, "ann")
        learned(model, 0.3)
        membership.sync()
        with membership.server.connect() as remote, model.session.locked() as profile:
            tag = remote.record(profile.keys.prefix, None)[1]
    shutil.copytree(folder, before)
    with opened(folder) as model:
        model.load_base()
        learned(model, 0.4)
        Granting(model).grant(keep=True)
    kept = (folder / "server").read_bytes()
    shutil.rmtree(folder)
    shutil.copytree(before, folder)
    (folder / "server").write_bytes(kept)
    end_epochs(there)
    asked.clear()
    monkeypatch.setattr(ApiClient, "record", lambda *_: (None, tag))  # and the server hides what is newer
    with opened(folder) as model:
        done = Membership(model).sync()
        assert (done.granted, versions(Granting(model))) == (None, [])
        assert "an older one is not granted anew" in done.problem
        assert "version 1-" in done.problem
        assert " 2-" in done.problem
    assert "PUT /v1/grants" not in asked


def test_another_version_of_the_same_number_is_not_granted_either(
    model: PersonalModel, there: Server, asked: list[str]
) -> None:
    membership = joined(model, there, "bob")
    learned(model, 0.3)
    Granting(model).grant(keep=True)
    with model.session.locked() as profile:
        member = ServerState.read(profile.sealed)
        assert member.keeping is not None
        other = member.keeping.model_copy(update={"record": some_bytes("another", 32).hex()})
        member.model_copy(update={"keeping": other}).write(profile.sealed)
    end_epochs(there)
    asked.clear()
    assert "an older one is not granted anew" in membership.sync().problem
    assert "PUT /v1/grants" not in asked


@pytest.mark.parametrize("when", ["before the key is fetched", "before it is sent", "after it is sent"])
def test_a_revocation_while_a_sync_grants_anew_wins(
    model: PersonalModel, there: Server, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    membership, granting = joined(model, there, f"user who revokes {when}"), Granting(model)
    learned(model, 0.3)
    granting.grant(keep=True)
    learned(model, 0.4)
    name = {"before the key is fetched": "_fetch_epoch", "before it is sent": "_issue"}.get(
        when, "_parse_summary"
    )
    real, revoked = getattr(grants_module, name), list[int]()

    def revoking(*given: Any) -> Any:
        found = real(*given)
        revoked.append(granting.revoke())  # a program of this device, or the user's other one
        return found

    with monkeypatch.context() as between:
        between.setattr(grants_module, name, revoking)
        membership.sync()
    assert len(revoked) == 1
    assert not granting.keeping
    assert granting.listed() == []
    assert membership.sync() == SyncResult()
    assert granting.listed() == []


def test_a_revocation_that_finds_nothing_ends_it_too(model: PersonalModel, there: Server) -> None:
    """The newer version has ended the grant already, when another device revokes."""
    membership, granting = joined(model, there, "cleo"), Granting(model)
    learned(model, 0.3)
    granting.grant(keep=True)
    learned(model, 0.4)
    membership.devices.sync(renew_grants=False)
    with membership.server.connect() as other:
        assert other.request("DELETE", "/v1/grants").json() == {"revoked": 1}
    learned(model, 0.5)
    done = membership.sync()
    assert (done.sent, done.granted) == (3, None)
    assert "taken back" in done.problem
    assert not granting.keeping


def test_an_operators_revocation_is_heard(model: PersonalModel, there: Server) -> None:
    membership, granting = joined(model, there, "dora"), Granting(model)
    learned(model, 0.3)
    given = granting.grant(keep=True)
    assert there.hosting is not None
    user = there.registry.find("dora").id
    assert there.hosting.grants.revoke(user, bytes.fromhex(given.id))
    assert "taken back" in membership.sync().problem
    assert membership.sync() == SyncResult()
    assert not granting.keeping


@pytest.mark.parametrize("how", ["a strange key", "another tenant", "an epoch that is over"])
def test_what_the_server_did_not_sign_for_this_is_granted_nothing_anew(
    model: PersonalModel, there: Server, monkeypatch: pytest.MonkeyPatch, asked: list[str], how: str
) -> None:
    membership = joined(model, there, f"user of {how}")
    learned(model, 0.3)
    Granting(model).grant(keep=True)
    end_epochs(there)
    over = 10 if how == "an epoch that is over" else -3600
    key, seed = EpochKey.generate(int(time.time()) - over)
    seed.wipe()
    tenant = some_bytes("another tenant", 16) if how == "another tenant" else there.vault.tenant
    signing = there.vault.identity.signing if how == "a strange key" else there.vault.identity.releasing
    signed = key.statement(tenant).signed(signing)
    monkeypatch.setattr(Signed, "parse", lambda _: signed)
    asked.clear()
    done = membership.sync()
    assert done.granted is None
    assert done.problem
    assert "PUT /v1/grants" not in asked


def test_a_server_takes_nothing_from_who_knows_of_fewer_revocations(there: Server) -> None:
    host = Host(there.vault)
    ann, _ = host.hosted("ann of the host", BASE)
    assert host.grants.revocations(ann.user) == 0
    host.grants.put(ann.session, host.signed(ann), 0)
    assert host.grants.revoke_all(ann.user) == 1
    assert host.grants.revoke_all(ann.user) == 0
    for known in (0, 1, 3):
        with pytest.raises(GrantsRevoked):
            host.grants.put(ann.session, host.signed(ann), known)
    assert host.grants.of(ann.user) == []
    (bob, _) = host.hosted("bob of the host", BASE)
    assert host.grants.revocations(bob.user) == 0
    host.grants.put(ann.session, host.signed(ann), 2)
    (grant,) = host.grants.of(ann.user)
    assert not host.grants.revoke(bob.user, bytes.fromhex(grant.id))
    assert host.grants.revocations(ann.user) == 2
    host.registry.suspend("ann of the host")
    host.registry.suspend("ann of the host", False)
    assert host.grants.revocations(ann.user) == 2
