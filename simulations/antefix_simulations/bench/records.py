"""Measures sealed records: seal, open, and wrap again for a new user key, at the sizes of real prefixes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from antefix.common.table import align
from antefix.keys import DeviceKeys, UserKey
from antefix.records import NO_PREVIOUS, Address, RecordVersion, open_record, rewrap, seal


def bench_records(sizes: list[int], repetitions: int) -> dict[str, Any]:
    """Times of one user's records; a report for JSON.

    Args:
        sizes: of the payload, bytes.
        repetitions: of each operation at each size, in turn.
    """
    rows = [_row(size, repetitions) for size in sizes]
    return {"bench": "records", "repetitions": repetitions, "sizes": rows}


def _row(size: int, repetitions: int) -> dict[str, Any]:
    payload = os.urandom(size)
    key, device = UserKey.generate(), DeviceKeys(DeviceKeys.new_seed().data)
    new, writers = key.rotated(), {device.id: device.public.signing}
    address = Address(bytes(16), os.urandom(16), os.urandom(16), os.urandom(32), os.urandom(32))
    edition = RecordVersion(address, 1, NO_PREVIOUS)
    record = seal(payload, edition, key=key, device=device)
    actions: dict[str, Callable[[], object]] = {
        "seal": lambda: seal(payload, edition, key=key, device=device),
        "open": lambda: open_record(record, address, key=key, writers=writers).wipe(),
        "rewrap": lambda: rewrap(record, address, old=key, new=new, device=device, writers=writers),
    }
    return {"payload_bytes": size, "record_bytes": len(record), **_times(actions, repetitions)}


def records_table(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    kinds = ("seal", "open", "rewrap")
    rows = [["payload bytes", "record bytes", *kinds]]
    for row in report["sizes"]:
        times = [f"{row[kind]['p50_ms']:.2f}/{row[kind]['p99_ms']:.2f}" for kind in kinds]
        rows.append([f"{row['payload_bytes']:,}", f"{row['record_bytes']:,}", *times])
    head = f"bench records: p50/p99 in ms of {report['repetitions']:,} each, one thread"
    return "\n".join([head, "", *align(rows)])


def _times(actions: dict[str, Callable[[], object]], repetitions: int) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repetitions):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - started)
    return {
        name: {
            "p50_ms": round(sorted(values)[len(values) // 2] * 1e3, 3),
            "p99_ms": round(sorted(values)[int(len(values) * 0.99)] * 1e3, 3),
        }
        for name, values in times.items()
    }
