"""How well a prefix predicts texts: nats per token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Never, overload

import torch

from antefix._allocator import large_blocks_kept
from antefix._base import FrozenBase
from antefix._examples import Example, Row, encode_user
from antefix._keywords import refuse_unknown
from antefix._prefix import Prefix
from antefix._queue import first_fit, shape_class
from antefix._steps import run as run_rows
from antefix.errors import InvalidArgument

_MICRO_BATCH_TOKENS = 256


@overload
def score(
    base: FrozenBase,
    examples: Sequence[Example],
    prefix: Prefix | None = None,
    *,
    max_prompt_tokens: int | None = None,
    **unknown: Never,
) -> float: ...
@overload
def score(
    base: FrozenBase,
    examples: Mapping[str, Iterable[Example]],
    prefix: Mapping[str, Prefix] | Prefix | None = None,
    *,
    max_prompt_tokens: int | None = None,
    **unknown: Never,
) -> dict[str, float]: ...
def score(
    base: FrozenBase,
    examples: Sequence[Example] | Mapping[str, Iterable[Example]],
    prefix: Prefix | Mapping[str, Prefix] | None = None,
    *,
    max_prompt_tokens: int | None = None,
    **unknown: Never,
) -> float | dict[str, float]:
    """Mean cross-entropy of the completions in nats per token, lower is better.

    Args:
        base: the frozen base.
        examples: texts of one user, or of many by name; many share micro-batches.
        prefix: the prefix they are read under, one per user if there are many; None for none.
        max_prompt_tokens: cut prompts to their first tokens.

    Raises:
        NoExamples, EmptyText, TextTooLong, InvalidArgument, PrefixMismatch.
    """
    refuse_unknown("score", unknown)
    if not isinstance(examples, Mapping):
        if isinstance(prefix, Mapping):
            raise InvalidArgument(
                "several prefixes for one list of examples", "give the examples by user too"
            )
        return _score_all(base, {"": examples}, {"": prefix}, max_prompt_tokens)[""]
    if not isinstance(prefix, Mapping):
        return _score_all(base, examples, dict.fromkeys(examples, prefix), max_prompt_tokens)
    missing = [user for user in examples if user not in prefix]
    if missing:
        raise InvalidArgument(f"no prefix for user {missing[0]!r}", "give one per user")
    return _score_all(base, examples, prefix, max_prompt_tokens)


def _score_all(
    base: FrozenBase,
    examples: Mapping[str, Iterable[Example]],
    prefixes: Mapping[str, Prefix | None],
    max_prompt_tokens: int | None,
) -> dict[str, float]:
    waiting: dict[int, list[tuple[str, Row]]] = {}
    nats, targets = dict.fromkeys(examples, 0.0), dict.fromkeys(examples, 0)
    for user, texts in examples.items():
        prefix = prefixes[user]
        length = 0 if prefix is None else prefix.length
        if prefix is not None:
            prefix.require_base(base.fingerprint)
        rows = encode_user(base, user, texts, length=length, max_prompt_tokens=max_prompt_tokens)
        targets[user] = sum(len(row.targets) for row in rows)
        waiting.setdefault(length, []).extend((user, row) for row in rows)
    with large_blocks_kept():
        for group in waiting.values():
            for (user, _), loss in _losses(base, group, prefixes):
                nats[user] += loss
    return {user: nats[user] / targets[user] for user in examples}


def _losses(
    base: FrozenBase, group: list[tuple[str, Row]], prefixes: Mapping[str, Prefix | None]
) -> Iterator[tuple[tuple[str, Row], float]]:
    """Summed nats of each row of `group`, whose prefixes all have one length."""
    while group:
        shape = shape_class(group[0][1], _MICRO_BATCH_TOKENS)
        chosen, left = first_fit([row for _, row in group], shape)
        part, group = [group[i] for i in chosen], [group[i] for i in left]
        values = torch.stack([_values(prefixes[user]) for user, _ in part])
        yield from zip(
            part, run_rows(base, shape, [row for _, row in part], values, None).losses, strict=True
        )


def _values(prefix: Prefix | None) -> torch.Tensor:
    return torch.zeros(0) if prefix is None else prefix.values
