"""A device and its server: the real gateway over TLS, real profiles on a tiny base."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from antefix.errors import AntefixError, InvalidArgument, RecordError, ReleaseRefused, RoundRefused
from antefix.wire import Release
from antefix.wire.release import BaseReference
from antefix_client import PersonalModel
from antefix_client.devices import user_id_change
from antefix_client.errors import (
    DeviceRefused,
    JoinRefused,
    NotJoined,
    ReleaseUnavailable,
    ServerNotTrusted,
    ServerRefused,
    ServerUnreachable,
)
from antefix_client.learning.text_split import TextSnapshot
from antefix_client.membership import Membership, SyncResult
from antefix_client.profile.prefix_store import PrefixStore
from antefix_client.profile.profile import Profile
from antefix_client.profile.version_history import VersionHistory
from antefix_client.remote.api_client import _require_clock
from antefix_client.remote.sync import RemoteRecord
from antefix_client.rounds.local_update import Checked
from tests.client.people import KEY, NOTES
from tests.client.two_devices import device, learned, link, value
from tests.support import tiny_models
from tests.support.server.gateway import Server, server


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("server") / "data") as made:
        yield made


def joined(model: PersonalModel, there: Server, name: str) -> Membership:
    found = Membership(model)
    found.join(there.invited(name), there.url)
    return found


def test_what_was_learned_before_goes_along(model: PersonalModel, there: Server) -> None:
    model.remember(NOTES)
    learned(model, 1.0)
    learned(model, 2.0)
    place = joined(model, there, "ann").place
    assert place is not None
    assert place.user == there.registry.find("ann").id.hex()
    assert not place.rounds
    assert [one.number for one in model.versions()] == [3]
    assert value(model) == 2.0
    assert len(model.texts()) == len(NOTES)
    assert Membership(model).sync() == SyncResult(None, 3, False)
    assert Membership(model).sync() == SyncResult()
    with model.session.locked() as profile:
        stored = there.vault.get(bytes.fromhex(place.user), profile.keys.prefix)
        newest = profile.history.newest
        assert newest is not None
        assert stored == profile.history.record(newest)


def test_two_linked_devices_follow_each_other(tmp_path: Path, there: Server) -> None:
    with device(tmp_path / "phone") as phone, device(tmp_path / "laptop") as laptop:
        phone.load_base()
        laptop.load_base()
        one, two = joined(phone, there, "bea"), joined(laptop, there, "bea")
        link(phone, laptop)
        learned(phone, 1.0)
        assert one.sync().sent == 1
        received = two.sync()
        assert received.received is not None
        assert value(laptop) == 1.0
        learned(laptop, 2.0)
        assert two.sync().sent == 2
        assert one.sync().received is not None
        assert value(phone) == 2.0


def test_two_that_learned_at_once_wait_for_a_choice(tmp_path: Path, there: Server) -> None:
    with device(tmp_path / "phone") as phone, device(tmp_path / "laptop") as laptop:
        phone.load_base()
        laptop.load_base()
        one, two = joined(phone, there, "cleo"), joined(laptop, there, "cleo")
        link(phone, laptop)
        learned(phone, 1.0)
        learned(laptop, 2.0)
        assert one.sync().sent == 1
        assert two.sync() == SyncResult(two.model.versions()[-1].name, None, True)
        laptop.roll_back(laptop.status().conflicts[0])
        assert two.sync().sent == 2
        assert one.sync().received is not None
        assert (value(phone), value(laptop)) == (1.0, 1.0)


def test_the_same_device_may_come_again(model: PersonalModel, there: Server) -> None:
    code = there.invited("dora")
    Membership(model).join(code, there.url)
    Membership(model).join(code, there.url + "/")
    assert Membership(model).sync() == SyncResult()


def test_a_user_who_was_removed_is_told(model: PersonalModel, there: Server) -> None:
    mine = joined(model, there, "eve")
    there.registry.remove("eve")
    with pytest.raises(DeviceRefused):
        mine.sync()
    assert mine.place is not None
    assert mine.place.refused
    mine.join(there.invited("eve"), there.url)  # as a new user
    assert not mine.place.refused
    mine.leave()
    assert mine.place is None
    with pytest.raises(NotJoined):
        mine.sync()


def test_a_second_use_of_an_invitation_is_refused(
    model: PersonalModel, tmp_path: Path, there: Server
) -> None:
    code = there.invited("fay")
    Membership(model).join(code, there.url)
    with device(tmp_path / "other") as other, pytest.raises(ServerRefused, match="used, expired"):
        Membership(other).join(code, there.url)


def test_wrong_addresses_and_codes_are_told_apart(
    model: PersonalModel, tmp_path: Path, there: Server
) -> None:
    mine, code = Membership(model), there.invited("gil")
    with pytest.raises(InvalidArgument):
        mine.join(code[:-1] + ("0" if code[-1] != "0" else "1"), there.url)
    with pytest.raises(ServerUnreachable, match="begins with https"):
        mine.join(code, there.url.replace("https", "http"))
    with pytest.raises(ServerUnreachable, match="does not answer"):
        mine.join(code, "https://127.0.0.1:9")
    with pytest.raises(ServerUnreachable, match="does not answer"):
        mine.join(code, "https://no-such-host.invalid")
    with (
        server(tmp_path / "other") as other,
        pytest.raises(ServerNotTrusted, match="not the server that gave"),
    ):
        mine.join(code, other.url)
    assert mine.place is None


def test_a_certificate_that_nobody_knows_is_refused(model: PersonalModel, tmp_path: Path) -> None:
    with (
        server(tmp_path / "other", public=True) as other,
        pytest.raises(ServerNotTrusted, match="certificate"),
    ):
        Membership(model).join(other.invited("ann"), other.url)


def test_linked_devices_join_before_they_are_linked(tmp_path: Path, there: Server) -> None:
    with device(tmp_path / "phone") as phone, device(tmp_path / "laptop") as laptop:
        link(phone, laptop)
        code = there.invited("hal")
        with pytest.raises(JoinRefused, match="new profile"):
            Membership(phone).join(code, there.url)
        with device(tmp_path / "tablet") as tablet:  # as the hint says, and with the same code
            assert Membership(tablet).join(code, there.url).user == there.registry.find("hal").id.hex()


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, None), (401, DeviceRefused), (429, ReleaseUnavailable), (500, ReleaseUnavailable)],
)
def test_only_a_server_without_a_release_lets_a_device_go_on(
    model: PersonalModel,
    there: Server,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    error: type[AntefixError] | None,
) -> None:
    """Whoever went on after a passing failure pinned the default base, and every release was refused."""
    mine = joined(model, there, f"max {status}")
    remote = mine.server.connect()
    remote.http = httpx.Client(
        base_url=there.url, transport=httpx.MockTransport(lambda _: httpx.Response(status))
    )
    monkeypatch.setattr(mine.server, "connect", lambda: remote)
    with nullcontext() if error is None else pytest.raises(error):
        assert mine.follow() is None
    assert model.status().fingerprint is None


@pytest.mark.parametrize("cut", ["replace_keys", "add", "keep_only"])
def test_a_crash_while_ids_change_loses_nothing(
    tmp_path: Path, there: Server, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """Killed before each step; the next start, and the same code again, bring it to its end."""
    folder = tmp_path / "profile"
    with PersonalModel.create(folder, unlock=KEY, base=tiny_models.base("llama")) as model:
        model.load_base()
        learned(model, 4.0)
        code = there.invited(f"ida {cut}")
        owner = {"replace_keys": Profile, "add": PrefixStore}.get(cut, VersionHistory)
        with monkeypatch.context() as broken:
            broken.setattr(owner, cut, _killed)
            with pytest.raises(KeyboardInterrupt):
                Membership(model).join(code, there.url)
    with PersonalModel.open(folder, unlock=KEY, base=tiny_models.base("llama")) as again:
        assert value(again) == 4.0
        Membership(again).join(code, there.url)
        assert value(again) == 4.0
        assert Membership(again).sync().sent is not None
        assert not (folder / user_id_change.NAME).exists()


def test_a_clock_that_is_wrong_is_told(model: PersonalModel, there: Server) -> None:
    mine = joined(model, there, "kim")
    hour = timedelta(hours=1)
    for moved, said in ((hour, "60 minutes ahead"), (-hour, "60 minutes behind")):
        answer = httpx.Response(200, headers={"Date": format_datetime(datetime.now(UTC) - moved)})
        with pytest.raises(ServerRefused, match=said):
            _require_clock(answer)
    with mine.server.connect() as remote:
        _require_clock(remote.request("GET", "/health"))


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_record_of_somebody_else_is_not_taken(tmp_path: Path, there: Server) -> None:
    """The server hands out another device's record, of keys that were never linked."""
    with device(tmp_path / "phone") as phone, device(tmp_path / "laptop") as laptop:
        phone.load_base()
        laptop.load_base()
        one, two = joined(phone, there, "joy"), joined(laptop, there, "joy")
        with laptop.session.locked() as profile, phone.session.locked() as other:
            profile.replace_keys(type(profile.keys)(**{**vars(profile.keys), "prefix": other.keys.prefix}))
        learned(phone, 1.0)
        one.sync()
        with pytest.raises(RecordError):
            two.sync()
        assert laptop.versions() == []


