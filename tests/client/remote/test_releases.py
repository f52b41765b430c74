"""A device asks what to use, and has it in the end, whatever happens on the way."""

import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from antefix import FrozenBase, Prefix
from antefix.errors import ReleaseRefused
from antefix.wire import Release
from antefix.wire.release import BaseReference
from antefix_client.errors import (
    DeviceRefused,
    NoRelease,
    ProfileFull,
    ProfileUnwritable,
    ReleaseUnavailable,
)
from antefix_client.remote.releases import fetch_release, request_release
from antefix_server.registry import Registry
from tests.client.release_server import LONG, PHONE, Home, at_home
from tests.sdk.saved_models import save_base
from tests.support.releases import a_file, a_release

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("bases") / "tiny", shard_bytes=4000)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with at_home(tmp_path) as made:
        yield made


def released(home: Home, base: Path) -> Release:
    loaded = FrozenBase.load(str(base), progress=False)
    shared = Prefix(torch.ones(loaded.layout.size(2)), loaded.layout, loaded.fingerprint)
    made = home.releases.publish(base, shared=shared.to_bytes())
    home.releases.promote(made.version)
    return made


def test_a_device_has_the_base_and_the_shared_prefix(home: Home, base: Path) -> None:
    made = released(home, base)
    seen, release = request_release(home.http, home.key, home.seen)
    assert release == made
    came: list[tuple[int, int]] = []
    found = fetch_release(
        home.http, release, home.folder, progress=lambda done, total: came.append((done, total))
    )
    loaded = FrozenBase.load(found.base, progress=False)
    assert loaded.fingerprint == made.base.fingerprint
    assert found.shared is not None
    Prefix.load(found.shared).require_base(loaded.fingerprint, loaded.layout)
    assert came[-1] == (sum(made.sizes.values()),) * 2
    came.clear()
    assert fetch_release(home.http, release, home.folder, progress=lambda *now: came.append(now)) == found
    assert came == []
    assert list((home.folder / "parts").iterdir()) == []
    assert request_release(home.http, home.key, seen) == (seen, made)
    assert request_release(home.http, home.key, seen, kept=made) == (seen, made)  # 304


def test_what_is_withdrawn_is_not_used(home: Home, base: Path) -> None:
    first = released(home, base)
    second = home.releases.publish(note="another")
    home.releases.promote(2)
    seen, release = request_release(home.http, home.key, home.seen)
    assert release == second
    home.releases.withdraw(2)
    seen, release = request_release(home.http, home.key, seen, kept=second)
    assert release == first
    home.releases.withdraw(1)
    seen, release = request_release(home.http, home.key, seen)
    assert release is None
    with pytest.raises(ReleaseUnavailable, match="answers 404"):
        fetch_release(home.http, first, home.folder, progress=False)


def test_what_came_before_a_failure_is_not_fetched_again(
    home: Home, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = released(home, base)
    sent: list[int] = []

    real = httpx.Response.iter_raw

    def stingy(response: httpx.Response, chunk_size: int | None = None) -> Iterator[bytes]:
        for chunk in real(response, 500):
            sent.append(len(chunk))
            yield chunk
            if sum(sent) > 3000:
                raise httpx.ReadError("the train went into a tunnel")

    with monkeypatch.context() as patched:
        patched.setattr(httpx.Response, "iter_raw", stingy)
        with pytest.raises(ReleaseUnavailable, match=r"cannot be reached \(ReadError\); .* bytes are kept"):
            fetch_release(home.http, release, home.folder, progress=False)
    came: list[tuple[int, int]] = []
    fetch_release(home.http, release, home.folder, progress=lambda *now: came.append(now))
    total = came[-1][1]
    assert came[-1][0] == total
    whole = sum(one.size for one in release.files) + (release.shared.size if release.shared else 0)
    assert whole - total + came[0][0] >= 1000  # whole files, and a part of one, were there


def test_a_file_that_was_changed_here_is_fetched_again(home: Home, base: Path) -> None:
    release = released(home, base)
    found = fetch_release(home.http, release, home.folder, progress=False)
    folder = Path(found.base)
    (folder / "config.json").write_text("{}")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "odd").mkdir()
    again = fetch_release(home.http, release, home.folder, progress=False)
    assert FrozenBase.load(again.base, progress=False).fingerprint == release.base.fingerprint
    assert {path.name for path in folder.iterdir()} == {one.name for one in release.files}


