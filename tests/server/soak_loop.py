"""Users come, grant, ask, revoke and leave for a long time; what they got is compared with the reference.

python -m tests.server.soak_loop BASE SECONDS [SAMPLES]
"""

import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import openai
import torch

from antefix import FrozenBase, GenerationRequest, Prefix, generate
from antefix_server.admin import admin_socket
from tests.support.server.hosted_device import Device
from tests.support.server.processes import command, part, up

ROWS = 4
SHARE = 0.8
CALLERS = 6
TEXT = "the roof of a house has an ornament and every tile is red or grey in the morning sun"
WORDS = TEXT.split(" ")


@dataclass(frozen=True)
class Sample:
    """One answer, and what the reference needs for it."""

    prompt: str
    tokens: int
    prefix: Prefix
    text: str
    logprobs: list[float]


@dataclass
class Tally:
    """What happened.

    Attributes:
        counts: of what users did.
        errors: that nobody expected.
        samples: to compare.
        memory: of the server's process, in MB, in the order of time.
        pace_s: between two requests of a caller, so that the server is busy for the share that is wanted.
    """

    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    pace_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    @property
    def growth(self) -> float:
        """Of memory, from the second quarter of the time to the last."""
        quarter = len(self.memory) // 4
        early, late = self.memory[quarter : 2 * quarter], self.memory[3 * quarter :]
        return statistics.median(late) / statistics.median(early)


class Soak:
    """One server and its callers."""

    def __init__(self, base: FrozenBase, data: Path, url: str, pid: int, samples: int) -> None:
        self.base, self.data, self.url, self.tally = base, data, url, Tally()
        self._pid, self._samples, self._until = pid, samples, 0.0

    def run(self, seconds: float) -> None:
        """Measure how much there is to have, then take a share of it."""
        self._until = time.monotonic() + min(10.0, seconds / 4)
        self._together()
        first = self.tally
        self.tally = Tally(errors=first.errors)
        # Alone each caller would wait for its answer and nothing else; so many seconds lie between answers.
        each = min(10.0, seconds / 4) * CALLERS / max(1, first.counts["answers"])
        self.tally.pace_s = each / SHARE
        self._until = time.monotonic() + seconds
        self._together()

    def _together(self) -> None:
        with ThreadPoolExecutor(CALLERS + 1) as threads:
            working = [threads.submit(self._live, number) for number in range(CALLERS)]
            threads.submit(self._watch)
            for one in working:
                one.result()

    def _watch(self) -> None:
        while time.monotonic() < self._until:
            status = Path(f"/proc/{self._pid}/status").read_text()
            self.tally.memory.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
            time.sleep(1)

    def _live(self, number: int) -> None:
        """Users one after another, until the time is over."""
        dice, at = random.Random(number), 0
        while time.monotonic() < self._until:
            at += 1
            name = f"user {number} {at} {self._until}"
            try:
                self._user(name, dice)
            except Exception as error:  # whatever it is, it was not expected
                self.tally.errors.append(f"{type(error).__name__}: {error}"[:300])
                time.sleep(0.5)

    def _user(self, name: str, dice: random.Random) -> None:
        """Join, store, grant, ask; a next version, revoke, leave."""
        code = admin_socket.ask(self.data, "add_user", name=name, invited_s=600)["invitation"]
        device = Device(self.url, name, code, self._prefix(dice))
        self.tally.count("joined")
        try:
            for _ in range(dice.randint(1, 3)):
                device.prefix = self._prefix(dice)
                device.store()
                grant = device.grant()
                for _ in range(dice.randint(1, 4)):
                    self._ask(device, dice)
                if dice.random() < 0.5:
                    device.revoke(grant)
                    self._refused(device)
                if time.monotonic() > self._until:
                    break
        finally:
            admin_socket.ask(self.data, "remove", name=name)
            self.tally.count("left")
            device.close()

    def _ask(self, device: Device, dice: random.Random) -> None:
        begun = time.monotonic()
        prompt = " ".join(dice.choices(WORDS, k=dice.choice([3, 9, 30])))
        tokens = dice.randint(4, 16)
        found = device.write(prompt, tokens, logprobs=0, extra_body={"ignore_eos": True}).choices[0]
        self.tally.count("answers")
        if dice.random() < 0.5:
            with self.tally.lock:
                if len(self.tally.samples) < self._samples:
                    sample = Sample(prompt, tokens, device.prefix, found.text, found.logprobs.token_logprobs)
                    self.tally.samples.append(sample)
        time.sleep(max(0.0, self.tally.pace_s - (time.monotonic() - begun)))

    def _refused(self, device: Device) -> None:
        try:
            device.write("a", 1)
        except openai.PermissionDeniedError:
            self.tally.count("revoked")
        else:
            raise RuntimeError("an answer came under a grant that was revoked")

    def _prefix(self, dice: random.Random) -> Prefix:
        generator = torch.Generator().manual_seed(dice.getrandbits(40))
        values = torch.randn(self.base.layout.size(dice.choice([3, 8, 16])), generator=generator) * 0.5
        return Prefix(values, self.base.layout, self.base.fingerprint)

    def differing(self) -> int:
        """Samples that are not what each user gets alone, in every bit."""
        wrong = 0
        for one in self.tally.samples:
            request = GenerationRequest(
                prompt=one.prompt,
                max_new_tokens=one.tokens,
                prefix=one.prefix,
                ignore_eos=True,
                logprobs=0,
            )
            alone = generate(self.base, [request], exact=True, max_rows=ROWS)[0]
            same = alone.text == one.text and [each.logprob for each in alone.logprobs] == one.logprobs
            wrong += not same
        return wrong


def soak(folder: Path, named: str, seconds: float, samples: int) -> tuple[Soak, int]:
    """All of it; how many samples differ."""
    data = folder / "data"
    command(data, "init", data)
    lines = [f'inference = "{named}"', f"inference_rows = {ROWS}", "inference_exact = true"]
    (data / "server.toml").write_text("\n".join([*lines, "enrolments_per_minute = 100000", ""]))
    torch.set_num_threads(1)  # as the server has: sums in other pieces are other bits
    with up(data, "--no-rounds") as (url, supervisor):
        base = FrozenBase.load(named, progress=False)
        one = Soak(base, data, url, part(supervisor, "gateway.process").pid, samples)
        one.run(seconds)
    return one, one.differing()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        done, wrong = soak(Path(work), sys.argv[1], float(sys.argv[2]), int([*sys.argv, "1000"][3]))
    tally = done.tally
    print(json.dumps({**tally.counts, "samples": len(tally.samples), "differing": wrong}))
    print(json.dumps({"growth": tally.growth, "memory": tally.memory[:: max(1, len(tally.memory) // 20)]}))
    print(json.dumps(tally.errors[:20]))
