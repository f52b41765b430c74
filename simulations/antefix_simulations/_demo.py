"""`antefix-sim demo`: private prefixes for a few writers, and what each is worth to whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from antefix import (
    Example,
    FrozenBase,
    GenerationRequest,
    Prefix,
    PrefixSpec,
    TrainedUser,
    TrainingPlan,
    generate,
    train,
    train_shared,
)
from antefix._examples import check_rows_fit, encode_user, prompt_tokens
from antefix._spec import Settings
from antefix_simulations._data import DataRefused, cut_prompts
from antefix_simulations._losses import Losses, measure
from antefix_simulations._terminal import printable

LEARNING_RATE = 1e-2
_FEWEST_TEXTS = 8  # two of them are held out


class Demo(Settings):
    """What the demo does; defaults are those of `antefix-sim demo`.

    Attributes:
        length: positions of each prefix.
        users: the first so many of the data.
        texts: of each user at most, the last ones.
        seed: of the order of texts.
        steps: optimizer steps of every prefix at most; None for passes over the texts.
        max_prompt_tokens: cut prompts to their first tokens.
        new_tokens: of an answer at most.
    """

    length: int = Field(default=8, ge=2)
    users: int = Field(default=8, ge=2)
    texts: int = Field(default=40, ge=_FEWEST_TEXTS)
    seed: int = Field(default=0, ge=0)
    steps: int | None = Field(default=None, ge=1)
    max_prompt_tokens: int = Field(default=64, ge=1)
    new_tokens: int = Field(default=40, ge=1)


@dataclass(frozen=True)
class Writer:
    """One user's texts: the last quarter is held out, and no prefix is ever trained on it."""

    training: list[Example]
    held_out: list[Example]
    in_shared: bool


@dataclass(frozen=True)
class Answers:
    """One prompt, answered in one batch: by the base, under the shared prefix and under private ones."""

    prompt: str
    none: str
    shared: str
    private: dict[str, str]


@dataclass(frozen=True)
class DemoResult:
    """All that the demo found. Private, as the texts are.

    Attributes:
        base: its name.
        fingerprint: the base's.
        settings: as asked.
        writers: texts by user.
        shared: the shared prefix, and how it was trained.
        private: the private prefixes.
        losses: the table.
        answers: two users beside each other.
        seconds: the whole took.
    """

    base: str
    fingerprint: str
    settings: Demo
    writers: dict[str, Writer]
    shared: TrainedUser
    private: dict[str, TrainedUser]
    losses: Losses
    answers: Answers
    seconds: float


