"""What came of one `learn`."""

from __future__ import annotations

from dataclasses import dataclass

_SHOWN = 8  # numbers of texts in a sentence


@dataclass(frozen=True)
class LearnReport:
    """Numbers, and a sentence: `str(report)`. No text of the user is in it.

    Attributes:
        finished: it ran to its end; else its time was over, and the next `learn` goes on from there.
        kept: the new version is in use.
        version: number of the version in use now; None where there is none.
        texts: it was trained on so many.
        judged_on: texts that judged it, none of which was trained on.
        loss_before: nats per token on those with what was in use before.
        loss_after: the same with what was trained.
        length: positions of the new prefix.
        steps: optimizer steps.
        tokens: real tokens computed in them.
        seconds: training and judging, loading the base not.
        resumed: it went on from an interrupted run.
        shortened: the budget allowed fewer steps than the rule would take.
        fresh: texts had been removed: it began without what was learned before, which is gone now.
        skipped: numbers of texts, as `texts()` has them, that are too long for the base or empty to it.
    """

    finished: bool
    kept: bool
    version: int | None
    texts: int
    judged_on: int
    loss_before: float
    loss_after: float
    length: int
    steps: int
    tokens: int
    seconds: float
    resumed: bool
    shortened: bool
    fresh: bool = False
    skipped: tuple[int, ...] = ()

    def __str__(self) -> str:
        """One sentence for a person."""
        if not self.finished:
            return f"Out of time after {self.seconds:.0f} s: learn again to go on from there."
        judged = f"{self.loss_before:.2f} → {self.loss_after:.2f} nats per token"
        where = f"on {self.judged_on} texts that were kept aside"
        more = _left_out(self.skipped)
        if self.fresh:
            more = f" It began afresh, texts having been removed: older versions are gone.{more}"
        if self.kept:
            what = f"Version {self.version}, learned from {self.texts} texts in {self.seconds:.0f} s"
            return f"{what}: {judged} {where}.{more}"
        stays = "nothing changes" if self.version is None else f"version {self.version} stays in use"
        if self.fresh:
            stays = "no version is in use"
        return f"No gain from {self.texts} texts ({judged} {where}): {stays}.{more}"


def _left_out(skipped: tuple[int, ...]) -> str:
    if not skipped:
        return ""
    numbers = ", ".join(map(str, skipped[:_SHOWN])) + (" …" if len(skipped) > _SHOWN else "")
    if len(skipped) == 1:
        return f" Text {numbers} does not fit the base and was left out."
    return f" {len(skipped):,} texts do not fit the base and were left out: {numbers}."
