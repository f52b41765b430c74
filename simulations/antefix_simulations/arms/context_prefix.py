"""Texts in front of each text that is scored, as a prefix: what the arms without training put there.

What stands in front is the same for all of a user's texts, so the base reads it once: its keys and values
are a prefix that nobody trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from antefix import Example, FrozenBase, Prefix
from antefix.data.tokenization import Row, encode
from antefix.errors import InvalidArgument
from antefix.training.initialization import activations


@dataclass(frozen=True)
class ContextExamples:
    """Examples that stand in front of a user's texts.

    Attributes:
        tokens: of the examples, oldest first.
        texts: how many they are.
    """

    tokens: list[int]
    texts: int

    def prefix(self, base: FrozenBase) -> Prefix | None:
        """What the base computes on the examples; None if there are none."""
        if not self.tokens:
            return None
        return Prefix(activations(base, [self.tokens])[0], base.layout, base.fingerprint)


def fit_examples(
    base: FrozenBase, training: Sequence[Example], held_out: Sequence[Example], context: int | None
) -> ContextExamples:
    """As many of the newest training texts as fit in front of the longest held-out one.

    Each is written as the base sees it in training: prompt, completion, end of text.

    Args:
        base: whose tokens are counted.
        training: the user's texts, oldest first.
        held_out: texts to predict.
        context: tokens of a row at most; None for all that the base sees.

    Raises:
        InvalidArgument: the base cannot see that many, or sees any number and none is given.
    """
    if context is None:
        context = base.context
    if context is None or (base.context is not None and context > base.context):
        raise InvalidArgument(
            f"context is {context}, and base {base.name!r} sees {base.context or 'any number of'} tokens",
            "give a --context that it sees",
        )
    room = context - max(encode(base, example, None).tokens for example in held_out)
    tokens: list[int] = []
    texts = 0
    for example in reversed(training):
        whole = _whole(encode(base, example, None))
        if len(whole) > room - len(tokens):
            break
        tokens = [*whole, *tokens]
        texts += 1
    return ContextExamples(tokens, texts)


def pack_examples(base: FrozenBase, texts: Sequence[Example], room: int) -> ContextExamples:
    """As many texts as fit, in their order; one that is too long is left out.

    Args:
        base: whose tokens are counted.
        texts: each is written as the base sees it in training.
        room: tokens that they may take together.
    """
    tokens: list[int] = []
    count = 0
    for example in texts:
        whole = _whole(encode(base, example, None))
        if len(whole) <= room - len(tokens):
            tokens += whole
            count += 1
    return ContextExamples(tokens, count)


def _whole(row: Row) -> tuple[int, ...]:
    """All tokens of a text."""
    return (*row.source, *row.targets) if row.source else (*row.inputs, row.targets[-1])
