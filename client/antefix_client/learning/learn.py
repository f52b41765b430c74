"""Learning: a new prefix from what is remembered, kept only where it is better.

Three phases use the profile, each under its lock once: the texts are read; what is in use is read; the result
is accepted. Training between them takes the lock for a checkpoint alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from antefix import Example, FrozenBase, Prefix, TrainedUser, score, train
from antefix.common.progress import ProgressBar
from antefix.errors import CheckpointMismatch
from antefix.training.neutral_prefix import is_neutral
from antefix_client.errors import BaseChanged, TooFewTexts
from antefix_client.inference.runtime import ModelRuntime
from antefix_client.learning.budget import Budget, fit_to_budget
from antefix_client.learning.checkpoint import Plan, SealedCheckpoint
from antefix_client.learning.hyperparameters import MAX_PROMPT_TOKENS, PREFIX_LENGTH, default_plan
from antefix_client.learning.report import LearnReport
from antefix_client.learning.text_split import Split, TextSnapshot
from antefix_client.profile.profile import Profile
from antefix_client.profile.session import ProfileSession
from antefix_client.profile.version_history import Version, utc_now

_USER = "me"
Progress = bool | Callable[[int, int], None]
_OnStep = Callable[[int, int], None]


class _OutOfTime(Exception):
    """The budget's seconds are over."""