def test_a_no_that_comes_while_a_round_trains_is_heard(model: PersonalModel, there: Server) -> None:
    """And what was learned of releases meanwhile is not forgotten."""
    mine = joined(model, there, "lea")
    mine.take_part(True)
    before = mine.server.state()
    release = Release(
        tenant=before.tenant, version=3, created=1, base=BaseReference(name="tiny", fingerprint="0" * 64)
    )
    believed = Checked.__new__(Checked)
    object.__setattr__(believed, "release", release)
    mine.rounds._agree_again(before, believed)
    assert mine.server.state().last_round == 3
    seen = mine.server.state().seen
    assert seen is not None
    mine.releases._store(seen.model_copy(update={"serial": 7, "withdrawn": (3,)}), None)
    with pytest.raises(ReleaseRefused, match="withdrawn"):
        mine.rounds._agree_again(before, believed)
    mine.releases._store(
        seen.model_copy(update={"serial": 6, "withdrawn": ()}), None
    )  # an older answer, late
    after = mine.server.state().seen
    assert after is not None
    assert (after.serial, after.withdrawn) == (7, (3,))
    mine.take_part(False)
    with pytest.raises(RoundRefused, match="does not take part"):
        mine.rounds._agree_again(before, believed)


@pytest.mark.parametrize("tag", ['W/"3-1-ab"', '"abc"', "", '"1-1-"', '"-1-1-' + "0" * 64 + '"'])
def test_a_tag_that_the_gateway_does_not_make_is_refused(tag: str) -> None:
    with pytest.raises(ServerRefused, match="not understood"):
        RemoteRecord.from_tag(tag)
    assert RemoteRecord.from_tag(f'"12-1-{"0" * 64}"') == RemoteRecord(12, 1, "0" * 64)
    assert RemoteRecord.from_tag(None) == RemoteRecord()


def test_a_text_that_the_base_cannot_take_trains_in_no_round(model: PersonalModel) -> None:
    model.remember([*NOTES, "word " * 15_000])
    with model.session.locked() as profile:
        found = TextSnapshot.take(profile).training_texts(model.base, 8)
    assert 0 < len(found) < len(NOTES)
    assert all(text.completion in NOTES for text in found)
