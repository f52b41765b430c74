"""Learning: a new prefix from what is remembered, kept only where it is better."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from antefix import Example, FrozenBase, Prefix, TrainedUser, score, train
from antefix._examples import encode
from antefix.errors import CheckpointMismatch
from antefix_client._budget import Budget, within
from antefix_client._checkpoint import Plan, SealedCheckpoint
from antefix_client._history import Version, now
from antefix_client._profile import Profile
from antefix_client._report import LearnReport
from antefix_client._rule import MAX_PROMPT_TOKENS, judging_share, rule_for
from antefix_client._wielder import Wielder
from antefix_client.errors import TooFewTexts

LEAST_TEXTS = 4
_USER = "me"
Progress = bool | Callable[[int, int], None]


class _OutOfTime(Exception):
    """The budget's seconds are over."""


@dataclass(frozen=True)
class _Split:
    """Texts by what they are for; no text is in both, now or in any later run."""

    training: list[Example]
    judging: list[Example]


def learn(profile: Profile, wielder: Wielder, budget: Budget, progress: Progress) -> LearnReport:
    """Train, judge, and keep what is better; see `PersonalModel.learn`."""
    split, base = split_texts(profile), wielder.base
    begun = time.monotonic()
    in_use = wielder.prefix_or_none()
    start = wielder.shared or in_use
    before = score(base, split.judging, in_use, max_prompt_tokens=MAX_PROMPT_TOKENS)
    checkpoint = SealedCheckpoint(profile)
    plan = checkpoint.go_on(_plan(profile, base, split, start, budget))
    resumed = checkpoint.begun
    try:
        result = _trained(base, split, plan, start, checkpoint, _watched(progress, budget, begun))
    except _OutOfTime:
        return _report(profile, split, plan, before, None, begun, resumed)
    if result.loss_after < before and not result.diverged:
        wielder.keep(profile, result.prefix, _version(split, plan, result, before))
        kept = True
    else:
        kept = False
    checkpoint.clear()
    return _report(profile, split, plan, before, result, begun, resumed, kept)


def split_texts(profile: Profile) -> _Split:
    """Which texts train and which judge: a keyed digest of each text says, so that it stays so.

    Raises:
        TooFewTexts: fewer than four.
    """
    texts = list(profile.texts.values())
    if len(texts) < LEAST_TEXTS:
        raise TooFewTexts(
            f"{len(texts)} texts are remembered, {LEAST_TEXTS} are needed to learn from", "remember more"
        )
    share = judging_share(len(texts))
    place = {text: int.from_bytes(profile.digest(text)[:8], "big") / 2**64 for text in texts}
    judging = [text for text in texts if place[text] < share] or [min(texts, key=place.__getitem__)]
    if len(judging) > len(texts) // 2:  # few texts may fall all on one side
        judging = sorted(judging, key=place.__getitem__)[: len(texts) // 2]
    chosen = set(judging)
    return _Split([text for text in texts if text not in chosen], judging)


def _plan(profile: Profile, base: FrozenBase, split: _Split, start: Prefix | None, budget: Budget) -> Plan:
    tokens = sum(encode(base, text, MAX_PROMPT_TOKENS).tokens for text in split.training)
    spec, plan = rule_for(len(split.training), warm=start is not None)
    if start is not None:
        spec = spec.model_copy(update={"length": start.length})
    digest = hashlib.sha256(base.fingerprint.encode())
    for text in (*split.training, None, *split.judging):
        digest.update(bytes(16) if text is None else profile.digest(text))
    if start is not None:
        digest.update(start.to_bytes())
    fitted = within(budget, base, plan, texts=len(split.training), tokens=tokens)
    shortened = fitted.max_steps is not None and fitted.max_steps < plan.steps_for(len(split.training))
    return Plan(task=digest.hexdigest(), spec=spec, plan=fitted, shortened=shortened)


def _trained(
    base: FrozenBase,
    split: _Split,
    plan: Plan,
    start: Prefix | None,
    checkpoint: SealedCheckpoint,
    progress: Progress,
) -> TrainedUser:
    def once() -> TrainedUser:
        return train(
            base,
            {_USER: split.training},
            plan.spec,
            plan.plan,
            start=start,
            validation={_USER: split.judging},
            checkpoint=checkpoint,
            progress=progress,
        )[_USER]

    try:
        return once()
    except CheckpointMismatch:  # by another version of this package, say
        checkpoint.clear()
        checkpoint.go_on(plan)
        return once()


def _watched(progress: Progress, budget: Budget, begun: float) -> Progress:
    """Progress that ends the run when its time is over."""
    if budget.seconds is None:
        return progress
    seconds = budget.seconds

    def tell(done: int, steps: int) -> None:
        if callable(progress):
            progress(done, steps)
        if time.monotonic() - begun > seconds and done < steps:
            raise _OutOfTime

    return tell


def _version(split: _Split, plan: Plan, result: TrainedUser, before: float) -> Version:
    """All but what sealing fills in."""
    return Version(
        number=0,
        made=now(),
        how="learned",
        texts=len(split.training),
        loss_before=before,
        loss_after=result.loss_after,
        length=plan.spec.length,
        steps=result.steps,
        base="",
        digest="",
    )


def _report(
    profile: Profile,
    split: _Split,
    plan: Plan,
    before: float,
    result: TrainedUser | None,
    begun: float,
    resumed: bool,
    kept: bool = False,
) -> LearnReport:
    newest = profile.history.newest
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
        shortened=plan.shortened,
    )
