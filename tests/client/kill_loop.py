"""Kills a process that uses a profile again and again, and looks whether what it had acknowledged is there.

python -m tests.client.kill_loop FOLDER KILLS, in the surroundings that `test_killing.tally` gives it.
"""

import os
import random
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import torch

from antefix_client import PersonalModel
from antefix_client.errors import ProfileError
from tests.client.people import KEY, opened
from tests.support import tiny_models

FILES = {"profile.json", "keys", "state", "texts", "learning", "lock", "versions"}
STUCK_S = 120


@dataclass
class Tally:
    """What was found after each kill."""

    kills: int = 0
    acknowledged: dict[str, int] = field(
        default_factory=lambda: {"remember": 0, "remove": 0, "learn": 0, "roll_back": 0, "unlock": 0}
    )
    not_opened: int = 0
    texts_lost: int = 0
    texts_back: int = 0
    versions_lost: int = 0
    left_over: int = 0


def work(folder: Path, seed: int, pipe: int) -> None:
    """Use the profile without end, in the child; tell after each call what must hold from now on."""
    dice = random.Random(seed)
    with opened(folder) as model:
        for number in range(10**6):
            kind = dice.choice(("remember", "remember", "remove", "learn", "roll_back", "unlock"))
            if kind == "remember":
                texts = [
                    f"text {seed} {number} {at} " + "x" * dice.randrange(200)
                    for at in range(dice.randrange(1, 5))
                ]
                model.remember(texts)
                tell(pipe, "remember", *texts)
            elif kind == "remove" and len(have := model.texts()) > 30:
                gone = dice.sample(sorted(have), 8)
                tell(pipe, "removing", *(have[one].completion for one in gone))
                model.remove_texts(gone)
                tell(pipe, "remove", *(have[one].completion for one in gone))
            elif kind == "learn" and len(model.texts()) >= 4:
                model.learn(progress=False)
                tell(pipe, "learn", str(max((one.number for one in model.versions()), default=0)))
            elif kind == "roll_back" and len(model.versions()) > 1:
                tell(pipe, "roll_back", str(model.roll_back().number))
            elif kind == "unlock":
                model.change_unlock(KEY)
                tell(pipe, "unlock")


def tell(pipe: int, *words: str) -> None:
    content = "\t".join(words).encode() + b"\n"
    while content:
        content = content[os.write(pipe, content) :]


def kill_once(folder: Path, seed: int, calls: int, alive_s: float) -> list[list[str]]:
    """Let a child work, kill it a moment after so many calls; the whole lines it told."""
    assert _threads() == 1, "whoever forks while a thread of its own works may wait for ever afterwards"
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(here)
            work(folder, seed, there)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(3)
    os.close(there)
    told, dies_at = bytearray(), float("inf") if calls else time.monotonic() + alive_s
    stuck_at = time.monotonic() + STUCK_S
    while True:
        wait = min(1.0, max(0.0, dies_at - time.monotonic()))
        if select.select([here], [], [], wait)[0]:
            content = os.read(here, 2**16)
            if not content:
                break
            told += content
            if told.count(b"\n") >= calls:
                dies_at = min(dies_at, time.monotonic() + alive_s)
        if time.monotonic() >= min(dies_at, stuck_at):
            os.kill(child, signal.SIGKILL)
    os.close(here)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child died by itself"
    assert dies_at < stuck_at, f"the child was stuck: {bytes(told[-200:])!r}"
    return [line.split("\t") for line in told.decode().split("\n")[:-1]]


def _threads() -> int:
    tasks = Path("/proc/self/task")  # Python knows of its own alone
    return len(list(tasks.iterdir())) if tasks.is_dir() else 1


@dataclass
class Model:
    """What must be there, what may be, and the newest version."""

    texts: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)
    newest: int = 0


def compare(folder: Path, known: Model, lines: list[list[str]], tally: Tally) -> None:
    for kind, *words in lines:
        if kind == "remember":
            known.texts.update(words)
        elif kind == "removing":
            known.unsure |= set(words)
            known.texts -= set(words)
            continue
        elif kind == "remove":
            known.unsure -= set(words)
        elif kind in ("learn", "roll_back"):
            known.newest = int(words[0])
        tally.acknowledged[kind] += 1
    try:
        model = opened(folder)
    except ProfileError:
        traceback.print_exc()
        tally.not_opened += 1
        return
    with model:
        found = {text.completion for text in model.texts().values()}
        tally.texts_lost += len(known.texts - found)
        extra = found - known.texts - known.unsure  # of the call that was under way, if at all
        tally.texts_back += max(0, len(extra) - 4)
        known.texts, known.unsure = found, set()
        numbers = [version.number for version in model.versions()]
        if known.newest and known.newest not in numbers and max(numbers, default=0) <= known.newest:
            tally.versions_lost += 1
        if numbers:
            model.generate("text", max_new_tokens=1)  # the newest opens
            known.newest = numbers[-1]
        status = model.status()
        tally.not_opened += bool(status.damaged)
        tally.left_over += len({path.name for path in folder.iterdir()} - FILES)


def run(folder: Path, kills: int, seed: int = 1) -> Tally:
    """Kill, look, go on with the same profile."""
    torch.set_num_threads(1)  # a forked child cannot use the threads of its parent
    base = tiny_models.base("llama")
    PersonalModel.create(folder / "profile", unlock=KEY, base=base).close()
    dice, tally, known = random.Random(seed), Tally(), Model()
    for number in range(kills):
        lines = kill_once(
            folder / "profile", seed * 1_000_003 + number, dice.randrange(6), dice.uniform(0.0, 0.15)
        )
        compare(folder / "profile", known, lines, tally)
        tally.kills += 1
        if tally.kills % 50 == 0:
            print(tally, file=sys.stderr, flush=True)
    return tally


if __name__ == "__main__":
    begun = time.perf_counter()
    print(run(Path(sys.argv[1]), int(sys.argv[2])))
    print(f"{time.perf_counter() - begun:.0f} s")
