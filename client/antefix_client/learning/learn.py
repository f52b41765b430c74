"""Learning: a new prefix from what is remembered, kept only where it is better."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from antefix import Example, FrozenBase, Prefix, TrainedUser, score, train
from antefix.common.progress import ProgressBar
from antefix.data.tokenization import check_rows_fit, encode
from antefix.errors import CheckpointMismatch, ExampleError
from antefix.training.shared_init import is_neutral
from antefix_client.errors import BaseChanged, TooFewTexts
from antefix_client.inference.runtime import ModelRuntime
from antefix_client.learning.budget import Budget, fit_to_budget
from antefix_client.learning.checkpoint import Plan, SealedCheckpoint
from antefix_client.learning.hyperparameters import (
    MAX_PROMPT_TOKENS,
    MIN_TEXTS,
    PREFIX_LENGTH,
    default_plan,
    validation_share,
)
from antefix_client.learning.report import LearnReport
from antefix_client.profile.profile import Profile
from antefix_client.profile.session import ProfileSession
from antefix_client.profile.version_history import Version, now

_FEW = 8
_USER = "me"
Progress = bool | Callable[[int, int], None]
_Tell = Callable[[int, int], None]


class _OutOfTime(Exception):
    """The budget's seconds are over."""


class _Overtaken(Exception):
    """Texts were removed meanwhile: what was trained knows them."""


@dataclass(frozen=True)
class _Split:
    """Texts by what they are for; no text is in both, now or in any later run."""

    training: list[Example]
    judging: list[Example]


@dataclass(frozen=True)
class _Task:
    """What one run learns from, as it was when the run began; the profile goes on changing meanwhile.

    Attributes:
        base: the base.
        split: the texts.
        digests: of each of them, keyed.
        tokens: in each of them.
        skipped: numbers of texts that the base cannot take.
        start: where training begins, if somebody has trained something.
        rival: what the new prefix must predict better than.
        fresh: what was learned so far may know removed texts: it is neither start nor rival.
        removals: count of the profile.
    """

    base: FrozenBase
    split: _Split
    digests: dict[Example, bytes] = field(repr=False)
    tokens: dict[Example, int] = field(repr=False)
    skipped: tuple[int, ...]
    fresh: bool
    start: Prefix | None
    rival: Prefix | None
    removals: int


def learn(held: ProfileSession, wielder: ModelRuntime, budget: Budget, progress: Progress) -> LearnReport:
    """Train, judge, and keep what is better; see `PersonalModel.learn`.

    The profile is not held while it trains: what is remembered meanwhile counts the next time, and what is
    removed meanwhile makes the run begin again without it.
    """
    with held.learning:
        try:
            with held.locked() as profile:
                split_texts(profile)  # too few: before a base is loaded for nothing
            _ = wielder.base
            begun = time.monotonic()
            while True:
                try:
                    return _learned(held, wielder, budget, progress, begun)
                except _Overtaken:
                    SealedCheckpoint(held).clear()
        except TooFewTexts as error:
            if not _start_over(held, wielder):
                raise
            gone = f"{error.message}; versions that may have learned from removed texts were dropped"
            raise TooFewTexts(gone, error.hint) from None


def _start_over(held: ProfileSession, wielder: ModelRuntime) -> bool:
    """Drop what may have learned from removed texts, if anything; whether there was."""
    with held.locked() as profile:
        due = profile.history.state.removed
        if due:
            profile.history.reset(None)
            wielder.release()
    return due


def _learned(
    held: ProfileSession, wielder: ModelRuntime, budget: Budget, progress: Progress, begun: float
) -> LearnReport:
    task = _task(wielder)
    before = _score(task, task.rival)
    checkpoint = SealedCheckpoint(held)
    plan = checkpoint.resume_or_start(_plan(task, budget))
    resumed = checkpoint.resumable
    with _watched(held, task, progress, budget, begun) as tell:
        try:
            result = _trained(task, plan, checkpoint, tell)
        except _OutOfTime:
            return _report(held, task, plan, before, None, begun, resumed)
    kept, before = _kept(held, wielder, task, plan, result, before)
    checkpoint.clear()
    return _report(held, task, plan, before, result, begun, resumed, kept)


