"""How near generated texts come to their references: each measure as its own package computes it.

A measure whose package or data is not there is a gap with its reason; the others are computed all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MEASURES", "Score", "scores"]

_References = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Score:
    """One measure of one set of texts.

    Attributes:
        value: as papers print it; None where it could not be computed.
        missing: why not; empty where it could.
    """

    value: float | None
    missing: str = ""


class _Absent(Exception):
    """Something that the measure needs is not here."""


def scores(texts: Sequence[str], references: _References, measures: Sequence[str] = ()) -> dict[str, Score]:
    """Of all texts together.

    Args:
        texts: one for each input.
        references: all that are right for each input, one at least.
        measures: names from `MEASURES`; empty for all.
    """
    found = {}
    for name in measures or MEASURES:
        try:
            found[name] = Score(MEASURES[name](texts, references))
        except _Absent as error:
            found[name] = Score(None, str(error))
    return found


def _bleu(texts: Sequence[str], references: _References) -> float:
    """sacrebleu's, 0 to 100."""
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU().corpus_score(list(texts), _streams(references)).score)


def _ter(texts: Sequence[str], references: _References) -> float:
    """sacrebleu's, as a share: edits per word of a reference; lower is better."""
    from sacrebleu.metrics.ter import TER

    return float(TER().corpus_score(list(texts), _streams(references)).score) / 100


def _rouge(kind: str) -> Callable[[Sequence[str], _References], float]:
    def computed(texts: Sequence[str], references: _References) -> float:
        """Mean F-measure, 0 to 100, with a text's best reference."""
        from rouge_score.rouge_scorer import RougeScorer

        rouge = RougeScorer([kind], use_stemmer=True)
        best = [
            max(rouge.score(one, text)[kind].fmeasure for one in right)
            for text, right in zip(texts, references, strict=True)
        ]
        return 100 * float(sum(best)) / len(best)

    return computed


def _nist(texts: Sequence[str], references: _References) -> float:
    """NLTK's, n up to 5, of sacrebleu's tokens."""
    from nltk.translate.nist_score import corpus_nist
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    made: Any = Tokenizer13a  # without types
    words = made()
    right = [[words(one).split() for one in some] for some in references]
    try:
        return float(corpus_nist(right, [words(text).split() for text in texts]))
    except ZeroDivisionError:  # NLTK's, where no text has a word
        return 0.0


def _cider(texts: Sequence[str], references: _References) -> float:
    """pycocoevalcap's, which is 0 for a single input: it weighs words by how many inputs have them."""
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError:
        raise _Absent("needs pycocoevalcap: pip install pycocoevalcap") from None
    right = {number: list(some) for number, some in enumerate(references)}
    return float(Cider().compute_score(right, {number: [text] for number, text in enumerate(texts)})[0])


def _meteor(texts: Sequence[str], references: _References) -> float:
    raise _Absent("the paper's METEOR is a Java program; NLTK's gives other figures")


def _streams(references: _References) -> Any:
    """As sacrebleu wants them: the first of each text, then the second of each, None where there is none."""
    most = max(map(len, references))
    return [[some[at] if at < len(some) else None for some in references] for at in range(most)]


MEASURES: dict[str, Callable[[Sequence[str], _References], float]] = {
    "BLEU": _bleu,
    "NIST": _nist,
    "METEOR": _meteor,
    "ROUGE-1": _rouge("rouge1"),
    "ROUGE-2": _rouge("rouge2"),
    "ROUGE-L": _rouge("rougeL"),
    "CIDEr": _cider,
    "TER": _ter,
}
"""In the order of the paper's tables."""
