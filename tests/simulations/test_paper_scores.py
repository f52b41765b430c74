"""Scores: against each package on its own, several references, and what is not there."""

import sys

import pytest
import sacrebleu

from antefix_simulations.paper.scores import MEASURES, scores

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


def test_a_measure_that_cannot_be_computed_says_why_and_the_rest_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