def _task(wielder: ModelRuntime) -> _Task:
    with wielder.active() as (profile, base):
        numbered, removals = dict(profile.texts), profile.removals
        digests = {text: profile.digest(text) for text in numbered.values()}
        given = profile.given
        fresh = profile.history.state.removed
        shared = wielder.shared(profile, base)
        rival = shared if fresh else wielder.prefix_or_none(profile, base)
    start = shared or rival
    if start is not None and is_neutral(base, start):
        start = None  # neutral words, which no round has trained: a user's own texts are a better start
    length = max([PREFIX_LENGTH, *(prefix.length for prefix in (start, rival) if prefix is not None)])
    tokens = {number: _tokens(base, text, length) for number, text in numbered.items()}
    skipped = tuple(number for number, count in tokens.items() if count is None)
    fitting = {text: tokens[number] or 0 for number, text in numbered.items() if number not in skipped}
    return _Task(
        base=base,
        split=_split(list(fitting), digests, given, len(skipped)),
        digests=digests,
        tokens=fitting,
        skipped=skipped,
        fresh=fresh,
        start=start,
        rival=rival,
        removals=removals,
    )


def _tokens(base: FrozenBase, text: Example, length: int) -> int | None:
    """Tokens that are computed for a text; None where the base cannot take it beside a prefix."""
    try:
        row = encode(base, text, MAX_PROMPT_TOKENS)
        check_rows_fit(base, max(len(row.inputs), len(row.source)), length, "a text")
    except ExampleError:
        return None
    return row.tokens


def _kept(
    held: ProfileSession, wielder: ModelRuntime, task: _Task, plan: Plan, result: TrainedUser, before: float
) -> tuple[bool, float]:
    """Keep the new prefix if it is better than what is in use now; and the loss of that.

    In a fresh run everything before it goes, better or not.

    Raises:
        BaseChanged: the profile went over to another base meanwhile.
    """
    rival = task.rival
    while True:
        better = not result.diverged and result.loss_after < before
        if not better and not task.fresh:
            return False, before
        with wielder.active() as (profile, base):
            _require_unchanged(profile, task)
            if base is not task.base:
                raise BaseChanged("the base was changed while learning", "learn again")
            if not better:
                _start_over(held, wielder)
                return False, before
            now_in_use = rival if task.fresh else wielder.prefix_or_none(profile, base)
            if now_in_use is rival or now_in_use == rival:
                made = wielder.keep(profile, result.prefix, _version(task, plan, result, before))
                if task.fresh:
                    profile.history.reset(made)
                return True, before
        rival = now_in_use  # chosen or received meanwhile
        before = _score(task, rival)


def _require_unchanged(profile: Profile, task: _Task) -> None:
    if profile.removals != task.removals:
        raise _Overtaken


def _score(task: _Task, prefix: Prefix | None) -> float:
    return score(task.base, task.split.judging, prefix, max_prompt_tokens=MAX_PROMPT_TOKENS)


def split_texts(profile: Profile) -> _Split:
    """Which texts train and which judge: a keyed digest of each text says, so that it stays so.

    Raises:
        TooFewTexts: fewer than four.
    """
    texts = list(profile.texts.values())
    return _split(texts, {text: profile.digest(text) for text in texts}, profile.given)


def training_texts(profile: Profile, base: FrozenBase, length: int) -> list[Example]:
    """Those that train, as in `learn`: without those that judge, and without those that the base cannot take.

    Raises:
        TooFewTexts: fewer than four are left.
    """
    texts = [text for text in profile.texts.values() if _tokens(base, text, length) is not None]
    return _split(texts, {text: profile.digest(text) for text in texts}, profile.given).training


