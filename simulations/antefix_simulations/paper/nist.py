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
    known = _counted(one for some in references for one in some)
    told, written = dict.fromkeys(_ORDERS, 0.0), dict.fromkeys(_ORDERS, 0)
    for text, right in zip(texts, references, strict=True):
        allowed = _Counts()
        for one in right:
            allowed |= _counted([one])
        for gram, count in _counted([text]).items():
            if not gram:
                continue
            written[len(gram)] += count
            if gram in allowed:
                told[len(gram)] += min(count, allowed[gram]) * math.log2(known[gram[:-1]] / known[gram])
    wanted = sum(sum(map(len, right)) / len(right) for right in references)
    score = sum(told[order] / written[order] for order in _ORDERS if written[order])
    return score * _brevity(written[1] / wanted) if wanted else 0.0


def _counted(texts: Iterator[_Words] | Sequence[_Words]) -> _Counts:
    """All n-grams; the empty one, before every single word, as often as there are words."""
    found = _Counts()
    for text in texts:
        words = tuple(text)
        found[()] += len(words)
        for order in _ORDERS:
            found.update(words[at : at + order] for at in range(len(words) - order + 1))
    return found


def _brevity(ratio: float) -> float:
    if ratio <= 0:
        return 0.0
    return math.exp(math.log(0.5) * (math.log(min(1.0, ratio)) / math.log(_HALF_AT)) ** 2)
