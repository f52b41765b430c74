"""The gateway's releases: for enrolled devices, by digest, in ranges."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from antefix.wire import Release, ReleaseState
from antefix.wire.announcement import ReleaseOffer
from antefix_server.gateway import application
from antefix_server.registry import Registry
from antefix_server.releases import Releases
from antefix_server.vault import Vault
from tests.sdk.saved_models import save_base
from tests.server.gateway.test_gateway import PHONE, joined
from tests.support.loopback import serving
from tests.support.vaults import new_vault

pytestmark = pytest.mark.slow


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = new_vault(tmp_path / "vault", None, tmp_path / "mirror.db")
    yield made
    made.close()


@pytest.fixture
def http(vault: Vault) -> Iterator[httpx.Client]:
    """A client of the gateway that has enrolled."""
    with serving(application(vault)) as address, httpx.Client(base_url=address) as client:
        _, headers = joined(client, vault)
        client.headers.update(headers)
        yield client


@pytest.fixture
def release(vault: Vault, tmp_path: Path) -> Release:
    releases = Releases(vault)
    made = releases.publish(save_base(tmp_path / "base"))
    releases.promote(1)
    return made


def largest(release: Release) -> str:
    return max(release.files, key=lambda one: one.size).sha256


def test_a_device_gets_what_it_is_to_use(http: httpx.Client, vault: Vault, release: Release) -> None:
    answer = http.get("/v1/release")
    key = vault.identity.releasing.public_key().public_bytes_raw()
    seen, taken = ReleaseState(tenant=vault.tenant.hex()).accepting(ReleaseOffer.parse(answer.content), key)
    assert taken == release
    tag = {"If-None-Match": answer.headers["ETag"]}
    again = http.get("/v1/release", headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    Releases(vault).withdraw(1)
    answer = http.get("/v1/release", headers=tag)
    assert answer.status_code == 200
    assert seen.accepting(ReleaseOffer.parse(answer.content), key)[1] is None
    assert http.get(f"/v1/files/{largest(release)}").status_code == 404


def test_before_the_first_promotion_there_is_nothing(http: httpx.Client, vault: Vault) -> None:
    answer = http.get("/v1/release")
    assert (answer.status_code, answer.json()["type"]) == (404, "ReleaseAbsent")


def test_a_file_comes_whole_or_in_ranges(http: httpx.Client, vault: Vault, release: Release) -> None:
    path = f"/v1/files/{largest(release)}"
    whole = http.get(path)
    assert len(whole.content) == release.sizes[largest(release)]
    assert whole.headers["Accept-Ranges"] == "bytes"
    part = http.get(path, headers={"Range": "bytes=100-"})
    assert (part.status_code, part.content) == (206, whole.content[100:])
    assert part.headers["Content-Range"] == f"bytes 100-{len(whole.content) - 1}/{len(whole.content)}"
    middle = http.get(path, headers={"Range": "bytes=5-9"})
    assert middle.content == whole.content[5:10]
    tag = {"If-Range": whole.headers["ETag"], "Range": "bytes=5-9"}
    assert http.get(path, headers=tag).status_code == 206
    other = http.get(path, headers=tag | {"If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, whole.content)


@pytest.mark.parametrize(
    "asked",
    ["bytes=999999999-", "bytes=1-2-3", "bytes=0-1,3-4", "lines=1-2", "bytes=" + "0-0," * 500 + "0-0"],
)
def test_an_odd_range_is_refused(asked: str, http: httpx.Client, release: Release) -> None:
    answer = http.get(f"/v1/files/{largest(release)}", headers={"Range": asked})
    assert answer.status_code in (400, 416)
    assert len(answer.content) < 1000


@pytest.mark.parametrize(
    "name",
    [
        "00" * 32,
        "..",
        "%2e%2e%2f%2e%2e%2fkeys",
        "..%5ckeys",
        "A" * 64,
        "a" * 63,
        "a" * 65,
        "%00" * 64,
        "",
        ".",
    ],
)
def test_nothing_but_files_of_releases_is_given(name: str, http: httpx.Client, release: Release) -> None:
    answer = http.get(f"/v1/files/{name}")
    assert answer.status_code in (400, 404)
    assert "vault" not in answer.text


def test_a_file_that_no_release_names_is_not_given(
    http: httpx.Client, vault: Vault, release: Release
) -> None:
    stray = "ab" * 32
    (vault.folder / "releases" / "files" / stray).write_bytes(b"stray")
    assert http.get(f"/v1/files/{stray}").status_code == 404


def test_only_for_enrolled_devices(http: httpx.Client, vault: Vault, release: Release) -> None:
    paths = ("/v1/release", f"/v1/files/{largest(release)}")
    for path in paths:
        answer = httpx.get(f"{http.base_url}{path}")
        assert (answer.status_code, answer.json()["type"]) == (401, "TokenRefused")
    Registry(vault).revoke("ann", PHONE.id)
    assert [http.get(path).status_code for path in paths] == [401, 401]
