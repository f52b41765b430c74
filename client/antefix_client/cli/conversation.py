"""A conversation in the terminal: what was said goes with each prompt, the oldest left out if too long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from antefix.errors import TextTooLong

if TYPE_CHECKING:
    from antefix_client.model import PersonalModel


class Conversation:
    """Turns of user and model, in memory only."""

    def __init__(self, model: PersonalModel, **settings: Any) -> None:
        """Begin one; `settings` as for `generate`."""
        self._model, self._settings = model, settings
        self._said: list[tuple[str, str]] = []

    @property
    def turns(self) -> int:
        """Answers so far."""
        return len(self._said) // 2

    def answer(self, line: str, *, seed: int) -> Iterator[str]:
        """The answer to a line, piece by piece."""
        while True:
            try:
                pieces = self._model.stream(
                    line, chat=True, history=tuple(self._said), seed=seed, **self._settings
                )
                break
            except TextTooLong:
                if not self._said:
                    raise
                del self._said[:2]
        text = ""
        for piece in pieces:
            text += piece
            yield piece
        self._said += [("user", line), ("assistant", text)]
