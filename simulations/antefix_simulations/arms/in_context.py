"""Arms without training: a user's own texts in front of each text that is scored."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from antefix import Example, FrozenBase, Prefix, score
from antefix.data.tokenization import encode
from antefix_simulations.arms.context_prefix import fit_examples
from antefix_simulations.arms.interface import Arm
from antefix_simulations.data.store import Split

__all__ = ["InContext", "Retrieved", "nearest"]

_WORD = re.compile(r"\w+")
_K1, _B = 1.5, 0.75  # Robertson and Zaragoza 2009, section 3.2


class InContext(Arm):
    """The newest training texts that fit, in front: the same for all of a user's texts."""

    def losses(self, users: Mapping[int, Split], shared: Prefix, rate: float = 0.0) -> dict[int, float]:
        """Nats per token; a user of whom no text fits is judged without any."""
        texts = {str(user): split.held_out for user, split in users.items()}
        prefixes = {}
        for user, split in users.items():
            room = _context_tokens(self)
            prefix = fit_examples(self.base, split.training, split.held_out, room).prefix(self.base)
            if prefix is not None:
                prefixes[str(user)] = prefix
        return {int(user): loss for user, loss in _score(self.base, texts, prefixes).items()}


class Retrieved(Arm):
    """The training texts that are nearest to each text's prompt, in front."""

    def losses(self, users: Mapping[int, Split], shared: Prefix, rate: float = 0.0) -> dict[int, float]:
        """Nats per token over all target tokens of a user."""
        return {user: self._loss(split) for user, split in users.items()}

    def _loss(self, split: Split) -> float:
        texts, prefixes, weights = {}, {}, {}
        for at, text in enumerate(split.held_out):
            near = nearest(text.prompt, split.training, self.settings.retrieved_texts)
            # Farthest first: where not all fit, the farthest are left out.
            prefix = fit_examples(self.base, near, [text], _context_tokens(self)).prefix(self.base)
            texts[str(at)], weights[str(at)] = [text], len(encode(self.base, text, None).targets)
            if prefix is not None:
                prefixes[str(at)] = prefix
        losses = _score(self.base, texts, prefixes)
        return sum(losses[name] * weights[name] for name in texts) / sum(weights.values())


def _context_tokens(arm: Arm) -> int:
    """Tokens of a row: what the settings say, or what the base sees if that is less."""
    limit, sees = arm.settings.context_tokens, arm.base.context
    return limit if sees is None else min(limit, sees)


def _score(
    base: FrozenBase, texts: Mapping[str, Sequence[Example]], prefixes: Mapping[str, Prefix]
) -> dict[str, float]:
    """Nats per token of each one's texts; some have nothing in front."""
    losses = score(base, {name: texts[name] for name in prefixes}, prefixes)
    without = {name: texts[name] for name in texts if name not in prefixes}
    return losses | (score(base, without) if without else {})


def nearest(prompt: str, texts: Sequence[Example], limit: int) -> list[Example]:
    """The `limit` texts whose prompts are nearest (BM25), farthest first; without a prompt the newest."""
    words = set(_words(prompt))
    if not words:
        return list(texts[-limit:])
    counts = [Counter(_words(f"{text.prompt} {text.completion}")) for text in texts]
    length = sum(count.total() for count in counts) / len(counts) or 1.0
    rarity = {word: _rarity(sum(word in count for count in counts), len(counts)) for word in words}

    def relevance(at: int) -> float:
        count = counts[at]
        penalty = _K1 * (1 - _B + _B * count.total() / length)
        return sum(rarity[word] * count[word] * (_K1 + 1) / (count[word] + penalty) for word in words)

    order = sorted(range(len(texts)), key=lambda at: (relevance(at), at))
    return [texts[at] for at in order[-limit:]]


def _rarity(having: int, all: int) -> float:
    return math.log(1 + (all - having + 0.5) / (having + 0.5))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