class _TextsRemoved(Exception):
    """Texts were removed meanwhile: what was trained knows them."""


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
        baseline: what the new prefix must predict better than.
        from_scratch: what was learned so far may know removed texts: it is neither start nor baseline.
        removals: count of the profile.
    """

    base: FrozenBase
    split: Split
    digests: dict[Example, bytes] = field(repr=False)
    tokens: dict[Example, int] = field(repr=False)
    skipped: tuple[int, ...]
    from_scratch: bool
    start: Prefix | None
    baseline: Prefix | None
    removals: int


@dataclass(frozen=True)
class _Outcome:
    """How a run ended.

    Attributes:
        loss_before: of what was in use.
        version: number of the version in use now; None for none.
        result: what was trained; None where the time was over.
        kept: the result is in use.
    """

    loss_before: float
    version: int | None
    result: TrainedUser | None = None
    kept: bool = False


def learn(runtime: ModelRuntime, budget: Budget, progress: Progress) -> LearnReport:
    """Train, judge, and keep what is better; see `PersonalModel.learn`.

    The profile is not held while it trains: what is remembered meanwhile counts the next time, and what is
    removed meanwhile makes the run begin again without it.
    """
    session = runtime.session
    with session.learning_lock:
        try:
            texts = _read_texts(session)
            texts.split()  # too few: before a base is loaded for nothing
            _ = runtime.base
            began = time.monotonic()
            while True:
                try:
                    return _learn_from(texts, runtime, budget, progress, began)
                except _TextsRemoved:
                    texts = _read_texts(session)
        except TooFewTexts as error:
            with session.locked() as profile:
                if not _drop_tainted(profile, runtime):
                    raise
            dropped = f"{error.message}; versions that may have learned from removed texts were dropped"
            raise TooFewTexts(dropped, error.hint) from None


def _read_texts(session: ProfileSession) -> TextSnapshot:
    with session.locked() as profile:
        return TextSnapshot.take(profile)


def _drop_tainted(profile: Profile, runtime: ModelRuntime) -> bool:
    """Drop what may have learned from removed texts, if anything; whether there was."""
    due = profile.history.state.removed
    if due:
        profile.history.reset(None)
        runtime.drop_prefix()
    return due


def _learn_from(
    texts: TextSnapshot, runtime: ModelRuntime, budget: Budget, progress: Progress, began: float
) -> LearnReport:
    task, checkpoint = _prepare(texts, runtime)
    loss_before = _score(task, task.baseline)
    plan = checkpoint.resume_or_start(_plan(task, budget))
    resumed = checkpoint.resumable
    try:
        with _watched(runtime.session, task, progress, budget, began) as on_step:
            result = _train(task, plan, checkpoint, on_step)
        outcome = _accept_if_better(runtime, task, plan, result, loss_before)
    except _OutOfTime:
        with runtime.session.locked() as profile:
            outcome = _Outcome(loss_before, _version_in_use(profile))
    except _TextsRemoved:
        checkpoint.clear()
        raise
    return _report(task, plan, outcome, time.monotonic() - began, resumed)


def _prepare(texts: TextSnapshot, runtime: ModelRuntime) -> tuple[_Task, SealedCheckpoint]:
    """Read what is in use, and measure the texts.

    Raises:
        _TextsRemoved: since they were read.
        TooFewTexts: too few fit the base.
    """
    with runtime.active() as (profile, base):
        if profile.texts.removals != texts.removals:
            raise _TextsRemoved
        checkpoint = SealedCheckpoint(runtime.session, profile)
        from_scratch = profile.history.state.removed
        shared = runtime.shared_prefix(profile, base)
        baseline = shared if from_scratch else runtime.usable_prefix(profile, base)
    start = shared or baseline
    if start is not None and is_neutral(base, start):
        start = None  # neutral words, which no round has trained: a user's own texts are a better start
    length = max([PREFIX_LENGTH, *(prefix.length for prefix in (start, baseline) if prefix is not None)])
    tokens = texts.count_tokens(base, length)
    skipped = tuple(number for number, count in tokens.items() if count is None)
    usable = {text: tokens[number] or 0 for number, text in texts.by_number.items() if number not in skipped}
    task = _Task(
        base=base,
        split=texts.split(list(usable), len(skipped)),
        digests=texts.digests,
        tokens=usable,
        skipped=skipped,
        from_scratch=from_scratch,
        start=start,
        baseline=baseline,
        removals=texts.removals,
    )
    return task, checkpoint


def _accept_if_better(
    runtime: ModelRuntime, task: _Task, plan: Plan, result: TrainedUser, loss_before: float
) -> _Outcome:
    """Keep the new prefix if it is better than what is in use now.

    In a run from scratch everything before it goes, better or not.

    Raises:
        _TextsRemoved: while it was trained.
        BaseChanged: the profile went over to another base meanwhile.
    """
    baseline = task.baseline
    while True:
        better = not result.diverged and result.loss_after < loss_before
        with runtime.session.locked() as profile:
            if better or task.from_scratch:
                _require_unchanged(profile, task)
                if runtime.loaded_base is not task.base:
                    raise BaseChanged("the base was changed while learning", "learn again")
            in_use = baseline
            if better and not task.from_scratch:
                in_use = runtime.usable_prefix(profile, task.base)
            if in_use is baseline or in_use == baseline:
                if better:
                    version = _version(task, plan, result, loss_before)
                    sealed = runtime.add_version(profile, result.prefix, version)
                    if task.from_scratch:
                        profile.history.reset(sealed)
                elif task.from_scratch:
                    _drop_tainted(profile, runtime)
                SealedCheckpoint.delete(profile)
                return _Outcome(loss_before, _version_in_use(profile), result, kept=better)
        baseline = in_use  # chosen or received meanwhile
        loss_before = _score(task, baseline)


def _require_unchanged(profile: Profile, task: _Task) -> None:
    if profile.texts.removals != task.removals:
        raise _TextsRemoved


def _version_in_use(profile: Profile) -> int | None:
    newest = profile.history.newest
    return None if newest is None else newest.number


def _score(task: _Task, prefix: Prefix | None) -> float:
    return score(task.base, task.split.validation, prefix, max_prompt_tokens=MAX_PROMPT_TOKENS)


def _plan(task: _Task, budget: Budget) -> Plan:
    base, split, start = task.base, task.split, task.start
    tokens = [task.tokens[text] for text in split.training]
    spec, plan = default_plan(len(split.training), warm=start is not None)
    if start is not None:
        spec = spec.model_copy(update={"length": start.length})
    digest = hashlib.sha256(base.fingerprint.encode())
    for text in (*split.training, None, *split.validation):
        digest.update(bytes(16) if text is None else task.digests[text])
    if start is not None:
        digest.update(start.to_bytes())
    fitted = fit_to_budget(budget, base, plan, tokens)
    shortened = fitted.max_steps is not None and fitted.max_steps < plan.steps_for(len(split.training))
    return Plan(task=digest.hexdigest(), spec=spec, plan=fitted, shortened=shortened)


def _train(task: _Task, plan: Plan, checkpoint: SealedCheckpoint, on_step: _OnStep) -> TrainedUser:
    def run() -> TrainedUser:
        return train(
            task.base,
            {_USER: task.split.training},
            plan.spec,
            plan.plan,
            start=task.start,
            validation={_USER: task.split.validation},
            checkpoint=checkpoint,
            progress=on_step,
        )[_USER]

    try:
        return run()
    except CheckpointMismatch:  # by another version of this package, say
        checkpoint.clear()
        checkpoint.resume_or_start(plan)
        return run()


@contextmanager
def _watched(
    session: ProfileSession, task: _Task, progress: Progress, budget: Budget, began: float
) -> Iterator[_OnStep]:
    """Progress that ends the run when its time is over, or when nobody can want its result any more."""
    bar = ProgressBar(desc="training", unit="step", disable=progress is not True)
    with bar:

        def on_step(done: int, steps: int) -> None:
            bar.total = steps
            bar.update(done - bar.n)
            if callable(progress):
                progress(done, steps)
            # Without the lock: a count is read whole, and what is accepted is checked again under it.
            _require_unchanged(session.profile, task)  # refused once it is closed, which ends the run
            if budget.seconds is not None and time.monotonic() - began > budget.seconds and done < steps:
                raise _OutOfTime

        yield on_step


def _version(task: _Task, plan: Plan, result: TrainedUser, loss_before: float) -> Version:
    """All but what sealing fills in."""
    return Version(
        number=0,
        made=utc_now(),
        how="learned",
        texts=len(task.split.training),
        loss_before=loss_before,
        loss_after=result.loss_after,
        length=plan.spec.length,
        steps=result.steps,
        base="",
        digest="",
    )


def _report(task: _Task, plan: Plan, outcome: _Outcome, seconds: float, resumed: bool) -> LearnReport:
    split, result = task.split, outcome.result
    return LearnReport(
        finished=result is not None,
        kept=outcome.kept,
        version=outcome.version,
        texts=len(split.training),
        judged_on=len(split.validation),
        loss_before=outcome.loss_before,
        loss_after=float("nan") if result is None else result.loss_after,
        length=plan.spec.length,
        steps=0 if result is None else result.steps,
        tokens=0 if result is None else result.tokens,
        seconds=seconds,
        resumed=resumed,
        fresh=task.from_scratch,
        skipped=task.skipped,
        shortened=plan.shortened,
    )
