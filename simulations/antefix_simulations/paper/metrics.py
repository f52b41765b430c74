"""How near generated texts come to their references: each measure as its own package computes it.

A measure whose package or data is not there is a gap with its reason; the others are computed all the same.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antefix_simulations.common.bootstrap import interval
from antefix_simulations.paper.nist import nist

__all__ = ["MEASURES", "Score", "scores"]

_References = Sequence[Sequence[str]]
_RESAMPLES = 1000


@dataclass(frozen=True)
class Score:
    """One measure of one set of texts.

    Attributes:
        value: as papers print it; None where it could not be computed.
        missing: why not; empty where it could.
        spread: half of the 95 % interval, by bootstrap over the texts; None where it is not known.
    """

    value: float | None
    missing: str = ""
    spread: float | None = None


class _Absent(Exception):
    """Something that the measure needs is not here."""


def scores(
    texts: Sequence[str], references: _References, measures: Sequence[str] | None = None
) -> dict[str, Score]:
    """Of all texts together.

    Args:
        texts: one for each input.
        references: all that are right for each input, one at least.
        measures: names from `MEASURES`; None for all.
    """
    scores_of = {}
    for name in MEASURES if measures is None else measures:
        try:
            scores_of[name] = MEASURES[name](texts, references)
        except _Absent as error:
            scores_of[name] = Score(None, str(error))
    return scores_of


def _bleu(texts: Sequence[str], references: _References) -> Score:
    """sacrebleu's, 0 to 100."""
    with _package("sacrebleu"):
        from sacrebleu.metrics.bleu import BLEU

    return _sacrebleu(BLEU(), texts, references, 1.0)


def _ter(texts: Sequence[str], references: _References) -> Score:
    """sacrebleu's, as a share: edits per word of a reference; lower is better."""
    with _package("sacrebleu"):
        from sacrebleu.metrics.ter import TER

    return _sacrebleu(TER(), texts, references, 0.01)


def _sacrebleu(metric: Any, texts: Sequence[str], references: _References, factor: float) -> Score:
    resamples = _RESAMPLES if len(texts) > 1 else 1
    corpus_score = metric.corpus_score(list(texts), _streams(references), n_bootstrap=resamples)
    details = json.loads(
        corpus_score.format(width=6, is_json=True, signature=metric.get_signature().format())
    )
    spread = details.get("confidence_var")
    return Score(float(corpus_score.score) * factor, spread=None if spread is None else spread * factor)


def _rouge(kind: str) -> Callable[[Sequence[str], _References], Score]:
    def computed(texts: Sequence[str], references: _References) -> Score:
        """Mean F-measure, 0 to 100, with a text's best reference."""
        with _package("rouge-score"):
            from rouge_score.rouge_scorer import RougeScorer

        rouge = RougeScorer([kind], use_stemmer=True)
        best = interval(
            [
                100 * max(float(rouge.score(reference, text)[kind].fmeasure) for reference in right)
                for text, right in zip(texts, references, strict=True)
            ],
            resamples=_RESAMPLES,
        )
        return Score(best.mean, spread=(best.high - best.low) / 2 if len(texts) > 1 else None)

    return computed


def _nist(texts: Sequence[str], references: _References) -> Score:
    """mteval's formula, n up to 5, of sacrebleu's tokens in small letters, as mteval has them."""
    right = [[_words(reference.lower()) for reference in alternatives] for alternatives in references]
    return Score(nist([_words(text.lower()) for text in texts], right))


def _cider(texts: Sequence[str], references: _References) -> Score:
    """pycocoevalcap's, which is 0 for a single input: it weighs words by how many inputs have them."""
    with _package("pycocoevalcap"):
        from pycocoevalcap.cider.cider import Cider

    right = {
        number: [" ".join(_words(reference)).lower() for reference in alternatives]
        for number, alternatives in enumerate(references)
    }
    texts_of = {number: [" ".join(_words(text)).lower()] for number, text in enumerate(texts)}
    return Score(float(Cider().compute_score(right, texts_of)[0]))


def _meteor(texts: Sequence[str], references: _References) -> Score:
    """METEOR 1.5, its authors' Java program, 0 to 100.

    pycocoevalcap brings the program. Its own way to talk to it waits for ever where Java ends early.
    """
    if shutil.which("java") is None:
        raise _Absent("needs Java, which is not there")
    with _package("pycocoevalcap"):
        from pycocoevalcap.meteor import meteor

    # A file has as many for each text; a reference that is there twice changes nothing.
    per_text = max(map(len, references))
    right = [(list(alternatives) * per_text)[:per_text] for alternatives in references]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("written", "references")]
        every = [reference for alternatives in right for reference in alternatives]
        for file, lines in zip(files, (texts, every), strict=True):
            file.write_text("".join(f"{' '.join(line.split()) or '.'}\n" for line in lines), "utf-8")
        program = Path(meteor.__file__).with_name("meteor-1.5.jar")
        command = ["java", "-Xmx2G", "-jar", program, *files, "-l", "en", "-norm", "-r", str(per_text)]
        output = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False).stdout
    final_score = re.search(r"^Final score:\s+([0-9.]+)", output, re.MULTILINE)
    if final_score is None:
        raise _Absent("its Java program does not run here")
    return Score(100 * float(final_score[1]))


@contextmanager
def _package(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise _Absent(f"needs {name}: pip install 'antefix[paper]'") from None


def _words(text: str) -> list[str]:
    """sacrebleu's tokens."""
    return str(_tokenizer()(text)).split()


@functools.cache
def _tokenizer() -> Any:
    with _package("sacrebleu"):
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    kind: Any = Tokenizer13a  # without types
    return kind()


def _streams(references: _References) -> Any:
    """As sacrebleu wants them: the first of each text, then the second of each, None where there is none."""
    per_text = max(map(len, references))
    return [
        [alternatives[at] if at < len(alternatives) else None for alternatives in references]
        for at in range(per_text)
    ]


MEASURES: dict[str, Callable[[Sequence[str], _References], Score]] = {
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
