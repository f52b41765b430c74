"""One training text of a user. Imports no torch: whoever only keeps texts needs none."""

from __future__ import annotations

from dataclasses import dataclass

from antefix.common.validation import require_text


@dataclass(frozen=True, repr=False)
class Example:
    """One training text of a user. Private: its `repr` shows lengths.

    The model sees prompt and completion joined exactly as they are: end the prompt with a newline or a
    space where one belongs. The loss counts the completion and the end-of-text token after it.

    Attributes:
        completion: what the user wrote.
        prompt: what it answers; may be empty.

    Raises:
        InvalidArgument: a field that is no text.
    """

    completion: str
    prompt: str = ""

    def __post_init__(self) -> None:
        """Refuse what no tokenizer takes, where it is written down."""
        require_text(self.completion, "Example.completion")
        require_text(self.prompt, "Example.prompt")

    def __repr__(self) -> str:
        """Lengths; tracebacks and logs show it."""
        return f"Example(completion: {len(self.completion)} characters, prompt: {len(self.prompt)})"
