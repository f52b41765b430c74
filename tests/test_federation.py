"""The whole, as real processes: a server with TLS and Flower, devices, rounds; a user removed, one added."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import antefix_simulations
from antefix import Example, FrozenBase, Prefix
from antefix.errors import RecordError
from antefix.receipts import LogKey, verify_receipt
from antefix.records import open_record, read_header
from antefix.rounds import Round, RoundKey
from antefix.wire.release import Release
from antefix.wire.signed import Signed
from antefix_client.inference.export import export_content
from antefix_client.learning.text_split import TextSnapshot
from antefix_client.membership import Membership
from antefix_client.rounds.local_update import Checked, update_of
from antefix_server.rounds.coordinator import CoordinatorClient
from antefix_server.vault import Vault
from tests.client.people import tiny_folder
from tests.server.needles import Needles, windows
from tests.support.server.processes import Device, command, federating, up, wait_for

pytestmark = pytest.mark.slow
REAL = Path(__file__).parents[2] / "shared" / "data" / "git_commit_messages" / "data.jsonl.gz"
SAMPLE = Path(antefix_simulations.__file__).parent / "data" / "sample" / "writers.jsonl"
BASE = os.environ.get("ANTEFIX_FEDERATION_BASE")
PATIENCE = 10 if BASE else 1
OPTIONS = ["-c", "steps=3", "-c", f"round-timeout-s={25 * PATIENCE}", "-c", "learning-rate=0.02"]


def real_texts(users: int, each: int = 14) -> list[list[str]]:
    """What different people wrote; without the real set, the sample that the package ships."""
    found: dict[str, list[str]] = {}
    with gzip.open(REAL, "rt") if REAL.is_file() else SAMPLE.open() as lines:
        for line in lines:
            row = json.loads(line)
            text = row.get("text") or row["completion"]
            if len(text) > 40:
                found.setdefault(row["user"], []).append(text)
            if sum(len(texts) >= each for texts in found.values()) >= users:
                break
    return [list(dict.fromkeys(texts))[:each] for texts in found.values() if len(texts) >= each][:users]


@pytest.fixture
def people(tmp_path: Path) -> Iterator[list[Device]]:
    """Five devices with real texts, on a tiny base or the one that the environment names; not joined yet."""
    folder = BASE or str(tiny_folder(tmp_path / "base"))
    base = FrozenBase.load(folder)
    made = [
        taught(tmp_path, f"device{number}", base, folder, texts) for number, texts in enumerate(real_texts(5))
    ]
    yield made
    for device in made:
        device.stop()


def taught(folder: Path, name: str, base: FrozenBase, base_folder: str, texts: list[str]) -> Device:
    """A device with a version in use, so that there is a record to look for.

    Which texts judge is drawn with the profile's keys, and a tiny base does not gain on every draw.
    """
    for draw in range(8):
        device = Device(folder / f"{name}-{draw}", base, base_folder, texts)
        with device.opened() as model:
            if model.learn(progress=False).kept:
                return device
    raise AssertionError(f"{name} gained nothing on eight draws")


def invited(data: Path, name: str) -> str:
    code: str = json.loads(command(data, "users", "add", name, "--json"))["invitation"]
    return code


def releases(data: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(command(data, "base", "list", "--json"))
    return found


def come(device: Device, data: Path, url: str, name: str) -> None:
    """Join, learn, sync, and stay."""
    device.join(invited(data, name), url)
    with device.opened() as model:
        assert model.learn(progress=False).finished
        Membership(model).sync()
    device.serve()


def test_rounds_with_one_user_removed_and_one_added(people: list[Device], tmp_path: Path) -> None:
    data = tmp_path / "data"
    command(data, "init", data)
    with up(data) as (url, _):
        command(data, "base", "publish", people[0]._base_folder, "--fresh-shared", 4)
        command(data, "base", "promote", 1)
        for number, device in enumerate(people[:4]):
            come(device, data, url, f"user {number}")
        first = CoordinatorClient(data).latest_release()
        wait_for(lambda: all(device.state().get("node") for device in people[:4]), 90 * PATIENCE)

        log = tmp_path / "federate.log"
        with federating(data, log, "--rounds", "3", "--min-users", "3", *OPTIONS) as run:
            wait_for(lambda: len(releases(data)) == 2, 90 * PATIENCE)  # the second round is under way
            command(data, "users", "remove", "user 3", "--receipt", tmp_path / "receipt")
            come(people[4], data, url, "user 4")
            assert run.wait(180 * PATIENCE) == 0, log.read_text()
        assert [one["state"] for one in releases(data)] == ["", "", "", "current"]

        gone = people[3]
        wait_for(lambda: gone.state().get("refused") and not gone.state().get("node"), 60 * PATIENCE)
        people[0].ask("POST", "sync", json={})
        wait_for(lambda: people[0].state().get("release") == 4, 60 * PATIENCE)
        key = json.loads(command(data, "status", "--json"))["log key"]
        verify_receipt((tmp_path / "receipt").read_text(), LogKey.parse(key))
        for device in people:
            device.stop()
    everybody_opens_only_the_own(data, people[:3] + people[4:])
    nothing_lies_about(data, people, first.signed, first.prefix)


def everybody_opens_only_the_own(data: Path, people: list[Device]) -> None:
    """Each record on the server opens with its owner's key, and with nobody else's."""
    with Vault.open(data) as vault:
        records = {}
        for device in people:
            with device.opened() as model, model.session.locked() as profile:
                place = bytes.fromhex(profile.manifest.user), profile.keys.prefix
            records[device.folder.name] = vault.get(*place)
    for owner in people:
        record = records[owner.folder.name]
        address = read_header(record).edition.address
        for device in people:
            with device.opened() as model, model.session.locked() as profile:
                keys = profile.keys
                if device is owner:
                    open_record(record, address, key=keys.user_key, writers=keys.devices.writers).wipe()
                else:
                    with pytest.raises(RecordError):
                        open_record(record, address, key=keys.user_key, writers=keys.devices.writers)


def nothing_lies_about(data: Path, people: list[Device], signed: bytes, prefix: bytes) -> None:
    """No text, private prefix or update in the clear anywhere in the server's folder; with a control."""
    secrets = set()
    for device in people:
        with device.opened() as model:
            for text in model.texts().values():
                secrets.add(text.completion.encode()[:32])
            secrets |= set(windows(export_content(model.runtime, "prefix")[-4000:]))
            with model.session.locked() as profile:
                texts = TextSnapshot.take(profile).split().training
            secrets |= set(windows(update(signed, prefix, device.base, texts)[-4000:]))
    # The first row is the base's own, in the shared prefix and in every private one.
    secrets = {one[:20] for one in secrets if len(set(one[:20])) > 8 and len(one) >= 20}
    secrets -= {one for one in secrets if one in prefix}
    assert len(secrets) > 60
    needles = Needles(secrets)
    assert needles.in_files([data]) == {}
    control = data / "logs" / "control"
    control.write_bytes(b"".join(secrets))
    assert needles.in_files([data]) == {"control": len(secrets)}


def update(signed: bytes, prefix: bytes, base: FrozenBase, texts: list[Example]) -> bytes:
    """What a device found in the first round: the same numbers, computed again."""
    release = Release.model_validate_json(Signed.parse(signed).body)
    key = RoundKey()
    round = Round(
        tenant=release.tenant,
        id=key.id.hex(),
        release=release.digest,
        number=1,
        key=key.public.hex(),
        clip=1.0,
        steps=3,
        learning_rate=0.02,
        until=1,
    )
    assert Prefix.from_bytes(prefix).base_fingerprint == base.fingerprint
    return update_of(Checked(round, release, prefix), base, texts).vector.tobytes()
