"""Scores: against each package on its own, several references, and what is not there."""

import math
import shutil
import sys
from pathlib import Path

import pytest
import sacrebleu
from nltk.translate.nist_score import corpus_nist

from antefix_simulations.paper import metrics as scores_module
from antefix_simulations.paper.metrics import MEASURES, scores
from antefix_simulations.paper.nist import nist

pytestmark = pytest.mark.slow

TEXTS = ["the cat sat on the mat today", "a dog ran home"]
RIGHT = [["a cat sat on the mat", "the cat sat on the mat today"], ["the dog ran to its home"]]


def test_the_best_of_several_references_counts() -> None:
    one = scores(TEXTS[:1], RIGHT[:1], ["BLEU", "ROUGE-L", "ROUGE-2", "TER"])
    assert one["BLEU"].value == pytest.approx(100)
    assert one["ROUGE-L"].value == pytest.approx(100)
    assert one["ROUGE-2"].value == pytest.approx(100)
    assert one["TER"].value == pytest.approx(0)
    both = scores(TEXTS, RIGHT)
    assert 0 < (both["BLEU"].value or 0) < 100
    assert (both["NIST"].value or 0) > 0
    assert 0 < (both["TER"].value or 0) < 1


def test_bleu_is_sacrebleus_where_each_has_one_reference() -> None:
    right = [some[0] for some in RIGHT]
    wanted = sacrebleu.corpus_bleu(TEXTS, [right]).score
    assert scores(TEXTS, [[one] for one in right], ["BLEU"])["BLEU"].value == pytest.approx(wanted)


def test_nist_of_one_reference_each_is_nltks() -> None:
    texts = ["the cat sat on the mat today", "a dog ran home", "it rains", "the cat ran on the road"]
    right = [
        "a cat sat on the mat",
        "the dog ran to its home",
        "it rains today",
        "the cat ran along the road",
    ]
    wanted = corpus_nist([[one.split()] for one in right], [one.split() for one in texts])
    found = scores(texts, [[one] for one in right], ["NIST"])["NIST"]
    assert found.value == pytest.approx(wanted)
    assert scores([one.upper() for one in texts], [[one] for one in right], ["NIST"])["NIST"] == found


def test_nist_takes_the_references_of_an_input_together() -> None:
    # Of 8 words of references, "a" is one and "d" one: each tells log2(8) = 3 bits. "a x" has no reference.
    assert nist([["a", "d"]], [[["a", "b", "c", "x"], ["d", "e", "f", "y"]]]) == pytest.approx(
        3.0 * 0.5 ** ((math.log(0.5) / math.log(1.5)) ** 2)
    )
    both = nist([["a", "b", "d", "e"]], [[["a", "b", "c", "x"], ["d", "e", "f", "y"]]])
    alone = nist([["a", "b", "d", "e"]], [[["a", "b", "c", "x"]]])
    assert both > alone
    assert nist([["a", "b"]], [[["a", "b"]]]) == pytest.approx(1.0)  # orders that no text has count nothing


@pytest.mark.parametrize(
    ("package", "measures"), [("sacrebleu", "BLEU NIST TER"), ("rouge_score", "ROUGE-L")]
)
def test_any_package_may_be_missing(package: str, measures: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores_module._tokenizer.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    found = scores(TEXTS, RIGHT, measures.split())
    assert all(one.value is None and "antefix[paper]" in one.missing for one in found.values())


def test_a_measure_that_cannot_be_computed_says_why_and_the_rest_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider", None)
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    found = scores(TEXTS, RIGHT)
    assert set(found) == set(MEASURES)
    assert (found["CIDEr"].value, found["METEOR"].value) == (None, None)
    assert "pip install" in found["CIDEr"].missing
    assert "Java" in found["METEOR"].missing
    assert found["BLEU"].value is not None


def test_empty_texts_score_nothing() -> None:
    found = scores(["", ""], RIGHT, ["BLEU", "ROUGE-L", "NIST", "TER"])
    assert found["BLEU"].value == found["ROUGE-L"].value == found["NIST"].value == 0
    assert found["TER"].value == pytest.approx(12 / 12.5)  # of the shortest, by the mean length


def test_cider_is_higher_for_what_the_references_say() -> None:
    near = scores(TEXTS, RIGHT, ["CIDEr"])["CIDEr"]
    far = scores(TEXTS[::-1], RIGHT, ["CIDEr"])["CIDEr"]
    assert (near.value or 0) > (far.value or 0) >= 0


def test_spread_is_half_of_an_interval_and_none_for_one_text() -> None:
    texts = [f"the cat {number} sat on the mat today" for number in range(20)]
    right = [["the cat sat on the mat today" if number % 2 else "a dog"] for number in range(20)]
    found = scores(texts, right, ["BLEU", "ROUGE-L", "TER"])
    assert all(0 < (one.spread or 0) < (one.value or 0) for one in found.values())
    alone = scores(texts[:1], right[:1], ["BLEU", "ROUGE-L"])
    assert [one.spread for one in alone.values()] == [None, None]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR is a Java program")
def test_meteor_is_that_of_its_authors() -> None:
    found = scores(TEXTS, RIGHT, ["METEOR"])["METEOR"]
    assert found.value == pytest.approx(50.798, abs=0.01)
    assert scores(TEXTS[:1], RIGHT[:1], ["METEOR"])["METEOR"].value == pytest.approx(100)


@pytest.mark.slow
def test_a_java_that_does_not_run_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "does not run" in scores(TEXTS, RIGHT, ["METEOR"])["METEOR"].missing
