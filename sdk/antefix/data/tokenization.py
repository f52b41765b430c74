"""A user's texts, as rows of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from antefix.common.validation import require
from antefix.data.example import Example
from antefix.errors import ExampleError, TextTooLong
from antefix.model.frozen_base import FrozenBase

_SPECIAL: WeakKeyDictionary[FrozenBase, tuple[list[int], list[int]]] = WeakKeyDictionary()
"""Asked for once: two calls of the tokenizer for each text would be most of what a small base costs."""


@dataclass(frozen=True)
class Row:
    """An example as tokens.

    Attributes:
        inputs: tokens fed to the decoder, `targets` shifted right at their end.
        targets: tokens to predict, at the last `len(targets)` positions of `inputs`.
        source: tokens fed to the encoder; empty for causal models.
        prefix_hidden_until: of the first `inputs`, so many do not see the prefix: an infix.
    """

    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    source: tuple[int, ...] = ()
    prefix_hidden_until: int = 0

    @property
    def tokens(self) -> int:
        """Real tokens computed for this row, encoder and decoder."""
        return len(self.inputs) + len(self.source)

    @property
    def with_infix(self) -> Row:
        """Of its prompt, only the last token sees the prefix: the one from which the completion begins."""
        return replace(self, prefix_hidden_until=len(self.inputs) - len(self.targets))


def encode_user(
    base: FrozenBase, user: str, examples: Iterable[Example], *, length: int, max_prompt_tokens: int | None
) -> list[Row]:
    """All rows of one user, checked.

    Args:
        base: the base they are for.
        user: named in errors; the text never is.
        examples: the user's texts.
        length: prefix positions that share the context with a text.
        max_prompt_tokens: cut prompts to their first tokens.

    Raises:
        ExampleError, TextTooLong, InvalidArgument.
    """
    texts, number = texts_of(user, examples), 0
    try:
        for number, example in enumerate(texts):
            if not example.completion.strip():
                raise ExampleError(f"{_named(number, user)} has an empty completion", "leave it out")
        rows = _encoded(base, texts, max_prompt_tokens)
        for number, row in enumerate(rows):
            _fit(base, row, length, _named(number, user))
    except ExampleError as error:
        error.number = number
        raise
    if not rows:
        who = f"user {user!r} has" if user else "there are"
        raise ExampleError(
            f"{who} no examples", "give at least one" + (", or leave the user out" if user else "")
        )
    return rows


def _named(number: int, user: str) -> str:
    """A text in a message; one list of texts is of nobody's name."""
    return f"example {number} of user {user!r}" if user else f"example {number}"


def texts_of(user: str, examples: object) -> list[Example]:
    """All texts of one user.

    Raises:
        InvalidArgument: no list, or something in it is no Example.
    """
    hint = "write a list of Example(completion=…, prompt=…)"
    require(examples, Iterable, f"examples[{user!r}]" if user else "examples", hint)
    texts = list(examples) if isinstance(examples, Iterable) else []
    for number, example in enumerate(texts):
        require(example, Example, _named(number, user), hint)
    return texts


def encode(base: FrozenBase, example: Example, max_prompt_tokens: int | None) -> Row:
    """Tokens of one example."""
    return _encoded(base, [example], max_prompt_tokens)[0]


def _encoded(base: FrozenBase, examples: Sequence[Example], max_prompt_tokens: int | None) -> list[Row]:
    """All texts in two calls of the tokenizer, each of which costs as much as a few short texts."""
    prompts = _plain(base, [example.prompt for example in examples])
    completions = _plain(base, [example.completion for example in examples])
    end = _end(base)
    return [
        _row(base, _around(base, prompt[:max_prompt_tokens]), (*completion, *end))
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def _row(base: FrozenBase, prompt: list[int], target: tuple[int, ...]) -> Row:
    if base.is_encoder_decoder:
        start = base.model.config.decoder_start_token_id
        return Row((start, *target[:-1]), target, tuple(prompt))
    return Row((*prompt, *target[:-1]), target)


def prompt_tokens(base: FrozenBase, prompt: str, max_tokens: int | None = None) -> list[int]:
    """Tokens of a prompt, never none: the first completion token is predicted from the last of them.

    An encoder gets the tokenizer's own special tokens (BART and T5 expect them). A causal text keeps
    those that the tokenizer puts in front; an empty one starts with BOS, or EOS where there is none.
    """
    return _around(base, _plain(base, [prompt])[0][:max_tokens])


def _around(base: FrozenBase, plain: list[int]) -> list[int]:
    """With what the tokenizer itself puts before and after."""
    before, after = _special(base)
    return [*before, *plain, *(after if base.is_encoder_decoder else ())] or [_start(base)]


def _special(base: FrozenBase) -> tuple[list[int], list[int]]:
    """Special tokens that the tokenizer itself puts before and after a text."""
    found = _SPECIAL.get(base)
    if found is None:
        found = _SPECIAL[base] = _asked_special(base)
    return found


def _asked_special(base: FrozenBase) -> tuple[list[int], list[int]]:
    plain, full = _plain(base, ["a"])[0], list(base.tokenizer("a")["input_ids"])
    for at in range(len(full) - len(plain) + 1):
        if full[at : at + len(plain)] == plain:
            return full[:at], full[at + len(plain) :]
    return [], []


def check_rows_fit(base: FrozenBase, tokens: int, length: int, what: str) -> None:
    """Refuse a text that does not fit the base's context beside a prefix of `length`."""
    if base.context is not None and length >= base.context:
        raise TextTooLong(
            f"a prefix of {length} leaves no room for {what}: the base sees {base.context} tokens in all",
            "use a shorter prefix",
        )
    if base.context is not None and length + tokens > base.context:
        raise TextTooLong(
            f"{what} has {tokens} tokens; with a prefix of {length} the base sees {base.context - length}",
            "shorten the text, or split it into several",
        )


def _fit(base: FrozenBase, row: Row, length: int, what: str) -> None:
    check_rows_fit(base, max(len(row.inputs), len(row.source)), length, what)


def _plain(base: FrozenBase, texts: list[str]) -> list[list[int]]:
    if not any(texts):
        return [[] for _ in texts]
    return [list(one) for one in base.tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _end(base: FrozenBase) -> Sequence[int]:
    end = base.tokenizer.eos_token_id
    return () if end is None else (end,)


def _start(base: FrozenBase) -> int:
    """First token where there is no text: BOS, else EOS, else token 0."""
    for token in (base.tokenizer.bos_token_id, base.tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0
