"""What a prefix makes the base write, beside what the user really wrote."""

from __future__ import annotations

from collections.abc import Mapping

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from antefix import FrozenBase, GenerationRequest, Prefix, generate
from antefix_simulations.data.store import Split

__all__ = ["MEASURES", "agreement", "write_texts"]

MEASURES = ("exact match", "BLEU", "ROUGE-L")
"""Share of texts (white space apart); BLEU of a user's texts together, 0 to 100; mean F-measure."""


def write_texts(
    base: FrozenBase,
    users: Mapping[int, Split],
    prefixes: Mapping[int, Prefix] | None,
    count: int,
    tokens: int,
) -> dict[int, dict[str, float]]:
    """Each user's newest texts that have a prompt, written greedily from the prompt alone.

    Args:
        base: the frozen base.
        users: their texts.
        prefixes: one for each user; None for none.
        count: texts of each user.
        tokens: of an answer at most.

    Returns:
        `MEASURES` of each user who has such texts.
    """
    chosen = {
        user: [text for text in split.held_out if text.prompt][-count:] for user, split in users.items()
    }
    chosen_texts = [(user, text) for user, texts in chosen.items() for text in texts]
    requests = [
        GenerationRequest(
            prompt=text.prompt,
            prefix=None if prefixes is None else prefixes[user],
            max_new_tokens=tokens,
            # Without a prefix the base does not know that a text ends with its line; for all arms alike.
            stop=() if "\n" in text.completion.strip() else ("\n",),
        )
        for user, text in chosen_texts
    ]
    pairs_of: dict[int, list[tuple[str, str]]] = {}
    for (user, text), generated in zip(chosen_texts, generate(base, requests), strict=True):
        pairs_of.setdefault(user, []).append((generated.text, text.completion))
    return {user: agreement(pairs) for user, pairs in pairs_of.items()}


def agreement(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """How near texts come to their references.

    Args:
        pairs: text and reference.
    """
    texts, references = [[" ".join(text.split()) for text in side] for side in zip(*pairs, strict=True)]
    rouge = RougeScorer(["rougeL"])
    exact = sum(text == reference for text, reference in zip(texts, references, strict=True)) / len(texts)
    longest = [
        rouge.score(reference, text)["rougeL"].fmeasure
        for text, reference in zip(texts, references, strict=True)
    ]
    bleu = BLEU(effective_order=True).corpus_score(texts, [references]).score
    return dict(zip(MEASURES, (exact, float(bleu), sum(longest) / len(longest)), strict=True))
