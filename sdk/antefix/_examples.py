"""A user's texts, as rows of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from antefix._arguments import require
from antefix._base import FrozenBase
from antefix._example import Example
from antefix.errors import EmptyText, NoExamples, TextTooLong


@dataclass(frozen=True)
class Row:
    """An example as tokens.

    Attributes:
        inputs: tokens fed to the decoder, `targets` shifted right at their end.
        targets: tokens to predict, at the last `len(targets)` positions of `inputs`.
        source: tokens fed to the encoder; empty for causal models.
    """

    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    source: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Real tokens computed for this row, encoder and decoder."""
        return len(self.inputs) + len(self.source)


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
        NoExamples, EmptyText, TextTooLong, InvalidArgument.
    """
    rows = []
    for number, example in enumerate(texts_of(user, examples)):
        if not example.completion.strip():
            raise EmptyText(f"example {number} of user {user!r} has an empty completion", "leave it out")
        row = encode(base, example, max_prompt_tokens)
        _fit(base, row, length, f"example {number} of user {user!r}")
        rows.append(row)
    if not rows:
        raise NoExamples(f"user {user!r} has no examples", "give at least one, or leave the user out")
    return rows


def texts_of(user: str, examples: object) -> list[Example]:
    """All texts of one user.

    Raises:
        InvalidArgument: no list, or something in it is no Example.
    """
    hint = "write a list of Example(completion=…, prompt=…)"
    require(examples, Iterable, f"examples[{user!r}]", hint)
    found = list(examples) if isinstance(examples, Iterable) else []
    for number, example in enumerate(found):
        require(example, Example, f"example {number} of user {user!r}", hint)
    return found


def encode(base: FrozenBase, example: Example, max_prompt_tokens: int | None) -> Row:
    """Tokens of one example."""
    prompt = prompt_tokens(base, example.prompt, max_prompt_tokens)
    target = [*_plain(base, example.completion), *_end(base)]
    if base.is_encoder_decoder:
        start = base.model.config.decoder_start_token_id
        return Row((start, *target[:-1]), tuple(target), tuple(prompt))
    text = [*prompt, *target]
    return Row(tuple(text[:-1]), tuple(target))


def prompt_tokens(base: FrozenBase, prompt: str, max_tokens: int | None = None) -> list[int]:
    """Tokens of a prompt, never none: the first completion token is predicted from the last of them.

    An encoder gets the tokenizer's own special tokens (BART and T5 expect them). A causal text keeps
    those that the tokenizer puts in front; an empty one starts with BOS, or EOS where there is none.
    """
    before, after = _special(base)
    tokens = [*before, *_plain(base, prompt)[:max_tokens], *(after if base.is_encoder_decoder else ())]
    return tokens or [_start(base)]


def _special(base: FrozenBase) -> tuple[list[int], list[int]]:
    """Special tokens that the tokenizer itself puts before and after a text."""
    plain, full = _plain(base, "a"), list(base.tokenizer("a")["input_ids"])
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
            "shorten or split the text, or set max_prompt_tokens",
        )


def _fit(base: FrozenBase, row: Row, length: int, what: str) -> None:
    check_rows_fit(base, max(len(row.inputs), len(row.source)), length, what)


def _plain(base: FrozenBase, text: str) -> list[int]:
    return list(base.tokenizer(text, add_special_tokens=False)["input_ids"])


def _end(base: FrozenBase) -> Sequence[int]:
    end = base.tokenizer.eos_token_id
    return () if end is None else (end,)


def _start(base: FrozenBase) -> int:
    """First token where there is no text: BOS, else EOS, else token 0."""
    for token in (base.tokenizer.bos_token_id, base.tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0
