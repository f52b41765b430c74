"""How much to train on how much text: the rule that `learn` follows.

The figures come from a study on real authors (`docs/measurements/quality.md`, "How long, how often").
"""

from __future__ import annotations

from antefix import PrefixSpec, TrainingPlan

MIN_TEXTS = 4
MAX_PROMPT_TOKENS = 256
PREFIX_LENGTH = 16

_SHARES = ((32, 0.25), (128, 0.15))  # up to so many texts ever remembered, that share of them judges
_LEAST_SHARE = 0.1
_MANY = 128
BATCH, _LOOKS = 4, 4  # texts per step; the best of four looks is kept, so that too many passes do no harm


def validation_share(given: int) -> float:
    """Share of the texts that judge; it never grows, so that a text that trained never judges later.

    Args:
        given: texts that were ever remembered. Of those that are left the share would grow when some are
            removed, and what has trained a shared prefix in a round would judge it.
    """
    return next((share for most, share in _SHARES if given <= most), _LEAST_SHARE)


def default_plan(texts: int, *, warm: bool) -> tuple[PrefixSpec, TrainingPlan]:
    """Shape and plan for a user's texts.

    Args:
        texts: how many train.
        warm: it starts from a prefix, which was trained before.
    """
    passes = 3.0 if warm or texts > _MANY else 6.0
    plan = TrainingPlan(
        passes=passes,
        batch_size=BATCH,
        learning_rate=5e-3 if warm else 2e-2,
        batching="per-user",
        max_prompt_tokens=MAX_PROMPT_TOKENS,
        evaluate_every=max(1, round(passes * texts / BATCH / _LOOKS)),
    )
    return PrefixSpec(length=PREFIX_LENGTH), plan
