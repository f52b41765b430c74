"""Flower's fleet routes behind the gateway: a real upstream over TLS, in place of the SuperLink."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from antefix.keys import DeviceKeys
from antefix.wire import NodeKey
from antefix_server.admin import operations
from antefix_server.errors import FlowerRefused, UnknownUser, VaultDamaged, VaultFull
from antefix_server.gateway import application, process
from antefix_server.gateway.fleet_proxy import CALLS, FleetProxy
from antefix_server.http import tls
from antefix_server.registry import Node, Registry, Session
from antefix_server.registry import nodes as nodes_module
from antefix_server.registry.retired_nodes import Retired
from antefix_server.vault import Vault
from tests.server.gateway.test_gateway import asked
from tests.support.loopback import serving
from tests.support.records import some_bytes
from tests.support.vaults import new_vault

pytestmark = pytest.mark.slow

PHONE = DeviceKeys(some_bytes("phone", 64))
LAPTOP = DeviceKeys(some_bytes("laptop", 64))


class Upstream:
    """Numbers nodes as a SuperLink does, and remembers what it was asked."""

    def __init__(self) -> None:
        self.keys: dict[bytes, int] = {}
        self.gone: list[int] = []
        self.refused: list[int] = []
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    def register(self, key: bytes, name: str) -> int:
        if key in self.keys:
            raise FlowerRefused("Flower's SuperLink refused (used before)")
        self.keys[key] = 2**63 + len(self.keys)
        return self.keys[key]

    def unregister(self, node: int) -> None:
        if node in self.refused:
            raise FlowerRefused("Flower's SuperLink refused")
        self.gone.append(node)

    async def answer(self, request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items()}
        self.seen.append((request.url.path, headers, await request.body()))
        return Response(b"from flower", 200, media_type="application/x-protobuf")


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    with new_vault(tmp_path / "vault") as made:
        yield made


@pytest.fixture
def flower() -> Upstream:
    return Upstream()


@pytest.fixture
def http(vault: Vault, flower: Upstream) -> Iterator[httpx.Client]:
    certificate = tls.own(vault.folder, [])
    assert certificate.authority is not None
    upstream = Starlette(routes=[Route("/{path:path}", flower.answer, methods=["GET", "POST", "PUT"])])
    with serving(upstream, certificate=certificate) as url:
        address = url.removeprefix("https://")
        fleet = FleetProxy(Registry(vault), flower, address, certificate.authority)  # type: ignore[arg-type]
        with serving(application(vault, fleet=fleet)) as own, httpx.Client(base_url=own) as client:
            yield client


def device(http: httpx.Client, vault: Vault, name: str, keys: DeviceKeys) -> dict[str, str]:
    answer = http.post("/v1/enrol", json=asked(Registry(vault).add(name).invitation, keys)).json()
    return {"Authorization": f"Bearer {answer['token']}"}


def enrolled(vault: Vault, keys: DeviceKeys) -> Session:
    """A device of ann, who is new."""
    registry = Registry(vault)
    invitation = registry.add("ann").invitation
    return registry.authenticate(registry.enrol(invitation, keys.public, invitation.proof(keys)).token)


def node(http: httpx.Client, headers: dict[str, str], keys: DeviceKeys) -> tuple[NodeKey, dict[str, str]]:
    """A registered node, and the headers that its requests carry."""
    key = NodeKey.proved(ec.generate_private_key(ec.SECP384R1()), keys.id)
    answer = http.put("/v1/node", json=key.model_dump(), headers=headers)
    assert answer.status_code == 200, answer.text
    return key, {**headers, "flwr-public-key": base64.b64encode(key.key.encode()).decode()}


def test_a_devices_calls_are_passed_on_with_its_headers(
    http: httpx.Client, vault: Vault, flower: Upstream
) -> None:
    _, headers = node(http, device(http, vault, "ann", PHONE), PHONE)
    answer = http.post(
        "/v1/fleet/pull-messages", headers={**headers, "flwr-signature": "s", "cookie": "c"}, content=b"asked"
    )
    assert (answer.status_code, answer.content) == (200, b"from flower")
    path, seen, body = flower.seen[0]
    assert (path, body, seen["flwr-signature"]) == ("/v1/fleet/pull-messages", b"asked", "s")
    assert not {"authorization", "cookie"} & seen.keys()  # Flower has no use for the device's token


def test_nothing_else_of_flower_is_there(http: httpx.Client, vault: Vault, flower: Upstream) -> None:
    _, headers = node(http, device(http, vault, "ann", PHONE), PHONE)
    for call in ("get-fab", "register-node", "unregister-node", "..%2fcontrol%2fstart-run", "nothing"):
        assert http.post(f"/v1/fleet/{call}", headers=headers, content=b"").status_code == 404
    for path in ("/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/fleet/../control/list-runs"):
        assert http.post(path, headers=headers, content=b"").status_code == 404
    assert flower.seen == []
    assert "get-fab" not in CALLS


def test_a_node_key_of_another_device_is_refused(http: httpx.Client, vault: Vault, flower: Upstream) -> None:
    """Ann has heard Bea's headers; with her own token they open nothing."""
    ann, bea = device(http, vault, "ann", PHONE), device(http, vault, "bea", LAPTOP)
    _, theirs = node(http, bea, LAPTOP)
    stolen = {**ann, "flwr-public-key": theirs["flwr-public-key"]}
    assert http.post("/v1/fleet/pull-messages", headers=stolen, content=b"").status_code == 403
    node(http, ann, PHONE)
    assert http.post("/v1/fleet/pull-messages", headers=stolen, content=b"").status_code == 403
    assert http.post("/v1/fleet/pull-messages", headers=ann, content=b"").status_code == 403
    assert flower.seen == []


