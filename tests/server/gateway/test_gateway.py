"""The gateway, as a device's HTTP client sees it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest

from antefix.keys import DeviceKeys
from antefix.receipts import LogKey
from antefix.records import digest_of
from antefix.wire import Invitation, ServerKeys, server_id
from antefix_server.errors import VaultDamaged
from antefix_server.gateway import Limits, application
from antefix_server.registry import Registry
from antefix_server.vault import RecordMeta, Vault
from tests.support.loopback import serving
from tests.support.records import some_bytes
from tests.support.vaults import Person

pytestmark = pytest.mark.slow

PHONE = DeviceKeys(some_bytes("phone", 64))
LAPTOP = DeviceKeys(some_bytes("laptop", 64))
LIMITS = Limits(record_bytes=100_000)


@pytest.fixture
def http(vault: Vault) -> Iterator[httpx.Client]:
    with serving(application(vault, LIMITS)) as address, httpx.Client(base_url=address) as client:
        yield client


def asked(invitation: Invitation, device: DeviceKeys = PHONE) -> dict[str, str]:
    return {
        "invitation": invitation.text(),
        "kem": device.public.kem_bytes.hex(),
        "signing": device.public.signing_bytes.hex(),
        "proof": invitation.proof(device).hex(),
        "name": "phone",
    }


def joined(
    http: httpx.Client, vault: Vault, name: str = "ann", device: DeviceKeys = PHONE
) -> tuple[Person, dict[str, str]]:
    """An enrolled device, and its headers."""
    invitation = Registry(vault).add(name).invitation
    answer = http.post("/v1/enrol", json=asked(invitation, device))
    assert answer.status_code == 200, answer.text
    said = answer.json()
    person = Person.with_id(vault.tenant, bytes.fromhex(said["user"]), name)
    return person, {"Authorization": f"Bearer {said['token']}"}


def path(person: Person) -> str:
    return f"/v1/records/{person.prefix.hex()}"


def test_a_device_knows_its_server_by_the_invitation(http: httpx.Client, vault: Vault) -> None:
    found = ServerKeys.model_validate(http.get("/v1/server").json())
    invitation = Registry(vault).add("ann").invitation
    assert server_id(bytes.fromhex(found.release_key)) == invitation.server
    assert LogKey.parse(found.log_key) == vault.log_key


def test_a_record_goes_in_and_comes_out(http: httpx.Client, vault: Vault) -> None:
    person, headers = joined(http, vault)
    assert http.get(path(person), headers=headers).status_code == 404
    first = person.next(b"one")
    assert http.put(path(person), content=first, headers=headers).json() == {"version": 1}
    found = http.get(path(person), headers=headers)
    assert found.content == first
    tag = {"If-None-Match": found.headers["ETag"]}
    again = http.get(path(person), headers=headers | tag)
    assert (again.status_code, again.content) == (304, b"")
    person.record, person.version = first, 1
    second = person.next(b"two")
    assert http.put(path(person), content=second, headers=headers).status_code == 409  # it replaces none
    assert http.put(path(person), params={"replaces": 1}, content=second, headers=headers).status_code == 200
    assert http.put(path(person), params={"replaces": 1}, content=second, headers=headers).status_code == 409
    assert http.get(path(person), headers=headers | tag).content == second
    person.record, person.version = second, 2
    person.owner = replace(person.owner)
    rotated = person.rotated()
    assert http.put(path(person), params={"replaces": 2}, content=rotated, headers=headers).status_code == 200
    assert http.get(path(person), headers=headers).content == rotated


def test_nobody_reaches_anothers_record(http: httpx.Client, vault: Vault) -> None:
    ann, of_ann = joined(http, vault)
    bob, of_bob = joined(http, vault, "bob", LAPTOP)
    record = ann.next(b"private")
    http.put(path(ann), content=record, headers=of_ann)
    assert http.get(path(ann), headers=of_bob).status_code == 404
    stolen = http.put(path(ann), params={"replaces": 1}, content=ann.next(b"x"), headers=of_bob)
    assert (stolen.status_code, stolen.json()["type"]) == (400, "RecordMismatch")
    assert http.put(path(bob), content=record, headers=of_ann).status_code == 400  # another path
    assert http.get(path(ann), headers=of_ann).content == record


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer abc", "Basic abc", "Bearer " + "A" * 64, "Bearer é"],
)
def test_without_a_good_token_nothing_is_answered(
    authorization: str | None, http: httpx.Client, vault: Vault
) -> None:
    person, _ = joined(http, vault)
    headers = {} if authorization is None else {b"Authorization": authorization.encode()}
    for method in ("GET", "PUT"):
        answer = http.request(method, path(person), headers=headers)
        assert answer.status_code == 401
        assert answer.json()["type"] == "TokenRefused"


def test_a_removed_user_is_gone_at_once(http: httpx.Client, vault: Vault) -> None:
    person, headers = joined(http, vault)
    http.put(path(person), content=person.next(b"one"), headers=headers)
    Registry(vault).remove("ann")
    assert http.get(path(person), headers=headers).status_code == 401
    note = http.get("/v1/log/checkpoint").text
    assert note.startswith("test/removals\n1\n")
    assert http.get("/v1/log/consistency", params={"first": 1}).json() == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"invitation": "x"}, 400),
        ({"proof": "00" * 64}, 403),
        ({"kem": "zz"}, 400),
        ({"kem": "00" * 1216}, 403),
        ({"more": 1}, 400),
        ({"name": "n" * 201}, 400),
        ({"signing": None}, 400),
    ],
)
def test_an_odd_enrolment_is_refused_and_nothing_of_it_repeated(
    change: dict[str, object], status: int, http: httpx.Client, vault: Vault
) -> None:
    invitation = Registry(vault).add("ann").invitation
    answer = http.post("/v1/enrol", json=asked(invitation) | change)
    assert answer.status_code == status, answer.text
    assert invitation.text() not in answer.text
    assert http.post("/v1/enrol", json=asked(invitation)).status_code == 200  # it is still good


def test_what_is_too_large_is_refused(http: httpx.Client, vault: Vault) -> None:
    person, headers = joined(http, vault)
    large = bytes(LIMITS.record_bytes + 1)
    assert http.put(path(person), content=large, headers=headers).status_code == 413

    def pieces() -> Iterator[bytes]:
        yield from (bytes(10_000) for _ in range(20))

    assert http.put(path(person), content=pieces(), headers=headers).status_code == 413
    assert http.post("/v1/enrol", content=bytes(20_000)).status_code == 413
    assert http.post("/v1/enrol", content=pieces()).status_code == 411


@pytest.mark.parametrize(
    "prefix",
    ["..", "%2e%2e%2fkeys", "A" * 32, "a" * 31, "a" * 33, "\N{CYRILLIC SMALL LETTER A}" * 32],
)
def test_a_prefix_is_32_hex_digits(prefix: str, http: httpx.Client, vault: Vault) -> None:
    _, headers = joined(http, vault)
    assert http.get(f"/v1/records/{prefix}", headers=headers).status_code in (400, 404)


def test_who_asks_too_often_waits(vault: Vault) -> None:
    limits = Limits(requests_per_minute=3, enrolments_per_minute=3)
    with serving(application(vault, limits)) as address, httpx.Client(base_url=address) as http:
        person, headers = joined(http, vault)
        found = [http.get(path(person), headers=headers).status_code for _ in range(5)]
        assert found == [404, 404, 404, 429, 429]
        assert int(http.get(path(person), headers=headers).headers["Retry-After"]) in range(1, 21)
        strange = asked(Invitation.fresh(bytes(16)))
        statuses = [http.post("/v1/enrol", json=strange).status_code for _ in range(4)]
        assert statuses == [403, 403, 429, 429]
        assert http.get("/health").json() == {"status": "ok"}


def test_a_record_that_is_put_counts_as_one_request(vault: Vault) -> None:
    app = application(vault, Limits(requests_per_minute=1))
    with serving(app) as address, httpx.Client(base_url=address) as http:
        person, headers = joined(http, vault)
        answer = http.put(path(person), content=person.next(b"one"), headers=headers)
        assert answer.status_code == 200, answer.text
        assert http.get(path(person), headers=headers).status_code == 429


def test_the_server_speaks_of_no_path_when_it_is_in_trouble(
    http: httpx.Client, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, headers = joined(http, vault)

    def broken(*_: object) -> bytes:
        raise VaultDamaged(f"{vault.folder} is damaged", "mend it")

    monkeypatch.setattr(vault, "head", broken)
    answer = http.get(path(person), headers=headers)
    assert answer.status_code == 500
    assert str(vault.folder) not in answer.text


def test_a_user_stores_so_much_and_no_more(vault: Vault) -> None:
    limits = Limits(user_records=2, user_bytes=30_000)
    with serving(application(vault, limits)) as address, httpx.Client(base_url=address) as client:
        person, headers = joined(client, vault)
        address_of = person.owner.address

        def put(number: int, size: int, replaces: int = 0) -> httpx.Response:
            person.owner.address = replace(address_of, prefix=bytes([number]) * 16)
            record = person.owner.seal(bytes(size), replaces + 1, person.previous if replaces else bytes(32))
            where = f"/v1/records/{person.prefix.hex()}"
            answer = client.put(where, content=record, params={"replaces": replaces}, headers=headers)
            if answer.status_code == 200:
                person.previous = digest_of(record)
            return answer

        assert put(1, 8_000).status_code == put(2, 8_000).status_code == 200
        assert put(3, 100).json()["message"] == "a user has 2 records, and 2 at most"
        assert put(2, 30_000, replaces=1).status_code == 413
        assert put(2, 100, replaces=1).status_code == 200  # who is at a limit can go on


def test_records_that_come_at_once_have_no_more_room_together(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each found the room that was there before the other was stored."""
    limits, heads, both = Limits(user_records=1), vault.heads, threading.Barrier(2)

    def looked(user: bytes) -> list[RecordMeta]:
        found = heads(user)
        with suppress(threading.BrokenBarrierError):
            both.wait(1)  # until the other has looked too, unless it has to wait
        return found

    with serving(application(vault, limits)) as address, httpx.Client(base_url=address) as client:
        person, headers = joined(client, vault)
        address_of, records = person.owner.address, dict[str, bytes]()
        for number in (1, 2):
            person.owner.address = replace(address_of, prefix=bytes([number]) * 16)
            records[path(person)] = person.owner.seal(b"text", 1, bytes(32))
        monkeypatch.setattr(vault, "heads", looked)
        with ThreadPoolExecutor(2) as pool:
            answers = pool.map(
                lambda one: client.put(one[0], content=one[1], headers=headers), records.items()
            )
            assert sorted(one.status_code for one in answers) == [200, 413]
