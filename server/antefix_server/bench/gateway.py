"""Measures a gateway under many devices that sync: its own process, TLS, a new connection for each sync."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from antefix.keys import DeviceKeys
from antefix.records import digest_of
from antefix.records.header import BODY_OFFSET, NO_PREVIOUS, Address, KeyEnvelope, RecordVersion, header_of
from antefix_server.admin import admin_socket
from antefix_server.bench.gateway_process import cpu_s, gateway
from antefix_server.bench.vault import summary
from antefix_server.errors import ServerUnreachable
from antefix_server.http import tls
from antefix_server.registry import Registry
from antefix_server.vault import Vault
from antefix_server.vault.settings import Settings

_PREFIX = bytes(16)
_BATCH = 2_000


@dataclass(frozen=True)
class GatewayBench:
    """What to measure.

    Attributes:
        devices: each of a user of its own.
        users: of the server, those of the devices among them.
        every_s: seconds between two syncs of a device.
        seconds: how long.
        changed: share of syncs that bring a new version.
        record_bytes: of each record.
        operations: users that are added and removed meanwhile, each.
    """

    devices: int
    users: int
    every_s: float
    seconds: float
    changed: float
    record_bytes: int
    operations: int


@dataclass
class _Device:
    token: str
    user: bytes
    tenant: bytes
    size: int
    version: int = 0
    digest: bytes = NO_PREVIOUS
    tag: str | None = None

    def next_record(self) -> bytes:
        """A record as a server sees it: a cover and noise."""
        body = os.urandom(self.size - BODY_OFFSET)
        address = Address(self.tenant, self.user, _PREFIX, bytes(32), bytes(32))
        core = RecordVersion(address, self.version + 1, self.digest).core(len(body))
        return header_of(core, KeyEnvelope(1, bytes(16), bytes(104))) + bytes(64) + body


@dataclass
class _Tally:
    times: dict[str, list[float]] = field(default_factory=lambda: {"unchanged": [], "changed": []})
    errors: list[str] = field(default_factory=list)


def run(settings: GatewayBench, say: Callable[[str], None]) -> dict[str, Any]:
    """Fill a server, let its devices sync, add and remove users meanwhile; a report for JSON."""
    with tempfile.TemporaryDirectory(prefix="antefix-bench-") as temporary:
        data = Path(temporary) / "data"
        say(f"filling with {settings.users:,} users")
        devices = _filled(data, settings)
        certificate = tls.own(data, [])
        with gateway(data) as (url, process):
            tally = _Tally()
            verify = ssl.create_default_context(cafile=str(certificate.authority))
            say("first sync of every device")
            asyncio.run(_first(url, verify, devices))
            say(f"{settings.seconds:.0f} s of {settings.devices:,} devices")
            start_cpu, begun = cpu_s(process), time.perf_counter()
            operations = asyncio.run(_load(url, verify, devices, settings, tally, data))
            cpu = (cpu_s(process) - start_cpu) / (time.perf_counter() - begun)
    report = {"bench": "gateway", **vars(settings), "errors": len(tally.errors), "cpus": round(cpu, 2)}
    if tally.errors:
        report["first_error"] = tally.errors[0]
    return {
        **report,
        **{name: summary(values) for name, values in {**tally.times, **operations}.items() if values},
    }


def table(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [
        f"bench gateway: {report['devices']:,} devices, a sync every {report['every_s']:g} s each for "
        f"{report['seconds']:g} s, records of {report['record_bytes']:,} bytes, {report['users']:,} users",
        f"errors {report['errors']}; the gateway took {report['cpus']:.2f} cores",
        "",
        f"{'ms':16}{'count':>8}{'p50':>9}{'p99':>9}{'max':>9}",
    ]
    for name, label in (
        ("unchanged", "sync, nothing new"),
        ("changed", "sync, new version"),
        ("add", "users add"),
        ("remove", "users remove"),
    ):
        if name in report:
            stats = report[name]
            lines.append(
                f"{label:16}{stats['count']:>8,}{stats['p50_ms']:>9.1f}{stats['p99_ms']:>9.1f}{stats['max_ms']:>9.1f}"
            )
    return "\n".join(lines)


def _filled(data: Path, settings: GatewayBench) -> list[_Device]:
    operator = DeviceKeys(DeviceKeys.new_seed().data).public
    devices = []
    with Vault.create(data, operator, Settings()) as vault:
        registry = Registry(vault)
        for at in range(0, settings.users, _BATCH):
            names = [f"user {number}" for number in range(at, min(at + _BATCH, settings.users))]
            added = registry.add_many(names)
            for member in added[: max(0, settings.devices - at)]:
                keys = DeviceKeys(DeviceKeys.new_seed().data)
                enrolment = registry.enrol(member.invitation, keys.public, member.invitation.proof(keys))
                devices.append(
                    _Device(enrolment.token, enrolment.user, enrolment.tenant, settings.record_bytes)
                )
    return devices


async def _first(url: str, verify: ssl.SSLContext, devices: list[_Device]) -> None:
    """Everybody stores a record."""
    for device in devices:
        async with _client(url, verify, device) as client:
            await _put(client, device)


async def _load(
    url: str,
    verify: ssl.SSLContext,
    devices: list[_Device],
    settings: GatewayBench,
    tally: _Tally,
    data: Path,
) -> dict[str, list[float]]:
    until = time.monotonic() + settings.seconds
    dice = random.Random(0)
    working = asyncio.gather(
        *(
            _syncing(url, verify, device, settings, tally, until, random.Random(dice.random()))
            for device in devices
        )
    )
    operations = await asyncio.to_thread(_operated, data, settings, until)
    await working
    return operations


async def _syncing(
    url: str,
    verify: ssl.SSLContext,
    device: _Device,
    settings: GatewayBench,
    tally: _Tally,
    until: float,
    dice: random.Random,
) -> None:
    due = time.monotonic() + dice.uniform(0, settings.every_s)
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        changed = dice.random() < settings.changed
        begun = time.perf_counter()
        try:
            async with _client(url, verify, device) as client:
                await _get(client, device)
                if changed:
                    await _put(client, device)
            tally.times["changed" if changed else "unchanged"].append(time.perf_counter() - begun)
        except (httpx.HTTPError, ServerUnreachable) as error:
            tally.errors.append(f"{type(error).__name__}: {error}")
        due += settings.every_s


def _operated(data: Path, settings: GatewayBench, until: float) -> dict[str, list[float]]:
    """Users added and removed through the server's own socket, spread over the time."""
    times: dict[str, list[float]] = {"add": [], "remove": []}
    pause = settings.seconds / max(1, 2 * settings.operations)
    for number in range(settings.operations):
        for kind, name, invited_s in (("add", "add_user", 60), ("remove", "remove", None)):
            if time.monotonic() > until:
                return times
            begun = time.perf_counter()
            admin_socket.ask(data, name, name=f"bench {number}", invited_s=invited_s)
            times[kind].append(time.perf_counter() - begun)
            time.sleep(max(0.0, pause - times[kind][-1]))
    return times


async def _get(client: httpx.AsyncClient, device: _Device) -> None:
    headers = {} if device.tag is None else {"If-None-Match": device.tag}
    answer = await client.get(f"/v1/records/{_PREFIX.hex()}", headers=headers)
    if answer.status_code != 304 and device.tag is not None:
        raise ServerUnreachable(f"status {answer.status_code} for an unchanged record", "")
    if answer.status_code == 304 and answer.content:
        raise ServerUnreachable("an unchanged record was sent", "")


async def _put(client: httpx.AsyncClient, device: _Device) -> None:
    record = device.next_record()
    answer = await client.put(
        f"/v1/records/{_PREFIX.hex()}", params={"replaces": device.version}, content=record
    )
    if answer.status_code != 200:
        raise ServerUnreachable(f"status {answer.status_code} for a new version", "")
    device.version, device.digest = device.version + 1, digest_of(record)
    device.tag = f'"{device.version}-1-{device.digest.hex()}"'


def _client(url: str, verify: ssl.SSLContext, device: _Device) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {device.token}"}
    return httpx.AsyncClient(base_url=url, verify=verify, headers=headers, timeout=30, trust_env=False)
