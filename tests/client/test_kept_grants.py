"""`antefix grant --keep`: a sync grants anew what is due, and nothing else, until somebody revokes."""

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from antefix_client import PersonalModel
from antefix_client.errors import ServerUnreachable
from antefix_client.granting import Granting
from antefix_client.membership import SyncResult
from antefix_client.remote import grants
from antefix_client.remote.server_session import ServerSession
from antefix_client.service.app import Service
from antefix_client.service.background import BackgroundSync
from antefix_client.service.server_routes import ServerRoutes
from tests.client.cli.test_server_cli import run
from tests.client.people import KEY
from tests.client.test_granting import alone, joined, written
from tests.client.two_devices import device, learned, link
from tests.support import tiny_models
from tests.support.loopback import serving
from tests.support.server.gateway import Server, server
from tests.support.server.processes import wait_for

pytestmark = pytest.mark.slow

BASE = tiny_models.base("llama")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("server") / "data", base=BASE) as made:
        yield made


def test_the_next_version_is_granted_with_the_next_sync(model: PersonalModel, there: Server) -> None:
    membership, granting = joined(model, there, "ann"), Granting(model)
    learned(model, 0.3)
    first = granting.grant(hours=3, keep=True)
    assert granting.keeping
    assert membership.sync() == SyncResult()
    learned(model, -0.4)
    assert membership.sync() == SyncResult(sent=2, granted=2)
    (second,) = granting.listed()
    assert second.version == 2
    assert second.id != first.id
    assert abs(second.until - time.time() - 3 * 3600) < 60
    assert written(membership, there) == alone(model)
    assert membership.sync() == SyncResult()
    model.roll_back(1)
    assert membership.sync() == SyncResult(sent=3, granted=3)
    assert [one.version for one in granting.listed()] == [3]
    assert written(membership, there) == alone(model)


def versions(granting: Granting) -> list[int]:
    return [one.version for one in granting.listed()]


def end_epochs(there: Server) -> None:
    assert there.hosting is not None
    there.hosting.epochs.destroy_all()


