"""The first shared prefix of a base, before anybody has trained one."""

from __future__ import annotations

from antefix.model.frozen_base import FrozenBase
from antefix.prefix.prefix import Prefix
from antefix.training.config import PrefixSpec
from antefix.training.initialization import Beginner, start_values
from antefix.training.train import SHARED_WORDS

_NEAR = 1e-3  # of its length: another processor computes the same words a little differently


def neutral_prefix(base: FrozenBase, length: int) -> Prefix:
    """What the base computes on neutral words, [length] positions: nobody's text is in it.

    Raises:
        InvalidArgument: a length that cannot be.
    """
    spec = PrefixSpec(length=length, start="words", words=SHARED_WORDS)
    values = start_values(base, spec, [Beginner([], None, 0)])[0]
    return Prefix(values, base.layout, base.fingerprint)


def is_neutral(base: FrozenBase, prefix: Prefix) -> bool:
    """Whether it is what `neutral_prefix` makes, on whichever machine: nobody has trained it yet."""
    made = neutral_prefix(base, prefix.length).values
    if prefix.values.shape != made.shape:
        return False
    return bool((prefix.values - made).norm() <= _NEAR * made.norm())