def test_no_bar_where_nothing_is_to_do_and_one_where_there_is(
    home: Home, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = released(home, base)
    capsys.readouterr()
    fetch_release(home.http, release, home.folder)
    said = capsys.readouterr()
    assert "base tiny: 100%" in said.err
    assert said.out == ""
    fetch_release(home.http, release, home.folder)
    assert capsys.readouterr().err == ""


def test_a_base_of_the_catalogue_is_named_not_fetched(home: Home) -> None:
    release = home.releases.publish("smollm2-135m-q4")
    assert fetch_release(home.http, release, home.folder, progress=False).base == "smollm2-135m-q4"
    for name in ("/etc", "gpt2", "smollm2-135m-q4"):
        odd = release.model_copy(
            update={"base": BaseReference.model_construct(name=name, fingerprint="00" * 32)}
        )
        with pytest.raises(ReleaseRefused, match="not in the catalogue"):
            fetch_release(home.http, odd, home.folder, progress=False)


def test_without_a_server_or_a_release_it_is_said(home: Home) -> None:
    with pytest.raises(NoRelease, match="announced no release"):
        request_release(home.http, home.key, home.seen)
    with httpx.Client(base_url="http://127.0.0.1:9") as nobody:
        with pytest.raises(ReleaseUnavailable, match="does not answer"):
            request_release(nobody, home.key, home.seen)
        with pytest.raises(ReleaseUnavailable, match=r"127\.0\.0\.1:9 cannot be reached .* nothing came"):
            fetch_release(nobody, a_release(files=(a_file(),)), home.folder, progress=False, patience=LONG)
    Registry(home.vault).revoke("ann", PHONE.id)
    with pytest.raises(DeviceRefused):
        request_release(home.http, home.key, home.seen)


def test_files_that_are_signed_and_yet_no_base_are_refused(home: Home, base: Path) -> None:
    release = released(home, base)
    other = release.model_copy(
        update={"base": BaseReference(name="tiny", fingerprint="00" * 32), "shared": None}
    )
    with pytest.raises(ReleaseRefused, match="its files make base"):
        fetch_release(home.http, other, home.folder, progress=False)
    half = release.model_copy(update={"files": release.files[:1], "shared": None})
    with pytest.raises(ReleaseRefused, match="its files are no base"):
        fetch_release(home.http, half, home.folder, progress=False)
    assert release.shared is not None
    lying = release.shared.model_copy(update={"layout": "00" * 32})
    with pytest.raises(ReleaseRefused, match="other shapes"):
        fetch_release(home.http, release.model_copy(update={"shared": lying}), home.folder, progress=False)


def test_a_full_disk_is_said_before_and_during(
    home: Home, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = released(home, base)
    with monkeypatch.context() as patched:
        usage = shutil.disk_usage(base)._replace(free=1000)
        patched.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(ProfileFull, match="1,000 are free"):
            fetch_release(home.http, release, home.folder, progress=False)
    large = max(one.size for one in release.files)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (large - 100, before[1]))
        with pytest.raises(ProfileFull, match="no space left"):
            fetch_release(home.http, release, home.folder, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.stat().st_size > 0 for path in (home.folder / "parts").iterdir()] == [True]
    fetch_release(home.http, release, home.folder, progress=False)


def test_a_folder_that_cannot_be_made_is_named(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProfileUnwritable, match="file"):
        fetch_release(home.http, a_release(files=(a_file(),)), tmp_path / "file", progress=False)
