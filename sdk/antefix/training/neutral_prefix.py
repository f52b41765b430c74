"""The first shared prefix of a base, before anybody has trained one."""

from __future__ import annotations

from antefix.model.frozen_base import FrozenBase
from antefix.prefix.prefix import Prefix
from antefix.training.config import PrefixSpec
from antefix.training.initialization import InitRequest, initial_prefixes
from antefix.training.train import SHARED_WORDS

_NEAR = 1e-3  # of its length: another processor computes the same words a little differently


def neutral_prefix(base: FrozenBase, length: int) -> Prefix:
    """What the base computes on neutral words, [length] positions: nobody's text is in it.

    Raises:
        InvalidArgument: a length that cannot be.
    """
    spec = PrefixSpec(length=length, start="words", words=SHARED_WORDS)
    values = initial_prefixes(base, spec, [InitRequest([], None, 0)])[0]
    return Prefix(values, base.layout, base.fingerprint)


def is_neutral(base: FrozenBase, prefix: Prefix) -> bool:
    """Whether it is what `neutral_prefix` makes, on whichever machine: nobody has trained it yet."""
    neutral = neutral_prefix(base, prefix.length).values
    if prefix.values.shape != neutral.shape:
        return False
    return bool((prefix.values - neutral).norm() <= _NEAR * neutral.norm())
