"""Texts of a cohort as they are computed: prompts cut, none too long, none judged that anybody trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from antefix import Example, FrozenBase
from antefix.data.tokenization import encode
from antefix_simulations.data.store import Population, Split
from antefix_simulations.data.text import alike
from antefix_simulations.data.user_texts import cut_prompts
from antefix_simulations.settings import RunSettings

__all__ = ["CohortTexts"]

_TOO_LONG = "all texts of a side are too long"
_NOTHING_NEW = "with its prompts cut, no held-out text is new: raise max-prompt-tokens"


class CohortTexts:
    """Reads users' texts from a population."""

    def __init__(self, base: FrozenBase, population: Population, settings: RunSettings) -> None:
        """Nothing is read yet."""
        self._base, self._population, self._settings = base, population, settings

    def read(self, users: Sequence[int]) -> tuple[dict[int, Split], list[dict[str, Any]]]:
        """Texts of the users who have some on both sides; a line for each of the others, with the reason."""
        splits, failures = dict[int, Split](), list[dict[str, Any]]()
        trained: dict[bytes, set[bytes]] = {}
        for user, split in self._population.splits(users).items():
            training, held_out = (self._cut(side) for side in (split.training, split.held_out))
            unseen = [text for text in held_out if not self._is_trained_on(text, trained)]
            if training and unseen:
                splits[user] = Split(training, unseen)
            else:
                reason = _NOTHING_NEW if training and held_out else _TOO_LONG
                failures.append({"user": user, "failed": reason})
        return splits, failures

    def _is_trained_on(self, text: Example, trained: dict[bytes, set[bytes]]) -> bool:
        """Whether any user trains on the like, prompts cut.

        Args:
            text: that would judge.
            trained: digests of cut prompts, by digest of the completion; each that is looked up is added.
        """
        digest = alike(text.completion)
        if digest not in trained:
            prompts = self._population.prompts_before(text.completion)
            texts = self._cut([Example(text.completion, prompt) for prompt in prompts])
            trained[digest] = {alike(example.prompt) for example in texts}
        return alike(text.prompt) in trained[digest]

    def _cut(self, texts: list[Example]) -> list[Example]:
        cut = cut_prompts(texts, self._base.tokenizer, self._settings.max_prompt_tokens)
        return [text for text in cut if self._fits(text)]

    def _fits(self, text: Example) -> bool:
        max_tokens = self._settings.max_text_tokens
        # No token is shorter than a byte: a text of fewer bytes fits, and is not encoded to see it.
        if len(text.prompt.encode()) + len(text.completion.encode()) < max_tokens:
            return True
        return encode(self._base, text, None).tokens <= max_tokens