def test_a_new_epoch_and_half_of_the_time_make_it_due(
    model: PersonalModel, there: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership, granting = joined(model, there, "bea"), Granting(model)
    learned(model, 0.3)
    first = granting.grant(hours=4, keep=True)
    end_epochs(there)
    assert granting.listed() == []
    assert membership.sync() == SyncResult(granted=1)
    (second,) = granting.listed()
    for passed, due in ((1.9, None), (2.1, 1)):
        later = SimpleNamespace(time=lambda passed=passed: time.time() + passed * 3600)
        with monkeypatch.context() as clock:
            clock.setattr(grants, "time", later)
            assert membership.sync().granted == due
    (third,) = granting.listed()
    assert len({first.id, second.id, third.id}) == 3


def test_nothing_is_granted_that_was_not_asked_for(model: PersonalModel, there: Server) -> None:
    membership, granting = joined(model, there, "cleo"), Granting(model)
    learned(model, 0.3)
    assert membership.sync().granted is None
    granting.grant()
    assert not granting.keeping
    learned(model, 0.4)
    assert membership.sync().granted is None
    granting.grant(keep=True)
    granting.grant()  # the last word counts
    learned(model, 0.5)
    assert membership.sync().granted is None
    assert granting.listed() == []


def test_revoking_ends_it_here_and_on_other_devices(tmp_path: Path, there: Server) -> None:
    with device(tmp_path / "phone") as phone, device(tmp_path / "laptop") as laptop:
        phone.load_base()
        laptop.load_base()
        one, two = joined(phone, there, "dora"), joined(laptop, there, "dora")
        link(phone, laptop)
        learned(phone, 0.2)
        Granting(phone).grant(keep=True)
        two.sync()
        Granting(laptop).grant(keep=True)
        assert one.sync().granted is None  # the laptop's grant is as good
        assert Granting(phone).revoke() == 1
        assert not Granting(phone).keeping
        done = two.sync()
        assert done.granted is None
        assert "taken back" in done.problem
        assert not Granting(laptop).keeping
        assert two.sync() == SyncResult()
        learned(laptop, 0.4)
        assert two.sync() == SyncResult(sent=2)
        assert Granting(phone).listed() == []


def test_of_two_devices_each_grants_what_it_has_learned(tmp_path: Path, there: Server) -> None:
    with device(tmp_path / "phone") as phone, device(tmp_path / "laptop") as laptop:
        phone.load_base()
        laptop.load_base()
        one, two = joined(phone, there, "eve"), joined(laptop, there, "eve")
        link(phone, laptop)
        learned(phone, 0.2)
        Granting(phone).grant(keep=True)
        two.sync()
        Granting(laptop).grant(keep=True)
        learned(laptop, 0.4)
        assert two.sync() == SyncResult(sent=2, granted=2)
        done = one.sync()
        assert done.received is not None
        assert done.granted is None
        assert versions(Granting(phone)) == [2]


def test_a_version_that_waits_for_a_choice_grants_nothing(tmp_path: Path, there: Server) -> None:
    with device(tmp_path / "phone") as phone, device(tmp_path / "laptop") as laptop:
        phone.load_base()
        laptop.load_base()
        one, two = joined(phone, there, "fay"), joined(laptop, there, "fay")
        link(phone, laptop)
        learned(phone, 0.2)
        one.sync()
        two.sync()
        Granting(laptop).grant(keep=True)
        learned(phone, 0.4)
        learned(laptop, 0.6)
        one.sync()
        done = two.sync()
        assert done.conflict
        assert (done.granted, done.problem) == (None, "")
        laptop.roll_back(laptop.status().conflicts[0])
        assert two.sync() == SyncResult(sent=3, granted=3)


def test_what_cannot_be_granted_is_said_and_the_sync_goes_on(
    model: PersonalModel, there: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership, granting = joined(model, there, "gil"), Granting(model)
    learned(model, 0.3)
    granting.grant(keep=True)
    learned(model, 0.4)
    with monkeypatch.context() as broken:
        broken.setattr(grants, "list_grants", lambda _: (_ for _ in ()).throw(grants._no_inference()))
        assert membership.sync() == SyncResult(sent=2, problem="this server generates for nobody")
    assert membership.sync() == SyncResult(granted=2)


def test_a_service_keeps_granting_and_is_told_to_stop(
    model: PersonalModel, there: Server, caplog: pytest.LogCaptureFixture
) -> None:
    membership, granting = joined(model, there, "hal"), Granting(model)
    learned(model, 0.3)
    resident = BackgroundSync(membership, None, every_s=0.2)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    resident.start()
    try:
        with (
            serving(Service(model, ServerRoutes(resident).routes).application("token"), listening) as url,
            httpx.Client(base_url=f"{url}/antefix/v1", headers={"Authorization": "Bearer token"}) as http,
        ):
            given = http.post("grant", json={"hours": 2, "keep": True})
            assert given.json()["version"] == 1, given.text
            learned(model, 0.4)
            wait_for(lambda: versions(granting) == [2], 20)
            said = http.get("grants").json()
            assert said["keeping"]
            assert [one["version"] for one in said["grants"]] == [2]
            assert http.post("grant", json={"hours": -1}).status_code == 400
            assert http.post("revoke", json={"id": "0" * 32, "more": 1}).status_code == 400
            with caplog.at_level(logging.WARNING):
                # another device of the user revokes: by its token
                with membership.server.connect() as remote:
                    remote.request("DELETE", "/v1/grants")
                wait_for(lambda: not http.get("grants").json()["keeping"], 20)
            assert "taken back" in caplog.text
            http.post("grant", json={"keep": True})
            assert http.post("revoke", json={}).json() == {"revoked": 1}
            assert http.get("grants").json() == {"grants": [], "keeping": False}
    finally:
        resident.stop()


def test_a_wish_is_gone_with_the_server_and_comes_back_by_no_second_joining(
    model: PersonalModel, there: Server
) -> None:
    membership, granting = joined(model, there, "ida"), Granting(model)
    learned(model, 0.3)
    granting.grant(keep=True)
    membership.leave()
    membership.join(there.invited("ida"), there.url)
    assert not granting.keeping
    learned(model, 0.4)
    assert membership.sync().granted is None


def test_revoking_counts_here_though_the_server_is_away(
    model: PersonalModel, there: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership, granting = joined(model, there, "joy"), Granting(model)
    learned(model, 0.3)
    granting.grant(keep=True)
    with monkeypatch.context() as away:
        away.setattr(ServerSession, "connect", lambda _: (_ for _ in ()).throw(ServerUnreachable("away")))
        with pytest.raises(ServerUnreachable):
            granting.revoke()
    learned(model, 0.4)
    assert membership.sync() == SyncResult(sent=2)


def test_the_commands(tmp_path: Path, there: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_bytes(KEY)
    monkeypatch.setenv("ANTEFIX_PROFILE", str(tmp_path / "profile"))
    monkeypatch.setenv("ANTEFIX_KEY_FILE", str(tmp_path / "key"))
    with PersonalModel.create(tmp_path / "profile", unlock=KEY, base=BASE) as model:
        learned(model, 0.3)
    run("join", there.invited("kim"), "--server", there.url, "--no-serve", "--no-rounds")
    assert "until antefix revoke" in run("grant", "--keep").stdout
    assert "new versions are granted" in run("grants").stdout
    with PersonalModel.open(tmp_path / "profile", unlock=KEY, base=BASE) as model:
        learned(model, 0.4)
    assert "sent version 3; granted version 3" in run("sync").stdout
    assert run("revoke").stdout == "1 taken back\n"
    assert run("grants").stdout == ""
    assert "nothing new" in run("sync").stdout
    assert "until antefix revoke" not in run("grant").stdout