def test_a_key_must_be_proved(http: httpx.Client, vault: Vault, flower: Upstream) -> None:
    """Else a device could take the number of another one's node."""
    ann, bea = device(http, vault, "ann", PHONE), device(http, vault, "bea", LAPTOP)
    theirs, _ = node(http, bea, LAPTOP)
    wrong = [
        theirs.model_dump(),
        NodeKey.proved(ec.generate_private_key(ec.SECP256R1()), PHONE.id).model_dump(),
        {"key": "no key", "proof": "00" * 70},
        {"key": theirs.key + "\n", "proof": theirs.proof},
    ]
    for body in wrong:
        assert http.put("/v1/node", json=body, headers=ann).status_code == 403
    assert len(flower.keys) == 1


def test_the_same_key_keeps_its_number_and_a_new_one_replaces_it(
    http: httpx.Client, vault: Vault, flower: Upstream
) -> None:
    headers = device(http, vault, "ann", PHONE)
    first, _ = node(http, headers, PHONE)
    again = http.put("/v1/node", json=first.model_dump(), headers=headers)
    assert again.json() == {"node": str(2**63)}
    node(http, headers, PHONE)
    assert Retired(vault.folder).nodes() == [2**63]
    assert http.put("/v1/node", json=first.model_dump(), headers=headers).status_code == 409  # burnt


