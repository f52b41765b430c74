"""`antefix device …` and `antefix receive`, as one types them."""

import json
from pathlib import Path

import pytest

from antefix_client import PersonalModel
from tests.client.cli.test_cli import home, made, refused, run
from tests.client.people import KEY
from tests.client.two_devices import learned

__all__ = ["home"]


@pytest.fixture
def devices(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A phone and a laptop, linked."""
    monkeypatch.chdir(home)
    for name in ("phone", "laptop"):
        made(home, name)
    phone, laptop = (run("device", "show", "--profile", name).stdout.strip() for name in ("phone", "laptop"))
    said = run("device", "request", "request", "--profile", "laptop").stdout
    assert said == f"wrote request; this device is {laptop}\n"
    said = run("device", "admit", "request", "welcome", "--device", laptop, "--profile", "phone").stdout
    assert said == f"wrote welcome; this device is {phone}\n"
    assert run("device", "join", "welcome", "--device", phone, "--profile", "laptop").stdout == "joined\n"
    return home


def learn(name: str, value: float) -> None:
    """Without training; the base is the one of the fixture."""
    with PersonalModel.open(name, unlock=KEY) as model:
        learned(model, value)


@pytest.mark.slow
def test_a_conflict_is_reported_and_chosen(devices: Path) -> None:
    learn("phone", 1.0)
    run("export", "first", "--what", "record", "--profile", "phone")
    said = run("receive", "first", "--profile", "laptop").stdout
    assert said == "received version 1; version 1 is in use\n"
    learn("phone", 2.0)
    learn("laptop", 3.0)
    run("export", "second", "--what", "record", "--profile", "phone")
    result = run("receive", "second", "--profile", "laptop")
    (beside,) = json.loads(run("status", "--json", "--profile", "laptop").stdout)["conflicts"]
    assert result.stdout == f"kept {beside} beside: version 2 of this device stays in use\n"
    assert result.stderr == f"antefix: to choose: antefix roll-back {beside}\n"
    assert f"(beside: {beside})" in run("versions", "--profile", "laptop").stdout
    refused("roll-back", "2", "--profile", "laptop", said="2 versions have the number 2")
    assert run("roll-back", beside, "--profile", "laptop").stdout == "version 3 is version 2 again\n"


@pytest.mark.slow
def test_what_is_refused_is_two_lines(devices: Path) -> None:
    zeros = "0000 " * 8
    phone = run("device", "show", "--profile", "phone").stdout.strip()
    in_phone, in_laptop = ("--profile", "phone"), ("--profile", "laptop")
    refused("device", "request", "request", *in_laptop, said="is there already")
    refused("device", "admit", "request", "welcome", "--device", zeros, *in_phone, said="is there already")
    refused(
        "device", "admit", "request", "other", "--device", zeros, *in_phone, said="you compared 0000 0000"
    )
    refused("device", "admit", "request", "other", "--device", "0", *in_phone, said="has 32 digits 0-9, a-f")
    refused("device", "admit", "nothing", "other", "--device", zeros, *in_phone, said="cannot be read")
    refused("device", "join", "request", "--device", phone, *in_laptop, said="this is not a welcome")
    refused("device", "join", "welcome", "--device", zeros, *in_laptop, said="is from device")
    refused("receive", "welcome", *in_laptop, said="of the record is")
    with (devices / "large").open("wb") as file:
        file.truncate(2**28)
    refused("receive", "large", *in_laptop, said="has more than 67,109,218 bytes")
    refused("roll-back", "no version\n" * 9, *in_laptop, said="there is no version of that name")
    assert not (devices / "other").exists()


@pytest.mark.slow
def test_a_device_is_removed(devices: Path) -> None:
    made(devices, "tablet")
    phone, laptop, tablet = (
        run("device", "show", "--profile", name).stdout.strip() for name in ("phone", "laptop", "tablet")
    )
    run("device", "request", "again", "--profile", "tablet")
    run("device", "admit", "again", "other", "--device", tablet, "--profile", "phone")
    run("device", "join", "other", "--device", phone, "--profile", "tablet")
    listed = run("device", "list", "--profile", "phone").stdout
    assert listed == f"{phone}  (this one)\n{laptop}\n{tablet}\n"
    gone = ("device", "remove", laptop, "--profile", "phone")
    assert "nobody answered" in run(*gone, code=1).stderr
    refused("device", "remove", "0" * 32, "--yes", "--profile", "phone", said="is not linked")
    result = run(*gone, "--yes")
    assert result.stdout == "removed\n"
    assert result.stderr == "antefix: for your other devices: antefix device changes FILE\n"
    assert run("device", "changes", "changes", "--profile", "phone").stdout == "wrote changes\n"
    for _ in range(2):
        assert run("device", "follow", "changes", "--profile", "tablet").stdout == "2 devices\n"
    refused("device", "follow", "changes", "--profile", "laptop", said=f"was removed by device {phone}")
    refused("device", "follow", "welcome", "--profile", "tablet", said="these are no changes of devices")
    assert "nothing that" in run("device", "changes", "none", "--profile", "tablet").stdout
    rows = json.loads(run("device", "list", "--json", "--profile", "tablet").stdout)
    assert rows == [{"device": phone, "this": False}, {"device": tablet, "this": True}]
