"""Measures a vault as it grows: single adds, gets, replacements and removals at each size, and the disk."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antefix.common.table import align
from antefix.keys import DeviceKeys
from antefix.records import digest_of
from antefix.records.header import BODY_OFFSET, NO_PREVIOUS, Address, KeyEnvelope, RecordVersion, header_of
from antefix_server.vault import Vault
from antefix_server.vault.settings import Settings

_BATCH = 2_000
_KEPT = 20_000
_PREFIX = bytes(16)


@dataclass(frozen=True)
class VaultBench:
    """What to measure.

    Attributes:
        sizes: users, ascending.
        record_bytes: of each record.
        operations: of each kind, one by one, at each size.
        url: of an empty PostgreSQL; None for SQLite.
        folder: new, kept; None for a temporary one.
    """

    sizes: tuple[int, ...]
    record_bytes: int
    operations: int
    url: str | None
    folder: Path | None


def run(settings: VaultBench, say: Callable[[str], None]) -> dict[str, Any]:
    """Fill a vault and measure at each size; a report for JSON."""
    with _folder(settings) as folder:
        operator = DeviceKeys(DeviceKeys.new_seed().data).public
        with Vault.create(folder / "vault", operator, Settings(url=settings.url)) as vault:
            population = _Population(vault, settings.record_bytes)
            rows = []
            for size in settings.sizes:
                say(f"filling up to {size:,} users")
                started, start_count = time.perf_counter(), population.count
                population.fill(size)
                rate = (size - start_count) / (time.perf_counter() - started)
                rows.append(
                    {"users": size, "bulk_adds_per_s": round(rate), **_measured(population, settings, folder)}
                )
        database = "PostgreSQL" if settings.url else "SQLite"
        return {"bench": "vault", "database": database, "record_bytes": settings.record_bytes, "sizes": rows}


def table(report: dict[str, Any]) -> str:
    """The report for a terminal; times are p50 and p99 in milliseconds."""
    lines = [
        f"bench vault: {report['database']}, records of {report['record_bytes']:,} bytes; p50/p99 in ms",
        "",
    ]
    kinds = ("add", "get", "replace", "remove", "fsync")
    head = ["users", "bulk adds/s", *kinds, "adds/s", "gets/s", "removals/s", "bytes/user"]
    rows = [head]
    for size in report["sizes"]:
        times = [f"{size[kind]['p50_ms']:.2f}/{size[kind]['p99_ms']:.2f}" for kind in kinds]
        rates = [f"{size[kind]['per_s']:,}" for kind in ("add", "get", "remove")]
        rows.append(
            [
                f"{size['users']:,}",
                f"{size['bulk_adds_per_s']:,}",
                *times,
                *rates,
                f"{size['bytes_per_user']:,}",
            ]
        )
    return "\n".join([*lines, *align(rows, left=0)])


class _Population:
    """Users of a bench; of most only the number is remembered."""

    def __init__(self, vault: Vault, record_bytes: int) -> None:
        self.vault, self._bytes = vault, record_bytes
        self.count = 0
        self.known: list[tuple[bytes, bytes]] = []  # user and record
        self._dice = random.Random(0)

    def fill(self, size: int) -> None:
        while self.count < size:
            users = self.vault.enrol_many(min(_BATCH, size - self.count))
            pairs = [(user, self._record(user)) for user in users]
            self.vault.put_many([(record, 0) for _, record in pairs])
            self.count += len(pairs)
            self._remember(pairs)

    def add(self) -> None:
        user = self.vault.enrol()
        record = self._record(user)
        self.vault.put(record)
        self.count += 1
        self._remember([(user, record)])

    def get(self) -> None:
        user, record = self._dice.choice(self.known)
        if self.vault.get(user, _PREFIX) != record:
            raise RuntimeError("another record came back")

    def replace(self) -> None:
        at = self._dice.randrange(len(self.known))
        user, record = self.known[at]
        version = int.from_bytes(record[58:66], "big")
        newer = self._record(user, version + 1, digest_of(record))
        self.vault.put(newer, replaces=version)
        self.known[at] = (user, newer)

    def remove(self) -> None:
        user, _ = self.known.pop(self._dice.randrange(len(self.known)))
        self.vault.remove(user)
        self.count -= 1

    def _remember(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """Keep some users of every age."""
        room = _KEPT - len(self.known)
        self.known += pairs[:room]
        for pair in pairs[max(0, room) :]:
            if self._dice.random() < _KEPT / max(_KEPT, self.count):
                self.known[self._dice.randrange(_KEPT)] = pair

    def _record(self, user: bytes, version: int = 1, previous: bytes = NO_PREVIOUS) -> bytes:
        """A record as a server sees it: a cover and noise."""
        body = os.urandom(self._bytes - BODY_OFFSET)
        address = Address(self.vault.tenant, user, _PREFIX, bytes(32), bytes(32))
        core = RecordVersion(address, version, previous).core(len(body))
        return header_of(core, KeyEnvelope(1, bytes(16), bytes(104))) + bytes(64) + body


def _measured(population: _Population, settings: VaultBench, folder: Path) -> dict[str, Any]:
    count = settings.operations
    disk = _disk_bytes(population.vault, folder) / population.count
    actions = {
        "add": population.add,
        "get": population.get,
        "replace": population.replace,
        "remove": population.remove,
    }
    with _fsync(folder) as fsync:
        # In turn, so that what else the machine does falls on all of them.
        times: dict[str, list[float]] = {name: [] for name in [*actions, "fsync"]}
        for _, (name, action) in itertools.product(range(count), [*actions.items(), ("fsync", fsync)]):
            started = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - started)
    return {**{name: summary(values) for name, values in times.items()}, "bytes_per_user": round(disk)}


def summary(times: list[float]) -> dict[str, float]:
    """Of seconds."""
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {
        "count": len(ordered),
        "p50_ms": round(ordered[len(ordered) // 2] * 1e3, 3),
        "p99_ms": round(p99 * 1e3, 3),
        "max_ms": round(ordered[-1] * 1e3, 3),
        "per_s": round(len(times) / sum(times)),
    }


@contextmanager
def _fsync(folder: Path) -> Iterator[Callable[[], None]]:
    """What the disk takes for one block, beside every other figure."""
    path = folder / "fsync"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    places = itertools.count()

    def once() -> None:
        os.pwrite(file, os.urandom(4096), next(places) * 4096)
        os.fsync(file)

    try:
        yield once
    finally:
        os.close(file)
        path.unlink()


def _disk_bytes(vault: Vault, folder: Path) -> int:
    own = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    return own + vault.shelf.database.server_bytes()


@contextmanager
def _folder(settings: VaultBench) -> Iterator[Path]:
    if settings.folder is not None:
        yield settings.folder
        return
    with tempfile.TemporaryDirectory(prefix="antefix-bench-") as temporary:
        yield Path(temporary)