def _split(texts: list[Example], digests: dict[Example, bytes], given: int, skipped: int = 0) -> _Split:
    if len(texts) < MIN_TEXTS:
        too_long = f" ({skipped} more are too long for the base)" if skipped else ""
        raise TooFewTexts(
            f"{len(texts)} texts are remembered{too_long}, {MIN_TEXTS} are needed to learn from",
            "remember more",
        )
    share = validation_share(given)
    place = {text: int.from_bytes(digests[text][:8], "big") / 2**64 for text in texts}
    judging = [text for text in texts if place[text] < share] or [min(texts, key=place.__getitem__)]
    # Few texts may fall all on one side. Of more, one that was sent over to train would judge later.
    if len(judging) > len(texts) // 2 and (len(texts) <= _FEW or len(judging) == len(texts)):
        judging = sorted(judging, key=place.__getitem__)[: len(texts) // 2]
    chosen = set(judging)
    return _Split([text for text in texts if text not in chosen], judging)


def _plan(task: _Task, budget: Budget) -> Plan:
    base, split, start = task.base, task.split, task.start
    tokens = [task.tokens[text] for text in split.training]
    spec, plan = default_plan(len(split.training), warm=start is not None)
    if start is not None:
        spec = spec.model_copy(update={"length": start.length})
    digest = hashlib.sha256(base.fingerprint.encode())
    for text in (*split.training, None, *split.judging):
        digest.update(bytes(16) if text is None else task.digests[text])
    if start is not None:
        digest.update(start.to_bytes())
    fitted = fit_to_budget(budget, base, plan, tokens)
    shortened = fitted.max_steps is not None and fitted.max_steps < plan.steps_for(len(split.training))
    return Plan(task=digest.hexdigest(), spec=spec, plan=fitted, shortened=shortened)


def _trained(task: _Task, plan: Plan, checkpoint: SealedCheckpoint, tell: _Tell) -> TrainedUser:
    def once() -> TrainedUser:
        return train(
            task.base,
            {_USER: task.split.training},
            plan.spec,
            plan.plan,
            start=task.start,
            validation={_USER: task.split.judging},
            checkpoint=checkpoint,
            progress=tell,
        )[_USER]

    try:
        return once()
    except CheckpointMismatch:  # by another version of this package, say
        checkpoint.clear()
        checkpoint.resume_or_start(plan)
        return once()


@contextmanager
def _watched(
    held: ProfileSession, task: _Task, progress: Progress, budget: Budget, begun: float
) -> Iterator[_Tell]:
    """Progress that ends the run when its time is over, or when nobody can want its result any more."""
    bar = ProgressBar(desc="training", unit="step", disable=progress is not True)
    with bar:

        def tell(done: int, steps: int) -> None:
            bar.total = steps
            bar.update(done - bar.n)
            if callable(progress):
                progress(done, steps)
            with held.locked() as profile:  # refused once it is closed, which ends the run
                _require_unchanged(profile, task)
            if budget.seconds is not None and time.monotonic() - begun > budget.seconds and done < steps:
                raise _OutOfTime

        yield tell


def _version(task: _Task, plan: Plan, result: TrainedUser, before: float) -> Version:
    """All but what sealing fills in."""
    return Version(
        number=0,
        made=now(),
        how="learned",
        texts=len(task.split.training),
        loss_before=before,
        loss_after=result.loss_after,
        length=plan.spec.length,
        steps=result.steps,
        base="",
        digest="",
    )


def _report(
    held: ProfileSession,
    task: _Task,
    plan: Plan,
    before: float,
    result: TrainedUser | None,
    begun: float,
    resumed: bool,
    kept: bool = False,
) -> LearnReport:
    with held.locked() as profile:
        newest = profile.history.newest
    split = task.split
    return LearnReport(
        finished=result is not None,
        kept=kept,
        version=None if newest is None else newest.number,
        texts=len(split.training),
        judged_on=len(split.judging),
        loss_before=before,
        loss_after=float("nan") if result is None else result.loss_after,
        length=plan.spec.length,
        steps=0 if result is None else result.steps,
        tokens=0 if result is None else result.tokens,
        seconds=time.monotonic() - begun,
        resumed=resumed,
        fresh=task.fresh,
        skipped=task.skipped,
        shortened=plan.shortened,
    )
