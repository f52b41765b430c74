"""`antefix-sim demo`: the whole story on a few writers, from rounds to a removal with its receipt."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from antefix import FrozenBase, GenerationRequest, Prefix, generate
from antefix.common.files import atomic_write
from antefix.common.table import align
from antefix.errors import AntefixError
from antefix.receipts import verify_receipt
from antefix_simulations.common.terminal import printable
from antefix_simulations.data.store import Population
from antefix_simulations.data.user_texts import DataRefused
from antefix_simulations.report.html import write_report
from antefix_simulations.report.summary import Summary, read_summary
from antefix_simulations.run.driver import CONFIG, LocalExecutor, Run
from antefix_simulations.run.folder import locked
from antefix_simulations.run.record_vault import RecordVault, Sealer
from antefix_simulations.settings import RunSettings

MAX_USERS = 32
RECEIPT, LOG_KEY = "receipt.txt", "log.key"
_NEXT = ".next"
SETTINGS: dict[str, Any] = {
    "num-server-rounds": 2,
    "learning-rate": 0.02,
    "clip": 100.0,  # nobody is to be protected here
    "private-learning-rate": 0.01,
    "max-texts": 40,
    "new-users": 0.5,
    "others": 0,  # the table of everybody under everybody's prefix has them
    "matrix": MAX_USERS,
    "cohort-size": MAX_USERS,
}
_NEW_TOKENS = 40


@dataclass(frozen=True)
class Answers:
    """One prompt, answered in one batch: by the base, under the shared prefix and under private ones."""

    prompt: str
    none: str
    shared: str
    private: dict[str, str]


@dataclass(frozen=True)
class Removed:
    """A user who was removed.

    Attributes:
        user: who.
        id: in the vault and the receipt.
        opened: bytes of the record, which opened before.
        left: records of others, the same bytes as before.
    """

    user: str
    id: str
    opened: int
    left: int


@dataclass(frozen=True)
class Story:
    """All that the demo found. Private, as the texts are."""

    out: Path
    summary: Summary
    answers: Answers
    removed: Removed

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            **self.summary.as_json(),
            "users": self.summary.users,
            "answers": asdict(self.answers),
            "removed": asdict(self.removed),
            "out": str(self.out),
        }

    def as_text(self) -> str:
        """For a terminal."""
        return "\n".join(
            [*_describe_losses(self.summary), "", *_describe_answers(self.answers), "", *_describe_end(self)]
        )


def run_demo(out: Path, settings: RunSettings, base: FrozenBase, say: Callable[[str], None]) -> Story:
    """Run, look, ask, remove. A demo that was cut off goes on; one that ended is replaced.

    Raises:
        DataRefused: fewer than two users.
        InvalidArgument: `out` is of another run.
    """
    # Whoever is killed while a demo is replaced leaves the beginning of the new one, texts and keys in it.
    shutil.rmtree(out / _NEXT, ignore_errors=True)
    if (out / LOG_KEY).is_file() and (out / CONFIG).is_file():
        _replace(out, settings, base, say)
    with Run(out, settings, base, say, progress=True) as running:
        _require_few(running)
        running.go(LocalExecutor(base, running.population, settings, out))
    summary = read_summary(out)
    if not all("matrix" in line for line in summary.users):
        raise DataRefused("somebody's training failed", f"see {out / 'metrics.jsonl'}, and leave them out")
    with Population(out / "population.db") as population, RecordVault(out, population.count) as vault:
        say("opening sealed prefixes, and answering one prompt under several of them in one batch")
        answers = _answer(base, population, vault, Sealer(out, base), summary, settings)
        say("removing one user from the vault")
        removed = _remove(out, population, vault)
    write_report(out)
    return Story(out, summary, answers, removed)


def _require_few(running: Run) -> None:
    if not 2 <= running.population.count <= MAX_USERS:
        users = running.population.count
        raise DataRefused(
            f"{running.settings.data} has {users} users, the demo tells of 2 to {MAX_USERS}",
            "choose some with --users",
        )


def _replace(out: Path, settings: RunSettings, base: FrozenBase, say: Callable[[str], None]) -> None:
    """Put the beginning of a new demo where one has ended, once it is clear that the new one can begin.

    Raises:
        What `Run` raises, and `_require_few`: the earlier demo is as it was then.
    """
    beginning = out / _NEXT
    try:
        with Run(beginning, settings, base, lambda line: None, progress=True) as running:
            _require_few(running)
        say(f"an earlier demo in {out} is replaced")
        with locked(out):
            _clear(out)
            # CONFIG comes last: without it the texts are read anew.
            for name in ("population.db", CONFIG):
                (beginning / name).replace(out / name)
    finally:
        shutil.rmtree(beginning, ignore_errors=True)


def _clear(out: Path) -> None:
    """What a run and a demo write, nothing else."""
    files = ("population.db", "keys", "ids", "metrics.jsonl", "times.jsonl", "report.html", RECEIPT)
    # LOG_KEY goes last: whoever is killed before it is asked to clear the rest.
    for name in ("rounds", "vault", "work"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (*files, CONFIG, LOG_KEY):
        (out / name).unlink(missing_ok=True)


def _answer(
    base: FrozenBase,
    population: Population,
    vault: RecordVault,
    sealer: Sealer,
    summary: Summary,
    settings: RunSettings,
) -> Answers:
    """The two users who lose most under each other's prefix, on a prompt that neither trained on."""
    pair = most_unlike(summary)
    shared = Prefix.load(sorted(vault.folder.parent.glob("rounds/*/shared.safetensors"))[-1])
    prompt = unseen_prompt(population, pair)
    prefixes = [None, shared]
    for user in pair:
        with sealer.open(user, vault.record(user), settings.length) as record:
            prefixes.append(record.prefix())
    requests = [
        GenerationRequest(
            prompt=prompt,
            prefix=prefix,
            max_new_tokens=_NEW_TOKENS,
            max_prompt_tokens=settings.max_prompt_tokens,
        )
        for prefix in prefixes
    ]
    none, general, *personal = [answer.text for answer in generate(base, requests)]
    names = population.names(pair)
    return Answers(prompt, none, general, dict(zip([names[user] for user in pair], personal, strict=True)))


