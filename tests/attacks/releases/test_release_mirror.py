"""A mirror that damages, cuts, stalls, floods or lies, and what it can learn: nothing of the user."""

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from antefix import FrozenBase
from antefix.wire import Release
from antefix_client.errors import ReleaseDamaged, ReleaseUnavailable
from antefix_client.remote.download import ExpectedFile, download
from antefix_client.remote.releases import fetch_release
from tests.client.release_server import LONG, SHORT, Home, at_home
from tests.sdk.saved_models import save_base
from tests.support.file_mirror import Mirror, mirroring

pytestmark = pytest.mark.slow

LASTING = ["damaged", "truncates", "stalls", "trickles", "endless", "packed"]
SLOW = ["stalls", "trickles"]
OF_RANGES = ["no ranges", "another range", "wrong bytes of a range"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("bases") / "tiny")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with at_home(tmp_path) as made:
        yield made


@pytest.fixture
def mirror(base: Path) -> Iterator[Mirror]:
    with mirroring(base) as made:
        yield made


@pytest.fixture
def good(base: Path) -> Iterator[Mirror]:
    with mirroring(base) as made:
        yield made


def published(home: Home, base: Path, *mirrors: Mirror) -> Release:
    """A release whose largest file the server itself has lost."""
    made = home.releases.publish(base, sources=[one.address for one in mirrors])
    home.releases.promote(1)
    home.stored(largest(made)).unlink()
    home.stored(largest(made)).touch()
    return made


def largest(release: Release) -> str:
    return max(release.files, key=lambda one: one.size).sha256


@pytest.mark.parametrize("manner", [*LASTING, *OF_RANGES, "honest"])
def test_a_bad_mirror_costs_time_alone(
    manner: str, home: Home, base: Path, mirror: Mirror, good: Mirror
) -> None:
    release = published(home, base, mirror, good)
    mirror.manner = manner
    patience = SHORT if manner in SLOW else LONG
    found = fetch_release(home.http, release, home.folder, progress=False, patience=patience)
    assert FrozenBase.load(found.base, progress=False).fingerprint == release.base.fingerprint
    assert list((home.folder / "parts").iterdir()) == []
    assert len(mirror.requests) in (1, 2)
    assert bool(good.requests) == (manner in [*LASTING, "another range"])


@pytest.mark.parametrize("manner", LASTING)
def test_where_there_is_no_other_nothing_is_believed(
    manner: str, home: Home, base: Path, mirror: Mirror
) -> None:
    release = published(home, base, mirror)
    mirror.manner = manner
    patience = SHORT if manner in SLOW else LONG
    with pytest.raises(ReleaseUnavailable) as caught:
        fetch_release(home.http, release, home.folder, progress=False, patience=patience)
    assert mirror.address.split("/")[2] in str(caught.value)
    name = max(release.files, key=lambda one: one.size).name
    assert not (home.folder / "bases" / release.base.fingerprint / name).exists()
    mirror.manner = "honest"
    fetch_release(home.http, release, home.folder, progress=False, patience=LONG)


@pytest.mark.parametrize("manner", OF_RANGES)
def test_a_mirror_that_lies_about_ranges_does_not_spoil_what_is_there(
    manner: str, home: Home, base: Path, mirror: Mirror, good: Mirror
) -> None:
    release = published(home, base, mirror, good)
    file = max(release.files, key=lambda one: one.size)
    half = (base / file.name).read_bytes()[: file.size // 2]
    (home.folder / "parts").mkdir(parents=True)
    (home.folder / "parts" / f"{file.sha256}.part").write_bytes(half)
    mirror.manner = manner
    found = fetch_release(home.http, release, home.folder, progress=False, patience=LONG)
    assert FrozenBase.load(found.base, progress=False).fingerprint == release.base.fingerprint
    assert mirror.requests[0]["range"] == f"bytes={len(half)}-"
    if manner == "another range":  # then what was there is still good
        assert [request["range"] for request in good.requests] == [f"bytes={len(half)}-"]


@pytest.mark.parametrize("left", ["zeros", "too much", "all of it"])
def test_what_lies_there_is_not_believed_either(left: str, home: Home, base: Path, mirror: Mirror) -> None:
    release = published(home, base, mirror)
    file = max(release.files, key=lambda one: one.size)
    size = {"zeros": file.size // 2, "too much": file.size + 5, "all of it": file.size}[left]
    (home.folder / "parts").mkdir(parents=True)
    (home.folder / "parts" / f"{file.sha256}.part").write_bytes(bytes(size))
    found = fetch_release(home.http, release, home.folder, progress=False, patience=LONG)
    assert FrozenBase.load(found.base, progress=False).fingerprint == release.base.fingerprint


def test_a_server_and_a_mirror_that_both_damage_are_told_from_a_bad_line(
    home: Home, base: Path, mirror: Mirror
) -> None:
    release = published(home, base, mirror)
    mirror.manner = "damaged"
    home.stored(largest(release)).write_bytes(bytes(release.sizes[largest(release)]))
    with pytest.raises(ReleaseDamaged, match="nobody gives the file that was signed"):
        fetch_release(home.http, release, home.folder, progress=False, patience=LONG)


def test_two_profiles_that_fetch_at_once_do_not_mix_their_bytes(
    home: Home, base: Path, mirror: Mirror
) -> None:
    """They share the folder: appends would mix, and the later one write into what the other verified."""
    release = published(home, base, mirror)
    mirror.manner = "stalls"
    refused: list[ReleaseUnavailable] = []

    def first() -> None:
        with pytest.raises(ReleaseUnavailable, match="bytes are kept") as caught:
            fetch_release(home.http, release, home.folder, progress=False, patience=LONG)
        refused.append(caught.value)

    thread = threading.Thread(target=first)
    thread.start()
    part = home.folder / "parts" / f"{largest(release)}.part"
    while not (part.exists() and mirror.requests):
        assert thread.is_alive()
        time.sleep(0.01)
    count = len(mirror.requests)
    with pytest.raises(ReleaseUnavailable, match="another program fetches the file") as caught:
        fetch_release(home.http, release, home.folder, progress=False, patience=LONG)
    assert "try again" in caught.value.hint
    assert len(mirror.requests) == count
    mirror.stopped.set()
    thread.join()
    assert len(refused) == 1
    mirror.manner = "honest"
    found = fetch_release(home.http, release, home.folder, progress=False, patience=LONG)
    assert FrozenBase.load(found.base, progress=False).fingerprint == release.base.fingerprint


def test_what_another_profile_fetched_meanwhile_is_there(tmp_path: Path) -> None:
    content = b"a file"
    wanted = ExpectedFile(len(content), hashlib.sha256(content).hexdigest())
    part, target = tmp_path / "part", tmp_path / "target"
    target.write_bytes(content)
    download(wanted, [], part, target, lambda _: None, LONG)
    assert not part.exists()


def test_a_mirror_learns_nothing_of_the_user(home: Home, base: Path, mirror: Mirror) -> None:
    """Above all not the token, which opens the user's records at the server."""
    release = published(home, base, mirror)
    fetch_release(home.http, release, home.folder, progress=False, patience=LONG)
    token = home.http.headers["Authorization"].removeprefix("Bearer ")
    assert mirror.requests
    for request in mirror.requests:
        assert "authorization" not in request
        assert "cookie" not in request
        assert token not in str(request)
