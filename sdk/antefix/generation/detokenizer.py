"""Text of a row while its tokens arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer writes for the first bytes of a character


class IncrementalDetokenizer:
    """Turns tokens into pieces of text that can be shown at once.

    A piece never ends inside a character, nor with the beginning of a stop text.

    Attributes:
        text: all pieces so far.
        stopped: whether a stop text was found.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self._tokenizer: Any = tokenizer
        self._stop = stop
        self._tokens: list[int] = []
        # Tokens from `_context_start` to `_read` are written already; decoding starts with them, since many
        # tokenizers write the first token of a text without its space.
        self._context_start = self._read = 0
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Take one token; return what can be shown now, often nothing."""
        self._tokens.append(token)
        new_text = self._new_text()
        if new_text.endswith(_INCOMPLETE):
            return ""
        self._context_start, self._read = self._read, len(self._tokens)
        return self._show(new_text, final=False)

    def finish(self) -> str:
        """Return what was held back, if no stop text came."""
        return "" if self.stopped else self._show(self._new_text(), final=True)

    def _new_text(self) -> str:
        """Text of the tokens that were not read yet."""
        old = self._decode(self._tokens[self._context_start : self._read])
        return self._decode(self._tokens[self._context_start :])[len(old) :]

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def _show(self, new_text: str, *, final: bool) -> str:
        text = self._held + new_text
        stops = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        self.stopped = bool(stops)
        end = min(stops) if stops else len(text) if final else len(text) - self._doubtful(text)
        piece, self._held = text[:end], text[end:]
        self.text += piece
        return piece

    def _doubtful(self, text: str) -> int:
        """Characters at the end that may be the beginning of a stop text."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for count in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self._stop):
                return count
        return 0


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """Text of one token in the middle of a text, with its space in front; special ones by name."""
    decode: Any = tokenizer.decode
    anchor = int(tokenizer.eos_token_id or 0)  # many tokenizers write the first token without its space
    anchor_text, both = decode([anchor]), decode([anchor, token], clean_up_tokenization_spaces=False)
    return str(both[len(anchor_text) :])
