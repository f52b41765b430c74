"""Kills a writing vault again and again, and compares what is left with what it had acknowledged.

python -m tests.server.kill_loop FOLDER KILLS SEED [POSTGRES_URL]

In a process of its own: a child of one with threads inherits what these had locked, and waits for ever.
"""

import json
import os
import random
import select
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

from antefix.errors import AntefixError
from antefix.records import digest_of
from antefix_server.errors import RecordAbsent, UnknownUser
from antefix_server.vault import Vault
from tests.support.vaults import Person, new_vault

PEOPLE = 40
STUCK_S = 120


@dataclass
class Tally:
    """What was found after each kill."""

    kills: int = 0
    acknowledged: dict[str, int] = field(
        default_factory=lambda: {"add": 0, "replace": 0, "rotate": 0, "remove": 0}
    )
    lost: int = 0
    torn: int = 0
    back: int = 0
    undecided: int = 0
    """Calls that were under way at a kill; old or new, either is right."""


@dataclass
class Model:
    """What must be there: the newest acknowledged record of each person, and who is gone."""

    people: dict[bytes, Person] = field(default_factory=dict)
    gone: list[bytes] = field(default_factory=list)


def work(folder: Path, model: Model, seed: int, pipe: int) -> None:
    """Write without end, in the child; tell before and after each call."""
    dice = random.Random(seed)
    people = dict(model.people)
    with Vault.open(folder) as vault:
        while True:
            kind = dice.choice(("add", "replace", "replace", "rotate", "remove"))
            if len(people) < 10 or (kind == "add" and len(people) >= PEOPLE):
                kind = "add" if len(people) < 10 else "remove"
            if kind == "add":
                user = vault.enrol()
                person = Person.with_id(vault.tenant, user, f"user {dice.randrange(5)}")
            else:
                person = people[dice.choice(list(people))]
            step(vault, kind, person, dice, pipe)
            if kind == "remove":
                del people[person.user]
            else:
                people[person.user] = person


def step(vault: Vault, kind: str, person: Person, dice: random.Random, pipe: int) -> None:
    """One call, told before and after."""
    if kind == "remove":
        record = b""
    elif kind == "rotate":
        record = person.rotated()
    else:
        record = person.next(dice.randbytes(dice.choice((100, 3000, 20_000))))
    tell(pipe, f"? {kind} {person.user.hex()} {person.owner.name[5:]} {record.hex()}")
    if kind == "remove":
        vault.remove(person.user)
    else:
        vault.put(record, replaces=person.version)
        person.record, person.version = record, int.from_bytes(record[58:66], "big")
    tell(pipe, "!")


def tell(pipe: int, line: str) -> None:
    content = line.encode() + b"\n"
    while content:
        content = content[os.write(pipe, content) :]


def kill_once(folder: Path, model: Model, seed: int, calls: int, alive_s: float) -> list[str]:
    """Let a child write, kill it a moment after so many calls; the whole lines it told."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(here)
            work(folder, model, seed, there)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(3)
    os.close(there)
    told, dies_at, stuck_at = bytearray(), float("inf"), time.monotonic() + STUCK_S
    while True:
        wait = min(1.0, max(0.0, dies_at - time.monotonic()))
        if select.select([here], [], [], wait)[0]:
            content = os.read(here, 2**16)
            if not content:
                break
            told += content
            if told.count(b"!\n") >= calls:
                dies_at = min(dies_at, time.monotonic() + alive_s)
        if time.monotonic() >= min(dies_at, stuck_at):
            os.kill(child, signal.SIGKILL)
    os.close(here)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child died by itself"
    assert dies_at < stuck_at, f"the child was stuck after {told.count(b'!')} calls"
    return told.decode().split("\n")[:-1]


def compare(vault: Vault, model: Model, lines: list[str], tally: Tally) -> None:
    """Follow what was acknowledged, settle the one call that was not, and look at everybody."""
    pending: list[str] | None = None
    for line in lines:
        if line != "!":
            pending = line.split(" ")[1:]
        elif pending is not None:
            follow(vault, model, pending)
            tally.acknowledged[pending[0]] += 1
            pending = None
    if pending is not None:
        tally.undecided += 1
        settle(vault, model, pending)
    for person in model.people.values():
        try:
            stored = person.stored(vault)
        except (UnknownUser, RecordAbsent):
            tally.lost += 1
            continue
        except AntefixError:
            tally.torn += 1
            continue
        tally.lost += stored != person.record
    for user in model.gone:
        try:
            vault.get(user, bytes(16))
        except UnknownUser:
            continue
        except RecordAbsent:
            pass
        tally.back += 1
    tally.back += vault.shelf.count() - len(model.people)


def follow(vault: Vault, model: Model, call: list[str]) -> None:
    kind, user, name, record = call[0], bytes.fromhex(call[1]), call[2], bytes.fromhex(call[3])
    if kind == "remove":
        del model.people[user]
        model.gone.append(user)
        return
    person = model.people.setdefault(user, Person.with_id(vault.tenant, user, f"user {name}"))
    person.record, person.version = record, int.from_bytes(record[58:66], "big")
    epoch = int.from_bytes(record[166:170], "big")
    if epoch != person.owner.key.epoch:
        person.owner.key = person.key_of(epoch)


def settle(vault: Vault, model: Model, call: list[str]) -> None:
    """The call that was under way: it happened if its result is there, else what was before must be."""
    user, record = bytes.fromhex(call[1]), bytes.fromhex(call[3])
    person = model.people.get(user) or Person.with_id(vault.tenant, user, f"user {call[2]}")
    try:
        stored = person.stored(vault)
    except UnknownUser:
        stored = None
    except RecordAbsent:
        return
    if (call[0] == "remove" and stored is None) or (record and stored == record):
        follow(vault, model, call)


def run(folder: Path, kills: int, url: str | None, seed: int) -> Tally:
    """Kill, look, go on with the same vault."""
    new_vault(folder / "vault", url, folder / "mirror.db").close()
    dice, tally, model = random.Random(seed), Tally(), Model()
    for number in range(kills):
        lines = kill_once(
            folder / "vault", model, seed * 1_000_003 + number, dice.randrange(8), dice.uniform(0.0, 0.01)
        )
        with Vault.open(folder / "vault") as vault:
            compare(vault, model, lines, tally)
            removed = [slot for slots in vault._log.slots() for slot in slots]
            assert vault._keys.still_set(removed) == []
        tally.kills += 1
        if tally.kills % 100 == 0:
            print(tally, file=sys.stderr, flush=True)
        model.gone = model.gone[-2000:]
    for person in model.people.values():
        assert digest_of(person.record)
    return tally


if __name__ == "__main__":
    begun = time.perf_counter()
    folder, kills, seed, *url = sys.argv[1:]
    print(json.dumps(asdict(run(Path(folder), int(kills), url[0] if url else None, int(seed)))))
    print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr)
