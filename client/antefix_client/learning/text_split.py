"""Which texts train and which judge: a keyed digest of each text says, so that it stays so."""

from __future__ import annotations

from dataclasses import dataclass, field

from antefix import Example, FrozenBase
from antefix.data.tokenization import check_rows_fit, encode
from antefix.errors import ExampleError
from antefix_client.errors import TooFewTexts
from antefix_client.learning.hyperparameters import MAX_PROMPT_TOKENS, MIN_TEXTS, validation_share
from antefix_client.profile.profile import Profile

_FEW = 8


@dataclass(frozen=True)
class Split:
    """Texts by what they are for; no text is in both, now or in any later run."""

    training: list[Example]
    validation: list[Example]


@dataclass(frozen=True)
class TextSnapshot:
    """What is remembered at one moment; the profile goes on changing. Private.

    Attributes:
        by_number: the texts, oldest first.
        digests: of each of them, keyed.
        ever_added: how many were ever remembered.
        removals: of the profile, so that a later removal is noticed.
    """

    by_number: dict[int, Example] = field(repr=False)
    digests: dict[Example, bytes] = field(repr=False)
    ever_added: int
    removals: int

    @classmethod
    def take(cls, profile: Profile) -> TextSnapshot:
        """Of a profile that nobody else changes meanwhile."""
        store, texts = profile.texts, dict(profile.texts.by_number)
        digests = {text: store.digest(text) for text in texts.values()}
        return cls(texts, digests, store.ever_added, store.removals)

    def split(self, usable: list[Example] | None = None, skipped: int = 0) -> Split:
        """Share the texts out.

        Args:
            usable: those that the base can take; None for all.
            skipped: how many it cannot take, for the message.

        Raises:
            TooFewTexts: fewer than four.
        """
        texts = list(self.by_number.values()) if usable is None else usable
        if len(texts) < MIN_TEXTS:
            too_long = f" ({skipped} more are too long for the base)" if skipped else ""
            raise TooFewTexts(
                f"{len(texts)} texts are remembered{too_long}, {MIN_TEXTS} are needed to learn from",
                "remember more",
            )
        share = validation_share(self.ever_added)
        rank = {text: int.from_bytes(self.digests[text][:8], "big") / 2**64 for text in texts}
        validation = [text for text in texts if rank[text] < share] or [min(texts, key=rank.__getitem__)]
        # Few texts may fall all on one side. Of more, one that was sent over to train would judge later.
        if len(validation) > len(texts) // 2 and (len(texts) <= _FEW or len(validation) == len(texts)):
            validation = sorted(validation, key=rank.__getitem__)[: len(texts) // 2]
        chosen = set(validation)
        return Split([text for text in texts if text not in chosen], validation)

    def count_tokens(self, base: FrozenBase, length: int) -> dict[int, int | None]:
        """Tokens that are computed for each text; None where the base cannot take it beside a prefix.

        Args:
            base: the base.
            length: positions of the prefix.
        """
        return {number: _count_tokens(base, text, length) for number, text in self.by_number.items()}

    def training_texts(self, base: FrozenBase, length: int) -> list[Example]:
        """Those that train, as in `learn`: without those that judge, and those that the base cannot take.

        Raises:
            TooFewTexts: fewer than four can be used.
        """
        tokens = self.count_tokens(base, length)
        usable = [text for number, text in self.by_number.items() if tokens[number] is not None]
        return self.split(usable).training


def _count_tokens(base: FrozenBase, text: Example, length: int) -> int | None:
    try:
        row = encode(base, text, MAX_PROMPT_TOKENS)
        check_rows_fit(base, max(len(row.inputs), len(row.source)), length, "a text")
    except ExampleError:
        return None
    return row.tokens
