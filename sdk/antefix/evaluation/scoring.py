"""How well a prefix predicts texts: nats per token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import torch

from antefix.common.malloc import retain_large_blocks
from antefix.common.validation import require, require_users
from antefix.data.example import Example
from antefix.data.tokenization import Row, encode_user
from antefix.errors import InvalidArgument
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Layout
from antefix.prefix.prefix import Prefix
from antefix.training.bucketing import Bucket, Buckets, first_fit
from antefix.training.micro_batch import forward_backward as run_rows
from antefix.training.workers import worker_count, workers_of

_CPU_TOKENS = 256


@overload
def score(
    base: FrozenBase,
    examples: Sequence[Example],
    prefix: Prefix | None = None,
    *,
    max_prompt_tokens: int | None = None,
    micro_batch_tokens: int | None = None,
    infix: bool = False,
) -> float: ...
@overload
def score(
    base: FrozenBase,
    examples: Mapping[str, Iterable[Example]],
    prefix: Mapping[str, Prefix] | Prefix | None = None,
    *,
    max_prompt_tokens: int | None = None,
    micro_batch_tokens: int | None = None,
    infix: bool = False,
) -> dict[str, float]: ...
def score(
    base: FrozenBase,
    examples: Sequence[Example] | Mapping[str, Iterable[Example]],
    prefix: Prefix | Mapping[str, Prefix] | None = None,
    *,
    max_prompt_tokens: int | None = None,
    micro_batch_tokens: int | None = None,
    infix: bool = False,
) -> float | dict[str, float]:
    """Mean cross-entropy of the completions in nats per token, lower is better.

    Args:
        base: the frozen base.
        examples: texts of one user, or of many by name; many share micro-batches.
        prefix: the prefix they are read under, one per user if there are many; None for none.
        max_prompt_tokens: cut prompts to their first tokens.
        micro_batch_tokens: tokens of one forward pass; None is 256 on a CPU and 8192 on a GPU.
        infix: the prefixes were trained with `PrefixSpec(place="infix")`: prompts do not see them.

    Raises:
        ExampleError, TextTooLong, InvalidArgument, PrefixMismatch, OutOfMemory.
    """
    require(base, FrozenBase, "base")
    _require_count(max_prompt_tokens, "max_prompt_tokens")
    _require_count(micro_batch_tokens, "micro_batch_tokens")
    require(infix, bool, "infix")
    reading = _Reading(max_prompt_tokens, infix)
    at_once = micro_batch_tokens or (_CPU_TOKENS if base.device.type == "cpu" else None)
    if not isinstance(examples, Mapping):
        require(examples, Iterable, "examples", "give a list of Example(completion=…, prompt=…)")
        if isinstance(prefix, Mapping):
            raise InvalidArgument(
                "several prefixes for one list of examples", "give the examples by user too"
            )
        return _score_all(base, {"": examples}, {"": prefix}, reading, at_once)[""]
    require_users(examples, "examples")
    if not isinstance(prefix, Mapping):
        return _score_all(base, examples, dict.fromkeys(examples, prefix), reading, at_once)
    missing = [user for user in examples if user not in prefix]
    if missing:
        raise InvalidArgument(f"no prefix for user {missing[0]!r}", "give one per user")
    return _score_all(base, examples, prefix, reading, at_once)


def _require_count(number: int | None, name: str) -> None:
    if number is not None:
        require(number, int, name)
        if number < 1:
            raise InvalidArgument(f"{name} is {number}", "use 1 or more, or None")


def _score_all(
    base: FrozenBase,
    examples: Mapping[str, Iterable[Example]],
    prefixes: Mapping[str, Prefix | None],
    reading: _Reading,
    at_once: int | None,
) -> dict[str, float]:
    rows = {user: _encode(base, user, examples[user], prefixes[user], reading) for user in examples}
    losses: dict[str, list[float]] = {user: [0.0] * len(rows[user]) for user in examples}

    def run(batch: _Batch) -> list[float]:
        values = torch.stack([_values(prefixes[place.user]) for place in batch.places])
        texts = [rows[place.user][place.number] for place in batch.places]
        return run_rows(
            base, batch.shape, texts, values, None, _layout(prefixes[batch.places[0].user])
        ).losses

    waiting = _batches(rows, prefixes, Buckets.of(base, at_once))
    with retain_large_blocks(), workers_of(run, max(1, min(worker_count(base), len(waiting)))) as workers:
        while waiting or workers.busy:
            while waiting and not workers.full:
                workers.submit(waiting.pop(0))
            for batch, results in workers.finished():
                for place, loss in zip(batch.places, results, strict=True):
                    losses[place.user][place.number] = loss
    return {user: sum(losses[user]) / sum(len(row.targets) for row in rows[user]) for user in examples}


@dataclass(frozen=True)
class _Reading:
    """How texts are read: prompts cut to so many tokens, blind to the prefix or not."""

    max_prompt_tokens: int | None
    infix: bool


@dataclass(frozen=True)
class _Place:
    """One row: whose, and its number among that user's."""

    user: str
    number: int


@dataclass(frozen=True)
class _Batch:
    """Rows that run together; their prefixes have one length."""

    shape: Bucket
    places: list[_Place]


def _encode(
    base: FrozenBase,
    user: str,
    texts: Iterable[Example],
    prefix: Prefix | None,
    reading: _Reading,
) -> list[Row]:
    if prefix is not None:
        require(prefix, Prefix, "prefix")
        prefix.require_base(base.fingerprint, base.layout)
    length = 0 if prefix is None else prefix.length
    if reading.infix and base.is_encoder_decoder:
        raise InvalidArgument(
            "infix=True, and this base is an encoder-decoder", "leave it out, or use a causal base"
        )
    rows = encode_user(base, user, texts, length=length, max_prompt_tokens=reading.max_prompt_tokens)
    return [row.with_infix for row in rows] if reading.infix else rows


def _batches(
    rows: Mapping[str, list[Row]], prefixes: Mapping[str, Prefix | None], buckets: Buckets
) -> list[_Batch]:
    """All rows in micro-batches, those under prefixes of one length and kind together."""
    groups: dict[tuple[int, Layout | None], list[_Place]] = {}
    for user, texts in rows.items():
        prefix = prefixes[user]
        places = [_Place(user, number) for number in range(len(texts))]
        groups.setdefault((0 if prefix is None else prefix.length, _layout(prefix)), []).extend(places)
    batches = []
    for group in groups.values():
        waiting = group
        while waiting:
            texts = [rows[place.user][place.number] for place in waiting]
            shape = buckets.bucket_for(texts[0])
            chosen, rest = first_fit(texts, shape)
            if buckets.at_once:  # prefixes may be as long as a context: no dummies with such
                shape = buckets.tight_bucket([texts[i] for i in chosen])
            batches.append(_Batch(shape, [waiting[i] for i in chosen]))
            waiting = [waiting[i] for i in rest]
    return batches


def _layout(prefix: Prefix | None) -> Layout | None:
    return None if prefix is None else prefix.layout


def _values(prefix: Prefix | None) -> torch.Tensor:
    return torch.zeros(0) if prefix is None else prefix.values
