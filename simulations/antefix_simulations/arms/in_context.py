"""Arms without training: a user's own texts in front of each text that is scored."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from antefix import Example, FrozenBase, Prefix, score
from antefix.data.tokenization import encode
from antefix_simulations.arms.context_prefix import InContext, examples_that_fit
from antefix_simulations.data.store import Split

__all__ = ["in_context", "nearest", "retrieved"]

_WORD = re.compile(r"\w+")
_K1, _B = 1.5, 0.75  # Robertson and Zaragoza 2009, section 3.2


def in_context(base: FrozenBase, users: Mapping[int, Split], tokens: int) -> dict[int, float]:
    """Nats per token with the newest training texts that fit in front, the same for all of a user's texts."""
    texts = {str(user): split.held_out for user, split in users.items()}
    prefixes = {}
    for user, split in users.items():
        found = examples_that_fit(base, split.training, split.held_out, tokens).prefix(base)
        if found is not None:
            prefixes[str(user)] = found
    return {int(user): loss for user, loss in _scored(base, texts, prefixes).items()}


def retrieved(base: FrozenBase, users: Mapping[int, Split], tokens: int, count: int) -> dict[int, float]:
    """Nats per token with the training texts in front that are nearest to each text's prompt."""
    return {user: _retrieved(base, split, tokens, count) for user, split in users.items()}


def _retrieved(base: FrozenBase, split: Split, tokens: int, count: int) -> float:
    texts, prefixes, weights = {}, {}, {}
    for at, text in enumerate(split.held_out):
        near = nearest(text.prompt, split.training, count)
        found = _as_many_as_fit(base, near, text, tokens).prefix(base)
        texts[str(at)], weights[str(at)] = [text], len(encode(base, text, None).targets)
        if found is not None:
            prefixes[str(at)] = found
    losses = _scored(base, texts, prefixes)
    return sum(losses[name] * weights[name] for name in texts) / sum(weights.values())


def _scored(
    base: FrozenBase, texts: Mapping[str, Sequence[Example]], prefixes: Mapping[str, Prefix]
) -> dict[str, float]:
    """Nats per token of each one's texts; some have nothing in front."""
    losses = score(base, {name: texts[name] for name in prefixes}, prefixes)
    without = {name: one for name, one in texts.items() if name not in prefixes}
    return losses | (score(base, without) if without else {})


def _as_many_as_fit(base: FrozenBase, near: Sequence[Example], text: Example, tokens: int) -> InContext:
    """The nearest that fit; they come farthest first, so those are left out."""
    return examples_that_fit(base, near, [text], tokens)


def nearest(prompt: str, texts: Sequence[Example], count: int) -> list[Example]:
    """The `count` texts whose prompts are nearest (BM25), farthest first; without a prompt the newest."""
    asked = set(_words(prompt))
    if not asked:
        return list(texts[-count:])
    known = [Counter(_words(f"{text.prompt} {text.completion}")) for text in texts]
    length = sum(one.total() for one in known) / len(known) or 1.0
    rarity = {word: _rarity(sum(word in one for one in known), len(known)) for word in asked}

    def relevance(at: int) -> float:
        one = known[at]
        penalty = _K1 * (1 - _B + _B * one.total() / length)
        return sum(rarity[word] * one[word] * (_K1 + 1) / (one[word] + penalty) for word in asked)

    order = sorted(range(len(texts)), key=lambda at: (relevance(at), at))
    return [texts[at] for at in order[-count:]]


def _rarity(having: int, all: int) -> float:
    return math.log(1 + (all - having + 0.5) / (having + 0.5))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