def choose_writers(
    users: Mapping[str, list[Example]], settings: Demo, source: str | Path
) -> dict[str, Writer]:
    """The writers of the demo, their texts split; the first half of them will train the shared prefix.

    Raises:
        DataRefused: fewer than two users, or one with too few texts.
    """
    names = list(users)[: settings.users]
    if len(names) < 2:
        raise DataRefused(
            f"{source} has one user, and the demo compares at least 2", "give texts of more users"
        )
    for user in names:
        if len(users[user]) < _FEWEST_TEXTS:
            raise DataRefused(
                f"user {printable(user, 40)!r} in {source} has {len(users[user])} texts, "
                f"and the demo needs {_FEWEST_TEXTS} of each",
                f"add texts, leave the user out, or use --users to take fewer than {len(names)}",
            )
    writers = {}
    for number, user in enumerate(names):
        texts = users[user][-settings.texts :]
        first_held = len(texts) - len(texts) // 4
        writers[user] = Writer(texts[:first_held], texts[first_held:], number < len(names) // 2)
    return writers


def run_demo(
    base: FrozenBase,
    writers: Mapping[str, Writer],
    settings: Demo | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: bool = True,
) -> DemoResult:
    """Train a shared prefix on half of the writers, from it one for each of all, and compare.

    Args:
        base: the frozen base.
        writers: from `choose_writers`.
        settings: sizes.
        say: takes a line about what comes next.
        progress: show bars on stderr.

    Raises:
        EmptyText, TextTooLong.
    """
    settings, started = settings or Demo(), time.monotonic()
    cut = {user: _cut(base, writer, settings) for user, writer in writers.items()}
    _check(base, cut, settings)
    half = {user: writer.training for user, writer in cut.items() if writer.in_shared}
    spec = PrefixSpec(length=settings.length)
    say(f"training a shared prefix on texts of {len(half)} of the {len(cut)} users")
    shared = train_shared(base, half, spec, _plan(settings, passes=2, batch_size=12), progress=progress)
    say(f"training {len(cut)} private prefixes together, each from the shared one")
    training = {user: writer.training for user, writer in cut.items()}
    plan = _plan(settings, passes=2.5, batch_size=4)
    private = train(base, training, spec, plan, start=shared.prefix, progress=progress)
    say(f"reading the held-out texts of each user under all {len(cut)} prefixes, the shared one and none")
    prefixes = {user: trained.prefix for user, trained in private.items()}
    losses = measure(base, {u: w.held_out for u, w in cut.items()}, shared.prefix, prefixes, progress)
    say("answering one prompt under several prefixes in one batch")
    answers = _answers(base, cut, losses, shared.prefix, prefixes, settings)
    return DemoResult(
        base=base.name,
        fingerprint=base.fingerprint,
        settings=settings,
        writers=cut,
        shared=shared,
        private=private,
        losses=losses,
        answers=answers,
        seconds=time.monotonic() - started,
    )


def _cut(base: FrozenBase, writer: Writer, settings: Demo) -> Writer:
    def cut(texts: list[Example]) -> list[Example]:
        return cut_prompts(texts, base.tokenizer, settings.max_prompt_tokens)

    return Writer(cut(writer.training), cut(writer.held_out), writer.in_shared)


def _check(base: FrozenBase, writers: Mapping[str, Writer], settings: Demo) -> None:
    """Refuse texts that do not fit, and prompts with their answer: better now than after training."""
    for user, writer in writers.items():
        for texts in (writer.training, writer.held_out):
            encode_user(base, user, texts, length=settings.length, max_prompt_tokens=None)
        for example in writer.held_out:
            read, new = len(prompt_tokens(base, example.prompt)), settings.new_tokens
            tokens = max(read, new) if base.is_encoder_decoder else read + new
            check_rows_fit(base, tokens, settings.length, f"a prompt of user {user!r} with its answer")


def _plan(settings: Demo, passes: float, batch_size: int) -> TrainingPlan:
    """No text is spared for validation: there are few, and the held-out ones judge."""
    return TrainingPlan(
        passes=passes,
        max_steps=settings.steps,
        batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        validation_fraction=0,
        evaluate=False,
        seed=settings.seed,
    )


def _answers(
    base: FrozenBase,
    writers: Mapping[str, Writer],
    losses: Losses,
    shared: Prefix,
    private: Mapping[str, Prefix],
    settings: Demo,
) -> Answers:
    pair = losses.most_unlike()
    prompt = _unseen_prompt([writers[user] for user in pair])
    readers = [None, shared, *(private[user] for user in pair)]
    requests = [
        GenerationRequest(prompt=prompt, prefix=prefix, max_new_tokens=settings.new_tokens)
        for prefix in readers
    ]
    none, general, *personal = [answer.text for answer in generate(base, requests)]
    return Answers(prompt, none, general, dict(zip(pair, personal, strict=True)))


def _unseen_prompt(pair: Sequence[Writer]) -> str:
    """A held-out prompt of either that neither was trained on, where there is one."""
    held_out = [example.prompt for writer in pair for example in writer.held_out]
    trained = {example.prompt for writer in pair for example in writer.training}
    return next((prompt for prompt in held_out if prompt not in trained), held_out[0])
