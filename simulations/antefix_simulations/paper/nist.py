"""NIST (Doddington 2002) by the formula of mteval-v13a: the references of an input count together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

__all__ = ["nist"]

_ORDERS = range(1, 6)
_HALF_AT = 1.5  # a text two thirds as long as its references gets half of its score

_Words = Sequence[str]
_Counts = Counter[tuple[str, ...]]


def nist(texts: Sequence[_Words], references: Sequence[Sequence[_Words]]) -> float:
    """Of all texts together: what the n-grams that they share with their references tell, per n-gram.

    Rarer n-grams tell more: log2 of how often their beginning is in the references over how often they are.
    NLTK's takes for each length of n-gram the one reference that suits best; mteval takes all of them.

    Args:
        texts: words of each.
        references: of each text at least one, as words.
    """
    known = _count(sentence for sentences in references for sentence in sentences)
    information, ngrams = dict.fromkeys(_ORDERS, 0.0), dict.fromkeys(_ORDERS, 0)
    for text, right in zip(texts, references, strict=True):
        allowed = _Counts()
        for sentence in right:
            allowed |= _count([sentence])
        for gram, count in _count([text]).items():
            if not gram:
                continue
            ngrams[len(gram)] += count
            if gram in allowed:
                information[len(gram)] += min(count, allowed[gram]) * math.log2(
                    known[gram[:-1]] / known[gram]
                )
    mean_length = sum(sum(map(len, right)) / len(right) for right in references)
    score = sum(information[order] / ngrams[order] for order in _ORDERS if ngrams[order])
    return score * _brevity(ngrams[1] / mean_length) if mean_length else 0.0


def _count(texts: Iterator[_Words] | Sequence[_Words]) -> _Counts:
    """All n-grams; the empty one, before every single word, as often as there are words."""
    counts = _Counts()
    for text in texts:
        words = tuple(text)
        counts[()] += len(words)
        for order in _ORDERS:
            counts.update(words[at : at + order] for at in range(len(words) - order + 1))
    return counts


def _brevity(ratio: float) -> float:
    if ratio <= 0:
        return 0.0
    return math.exp(math.log(0.5) * (math.log(min(1.0, ratio)) / math.log(_HALF_AT)) ** 2)
