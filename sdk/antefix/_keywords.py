"""Refuses keywords that a function does not have.

A keyword that is silently ignored looks like a feature: PEFT once accepted `adapter_names` for prefix
tuning and gave every row the same user's prefix.
"""

from __future__ import annotations

from collections.abc import Mapping

from antefix.errors import InvalidArgument


def refuse_unknown(function: str, unknown: Mapping[str, object]) -> None:
    """Raise `InvalidArgument` if `unknown` has any keyword."""
    for word in unknown:
        raise InvalidArgument(f"{function}() has no keyword {word!r}", f"see help(antefix.{function})")