def test_a_node_that_could_not_be_kept_is_retired_and_the_one_before_is_not(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, session = Registry(vault), enrolled(vault, PHONE)
    registry.nodes.keep(session, Node(1, PHONE.id, b"first"))
    keep = nodes_module.keep

    def full(*given: Any) -> list[int]:
        keep(*given)
        raise VaultFull("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(nodes_module, "keep", full)
        with pytest.raises(VaultFull):
            registry.nodes.keep(session, Node(2, PHONE.id, b"second"))
    assert Retired(vault.folder).nodes() == [2]
    assert (registry.nodes.has(1), registry.nodes.has(2)) == (True, False)
    registry.remove("ann")
    with pytest.raises(UnknownUser):
        registry.nodes.keep(session, Node(3, PHONE.id, b"third"))
    assert Retired(vault.folder).nodes() == [1, 2, 3]


def test_nodes_that_no_device_has_leave_flower_and_one_that_stays_keeps_none(
    vault: Vault, flower: Upstream
) -> None:
    registry, retired = Registry(vault), Retired(vault.folder)
    registry.nodes.keep(enrolled(vault, PHONE), Node(2, PHONE.id, b"a key"))
    retired.add([1, 2, 3])  # 2: the change that gives it up was not made
    flower.refused = [1]
    process._retire_some(retired, registry, flower)  # type: ignore[arg-type]  # it runs, on no network
    assert (flower.gone, retired.nodes()) == ([3], [1, 2])


def test_a_full_disk_does_not_end_who_retires_nodes(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Iterator[Exception | type[BaseException]] = iter(
        [VaultFull("no space left"), OSError(), SystemExit]
    )

    def fails(*_: object) -> None:
        raise next(found)

    monkeypatch.setattr(Retired, "nodes", fails)
    monkeypatch.setattr(process, "_AGAIN_S", 0.0)
    with pytest.raises(SystemExit):
        process._retire(Retired(vault.folder), Registry(vault), None)  # type: ignore[arg-type]  # not used


@pytest.mark.parametrize("damage", [b"[1", b"{}", b'["1"]', b"\xff"])
@pytest.mark.parametrize("end", ["revoke", "remove"])
def test_a_damaged_list_of_retired_nodes_is_put_aside_and_stops_nothing(
    end: str, damage: bytes, vault: Vault
) -> None:
    registry, retired = Registry(vault), Retired(vault.folder)
    registry.nodes.keep(enrolled(vault, PHONE), Node(1, PHONE.id, b"a key"))
    path = vault.folder / "flower" / "retired.json"
    path.write_bytes(damage)
    with pytest.raises(VaultDamaged, match="no list of nodes"):
        retired.nodes()
    if end == "revoke":
        registry.revoke("ann", PHONE.id)
    else:
        registry.remove("ann")
    assert retired.nodes() == [1]
    assert path.with_suffix(".damaged").read_bytes() == damage


def test_who_takes_part_is_known_by_node_and_nobody_else_is(
    http: httpx.Client, vault: Vault, flower: Upstream
) -> None:
    registry, site = Registry(vault), operations.Site(vault)
    ann, bea = device(http, vault, "ann", PHONE), device(http, vault, "bea", LAPTOP)
    node(http, ann, PHONE)
    node(http, bea, LAPTOP)
    numbers = sorted(flower.keys.values())
    found = registry.nodes.participants([*numbers, 1])
    assert [one.node for one in found] == numbers
    assert found[0].signing == PHONE.public.signing_bytes
    assert found[0].user != found[1].user
    registry.suspend("ann")
    assert [one.node for one in registry.nodes.participants(numbers)] == numbers[1:]
    assert http.post("/v1/fleet/pull-messages", headers=ann, content=b"").status_code == 401
    registry.suspend("ann", False)
    operations.revoke(site, "ann", PHONE.id.hex())
    operations.remove(site, "bea")
    assert registry.nodes.participants(numbers) == []
    assert Retired(vault.folder).nodes() == numbers
    assert http.post("/v1/fleet/pull-messages", headers=bea, content=b"").status_code == 401


def test_without_rounds_there_is_nothing(vault: Vault) -> None:
    with serving(application(vault)) as own, httpx.Client(base_url=own) as http:
        headers = device(http, vault, "ann", PHONE)
        key = NodeKey.proved(ec.generate_private_key(ec.SECP384R1()), PHONE.id)
        assert http.put("/v1/node", json=key.model_dump(), headers=headers).status_code == 404
        assert http.post("/v1/fleet/pull-messages", headers=headers, content=b"").status_code == 404


def test_a_superlink_that_is_away_is_told(vault: Vault, flower: Upstream) -> None:
    certificate = tls.own(vault.folder, [])
    assert certificate.authority is not None
    fleet = FleetProxy(Registry(vault), flower, "127.0.0.1:9", certificate.authority)  # type: ignore[arg-type]
    with serving(application(vault, fleet=fleet)) as own, httpx.Client(base_url=own) as http:
        _, headers = node(http, device(http, vault, "ann", PHONE), PHONE)
        answer = http.post("/v1/fleet/pull-messages", headers=headers, content=b"")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
