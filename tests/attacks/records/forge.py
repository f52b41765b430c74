"""Tries to open forged records in large numbers: `python -m tests.attacks.records.forge --mutants 10000000`.

Each attack prints how many were tried, refused by their public fields, refused by cryptography, and opened;
and beside it, the control: how often the untouched record opened in between.
"""

import argparse
import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from antefix.errors import RecordMismatch, RecordRefused
from antefix.keys import DeviceKeys
from antefix.records.header import BODY_OFFSET, HEADER_BYTES, signed
from tests.support.records import Owner, some_bytes

ANN = Owner.named("ann")
SMALL = ANN.seal(some_bytes("payload", 2000))
LARGE = ANN.seal(some_bytes("payload", 50_000))
CONTROL_EVERY = 10_000


def signed_again(record: bytes, device: DeviceKeys = ANN.device) -> bytes:
    """What an attacker makes who stole a device's signing key, but not the user key."""
    header, body = record[:HEADER_BYTES], record[BODY_OFFSET:]
    return header + device.sign(signed(header, hashlib.sha256(body).digest())) + body


def mutants(count: int, seed: int, record: bytes = SMALL) -> Iterator[bytes]:
    """Random damage; every second one is signed again, so that the layers behind are reached."""
    dice = random.Random(seed)
    for number in range(count):
        changed = bytearray(record)
        for _ in range(dice.choice((1, 1, 2, 5))):
            kind, at = dice.randrange(4), dice.randrange(len(changed))
            if kind == 0:
                changed[at] ^= 1 << dice.randrange(8)
            elif kind == 1:
                changed[at : at + 8] = dice.randbytes(8)
            elif kind == 2:
                del changed[at : at + dice.randrange(1, 64)]
            else:
                changed[at:at] = dice.randbytes(dice.randrange(1, 64))
        if len(changed) >= BODY_OFFSET and dice.randrange(2):  # let the body's length agree again
            changed[162:166] = (len(changed) - BODY_OFFSET).to_bytes(4, "big")
        again = number % 2 and len(changed) > BODY_OFFSET
        forged = signed_again(bytes(changed)) if again else bytes(changed)
        if forged != record:  # a new signature may mend a damaged one
            yield forged


def flips(part: int, parts: int) -> Iterator[bytes]:
    """Every bit of every `parts`-th byte of a record of 50 kB."""
    for at in range(part, len(LARGE), parts):
        for bit in range(8):
            changed = bytearray(LARGE)
            changed[at] ^= 1 << bit
            yield bytes(changed)


def cuts(part: int, parts: int) -> Iterator[bytes]:
    """Every shorter length of it."""
    return (LARGE[:size] for size in range(part, len(LARGE), parts))


def swaps(users: int, part: int, parts: int) -> Iterator[tuple[Owner, bytes]]:
    """Every user's record in every other user's place."""
    owners = [Owner.named(f"user {number}") for number in range(users)]
    records = [owner.seal(some_bytes(owner.name, 100)) for owner in owners]
    for at, owner in enumerate(owners):
        if at % parts == part:
            yield from ((owner, record) for number, record in enumerate(records) if number != at)


def attack(tries: Iterable[tuple[Owner, bytes]]) -> Counter[str]:
    """What became of each; any other exception ends it."""
    came: Counter[str] = Counter()
    for owner, forged in tries:
        if came["tried"] % CONTROL_EVERY == 0:
            ANN.open(SMALL).wipe()
            came["control opened"] += 1
        came["tried"] += 1
        try:
            owner.open(forged).wipe()
            came["OPENED"] += 1
        except RecordMismatch:
            came["public field differs"] += 1
        except RecordRefused:
            came["refused"] += 1
    return came


def against_ann(forged: Iterable[bytes]) -> Iterator[tuple[Owner, bytes]]:
    """Opened as Ann would."""
    return ((ANN, record) for record in forged)


def run_mutants(count: int, seed: int) -> Counter[str]:
    """In a process of its own."""
    return attack(against_ann(mutants(count, seed)))


def run_flips(part: int, parts: int) -> Counter[str]:
    """In a process of its own."""
    return attack(against_ann(flips(part, parts)))


def run_cuts(part: int, parts: int) -> Counter[str]:
    """In a process of its own."""
    return attack(against_ann(cuts(part, parts)))


def run_swaps(users: int, part: int, parts: int) -> Counter[str]:
    """In a process of its own."""
    return attack(swaps(users, part, parts))


def main() -> None:
    """Run all attacks, spread over the cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    jobs = os.cpu_count() or 1
    each = -(-asked.mutants // jobs)
    attacks: dict[str, tuple[Callable[..., Counter[str]], list[tuple[int, ...]]]] = {
        "every bit of 50 kB": (run_flips, [(n, jobs) for n in range(jobs)]),
        "every cut of 50 kB": (run_cuts, [(n, jobs) for n in range(jobs)]),
        "random mutants": (run_mutants, [(each, asked.seed * 1000 + n) for n in range(jobs)]),
        "other places": (run_swaps, [(asked.users, n, jobs) for n in range(jobs)]),
    }
    with ProcessPoolExecutor(jobs) as pool:
        for name, (function, work) in attacks.items():
            started = time.perf_counter()
            came: Counter[str] = sum(pool.map(function, *zip(*work, strict=True)), Counter())
            shown = ", ".join(f"{what} {count:,}" for what, count in came.items())
            print(f"{name}: {shown}, OPENED {came['OPENED']}; {time.perf_counter() - started:,.0f} s")


if __name__ == "__main__":
    main()
