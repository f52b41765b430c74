"""The arm without training: the user's own texts in front of each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from antefix import Example, FrozenBase
from antefix._examples import encode
from antefix.errors import InvalidArgument


@dataclass(frozen=True)
class InContext:
    """Held-out texts with examples in front.

    Attributes:
        examples: the same completions; the prompts have grown.
        texts: examples in front of a text, on average.
        tokens: of all rows.
    """

    examples: list[Example]
    texts: float
    tokens: int


def with_examples(
    base: FrozenBase, training: Sequence[Example], held_out: Sequence[Example], context: int
) -> InContext:
    """Put as many of the newest training texts in front of each held-out one as fit, oldest first.

    Args:
        base: whose tokens are counted.
        training: the user's texts, oldest first.
        held_out: texts to predict.
        context: tokens of a row at most.

    Raises:
        InvalidArgument: the base cannot see that many.
    """
    if base.context is not None and context > base.context:
        raise InvalidArgument(f"context is {context}, and base {base.name!r} sees {base.context}")
    pairs = [f"{example.prompt}{example.completion}\n\n" for example in training]
    sizes = [len(base.tokenizer(pair, add_special_tokens=False)["input_ids"]) for pair in pairs]
    rows, counts, tokens = [], 0, 0
    for example in held_out:
        count = _most(sizes, context - encode(base, example, None).tokens)
        row = _joined(pairs, count, example)
        while count and encode(base, row, None).tokens > context:  # joined texts may split otherwise
            count -= 1
            row = _joined(pairs, count, example)
        rows.append(row)
        counts += count
        tokens += encode(base, row, None).tokens
    return InContext(rows, counts / len(held_out), tokens)


def _most(sizes: Sequence[int], room: int) -> int:
    """How many from the end fit into `room`."""
    count = 0
    for size in reversed(sizes):
        room -= size
        if room < 0:
            break
        count += 1
    return count


def _joined(pairs: Sequence[str], count: int, example: Example) -> Example:
    return Example(example.completion, "".join(pairs[len(pairs) - count :]) + example.prompt)