def most_unlike(summary: Summary) -> list[int]:
    """The two users who lose most under each other's prefix, by number."""
    rows = [line["matrix"] for line in summary.users]
    pairs = [[a, b] for a in range(len(rows)) for b in range(a + 1, len(rows))]
    return max(pairs, key=lambda ab: _loss_by_swap(rows, *ab))


def _loss_by_swap(rows: list[list[float]], a: int, b: int) -> float:
    return rows[a][b] + rows[b][a] - rows[a][a] - rows[b][b]


def unseen_prompt(population: Population, pair: list[int]) -> str:
    """A held-out prompt of either that neither was trained on, where there is one."""
    splits = population.splits(pair).values()
    held_out = [text.prompt for split in splits for text in split.held_out]
    trained = {text.prompt for split in splits for text in split.training}
    return next((prompt for prompt in held_out if prompt not in trained), held_out[0])


def _remove(out: Path, population: Population, vault: RecordVault) -> Removed:
    """The last user goes, with a receipt that is checked as anybody can; the others' records stay."""
    gone = population.count - 1
    record = vault.record(gone)
    digests = {user: _digest(vault, user) for user in range(gone)}
    # The key first: by it a demo is known to be at its end. One that is killed from here on cannot go on.
    atomic_write(out / LOG_KEY, (vault.log_key.text() + "\n").encode())
    receipt = vault.remove(gone)
    atomic_write(out / RECEIPT, receipt.encode())
    verify_receipt(receipt, vault.log_key, user=vault.id(gone))
    try:
        vault.record(gone)
    except AntefixError:
        left = sum(_digest(vault, user) == digest for user, digest in digests.items())
        return Removed(population.names([gone])[gone], vault.id(gone).hex(), len(record), left)
    raise RuntimeError("a record was there after its user was removed")


def _digest(vault: RecordVault, user: int) -> bytes:
    return hashlib.sha256(vault.record(user)).digest()


def _describe_losses(summary: Summary) -> list[str]:
    rows = [["user", "texts", "no prefix", "shared", "own", "others'"]]
    others = [_mean_of_others(line, at) for at, line in enumerate(summary.users)]
    for line, other in zip(summary.users, others, strict=True):
        losses = [line["none"], line["shared"], line["private"], other]
        name = printable(str(line["user"]), 24)
        rows.append([name, str(line["texts"]), *(f"{loss:.2f}" for loss in losses)])
    means = [summary.mean(arm).mean for arm in ("none", "shared", "private")]
    rows.append(["mean", "", *(f"{mean:.2f}" for mean in [*means, sum(others) / len(others)])])
    won = sum(line["private"] < other for line, other in zip(summary.users, others, strict=True))
    return [
        "Loss in nats per token on texts that nothing was trained on, lower is better: with no prefix, the",
        "shared one of the last round, the user's own, and the other users' (mean).",
        "",
        *align(rows),
        "",
        f"Own beats shared for {round(summary.winners('private', 'shared') * len(others))} of {len(others)} "
        f"users, and the mean of the others' for {won} of {len(others)}.",
    ]


def _mean_of_others(line: dict[str, Any], at: int) -> float:
    losses = [loss for place, loss in enumerate(line["matrix"]) if place != at]
    return float(sum(losses) / len(losses))


def _describe_answers(answers: Answers) -> list[str]:
    named = {"(no prefix)": answers.none, "(shared)": answers.shared, **answers.private}
    width = max(len(printable(name, 24)) for name in named)
    return [
        "One prompt, answered in one batch, each row under its own prefix, opened with its user's key:",
        f"  {printable(answers.prompt.strip(), 100)}",
        *(f"  {printable(name, 24):<{width}}  {_line(text)}" for name, text in named.items()),
    ]


def _line(text: str) -> str:
    """An answer on one line; its line ends show."""
    return printable(" ⏎ ".join(line.strip() for line in text.strip().splitlines()), 160) or "(nothing)"


def _describe_end(story: Story) -> list[str]:
    gone, out = story.removed, story.out
    return [
        f"Removed {printable(gone.user, 24)}: the sealed record of {gone.opened:,} bytes can no longer be "
        f"read, the other {gone.left} are unchanged.",
        "The receipt was checked; anybody can, offline:",
        f"  antefix receipt verify {out / RECEIPT} --key {out / LOG_KEY} --user {gone.id}",
        "",
        f"The whole run in pictures: {out / 'report.html'}",
        f"{out} holds the writers' texts and keys: delete it when you are done.",
    ]
