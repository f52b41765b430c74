"""What is asked of a base, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from antefix.common.settings import Count, Settings
from antefix.common.validation import require, require_text
from antefix.data.tokenization import check_rows_fit, prompt_tokens
from antefix.errors import BaseUnsuitable, InvalidArgument
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Kind
from antefix.prefix.prefix import Prefix

Finish = Literal["stop", "end", "length"]
_ROLES = ("system", "user", "assistant")


class GenerationRequest(Settings):
    """One text to generate, with its own prefix and settings. Private: its `repr` shows no prompt.

    Attributes:
        prompt: what the base reads first; may be empty.
        prefix: whose prefix it reads it under; None for none.
        infix: the prefix was trained with `PrefixSpec(place="infix")`: the prompt does not see it.
        chat: put the prompt into the tokenizer's chat template, as the last turn of the user.
        history: earlier turns of the chat, (role, text) each; roles are `system`, `user`, `assistant`.
        max_new_tokens: tokens at most.
        temperature: 0 takes the most likely token; above (from 1e-6), tokens are drawn, more evenly the
            higher.
        top_k: draw among that many most likely tokens.
        top_p: draw among the most likely tokens that together have this probability.
        seed: of the draws; the same request gives the same text.
        stop: texts that end it; not part of the result.
        num_beams: hypotheses of a beam search; 1 for none.
        max_prompt_tokens: cut the prompt to its first tokens; None for no cut.
        ignore_eos: go on past the end-of-text token, so that lengths compare.
        logprobs: tell how likely each token was, and so many of the most likely ones; None does not.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    prompt: str = Field(repr=False)
    prefix: Prefix | None = None
    infix: bool = False
    chat: bool = False
    history: tuple[tuple[str, str], ...] = Field(default=(), repr=False)
    max_new_tokens: int = Field(default=64, ge=1, le=2**20)
    temperature: float = Field(default=0.0, ge=0)
    top_k: Count | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    stop: tuple[str, ...] = Field(default=(), repr=False)
    num_beams: int = Field(default=1, ge=1, le=1024)
    max_prompt_tokens: Count | None = None
    ignore_eos: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=20)

    @model_validator(mode="before")
    @classmethod
    def _hide(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Check what is private here: the message of a field's own check would quote it."""
        if "prompt" not in values:
            raise ValueError("prompt is missing")
        require_text(values["prompt"], "GenerationRequest.prompt")
        if values.get("prefix") is not None:
            require(values["prefix"], Prefix, "GenerationRequest.prefix")
        stop = values.get("stop", ())
        if not isinstance(stop, tuple | list) or not all(isinstance(text, str) and text for text in stop):
            raise ValueError("stop is not a tuple of texts with at least one character each")
        for text in stop:
            require_text(text, "a text of GenerationRequest.stop")
        _require_turns(values.get("history", ()))
        return values

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if 0 < self.temperature < 1e-6:  # the numbers drawn from would overflow
            raise ValueError(f"temperature is {self.temperature}; use 0, or 1e-6 and more")
        if self.temperature == 0 and (self.top_k is not None or self.top_p is not None):
            raise ValueError("top_k and top_p choose what is drawn from, and temperature 0 draws nothing")
        if self.history and not self.chat:
            raise ValueError("history goes with chat=True")
        if self.num_beams > 1 and (self.temperature > 0 or self.stop or self.logprobs is not None):
            raise ValueError(
                "a beam search draws nothing and ends at no text: leave out temperature, stop and logprobs"
            )
        return self


def _require_turns(history: object) -> None:
    """Checked by hand, since the message of a field's own check would quote a text."""
    whole = isinstance(history, tuple | list) and all(
        isinstance(turn, tuple | list) and len(turn) == 2 and turn[0] in _ROLES for turn in history
    )
    if not whole or not isinstance(history, tuple | list):
        raise ValueError(f"history is not a tuple of (role, text), with a role of {', '.join(_ROLES)}")
    for _, text in history:
        require_text(text, "a text of GenerationRequest.history")


@dataclass(frozen=True)
class TokenLogprob:
    """How likely a token was, before temperature. Private.

    Attributes:
        token: that was chosen.
        logprob: natural logarithm of its probability.
        top: the most likely tokens and theirs, the likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Generated:
    """A generated text. Private.

    Attributes:
        text: without the stop text and without special tokens.
        tokens: all generated tokens, those of a stop text included, the end-of-text token left out.
        finish: `stop` at a stop text, `end` at the end-of-text token, `length` at `max_new_tokens`.
        logprobs: of each of `tokens`, if asked for.
    """

    text: str
    tokens: tuple[int, ...]
    finish: Finish
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Size:
    """Positions that a request may fill: in the decoder's own keys, and in its view of the encoder."""

    decoder: int
    cross: int = 0

    @property
    def rounded(self) -> Size:
        """The next powers of two, 64 at least: a function of this request alone."""
        return Size(_power(self.decoder), _power(self.cross) if self.cross else 0)

    def union(self, other: Size) -> Size:
        """Room for either."""
        return Size(max(self.decoder, other.decoder), max(self.cross, other.cross))


@dataclass(frozen=True)
class TokenizedRequest:
    """A request as tokens, checked against its base.

    Attributes:
        request: as asked.
        inputs: tokens that the decoder reads.
        source: tokens that the encoder reads; empty for causal models.
        stop_token_ids: tokens that end a text.
    """

    request: GenerationRequest
    inputs: tuple[int, ...] = field(repr=False)
    source: tuple[int, ...] = field(repr=False)
    stop_token_ids: frozenset[int]

    def text_start(self, kind: Kind) -> int:
        """Position of the first token in layers of a kind: behind the prefix, if that has such layers."""
        prefix = self.request.prefix
        return prefix.length if prefix is not None and kind in prefix.layout.kinds else 0

    @property
    def length(self) -> int:
        """Positions of the prefix in the decoder."""
        return self.text_start("decoder")

    @property
    def prefix_hidden_until(self) -> int:
        """Of the inputs, so many do not see the prefix."""
        return len(self.inputs) - 1 if self.request.infix else 0

    @property
    def size(self) -> Size:
        """Positions that it may fill."""
        decoder = self.length + len(self.inputs) + self.request.max_new_tokens
        return Size(decoder, self.text_start("cross") + len(self.source) if self.source else 0)


def tokenize(base: FrozenBase, request: GenerationRequest, what: str = "the request") -> TokenizedRequest:
    """Tokens of a request.

    Args:
        base: the base that will answer it.
        request: what is asked.
        what: named in errors; the text never is.

    Raises:
        InvalidArgument: not a request, or `chat` with a base that has no chat template.
        BaseUnsuitable: `chat` with a template that fails.
        PrefixMismatch: a prefix of another base.
        TextTooLong: more than the base can see.
    """
    if not isinstance(request, GenerationRequest):
        raise InvalidArgument(
            f"{what} is a {type(request).__name__}, not a GenerationRequest",
            "write GenerationRequest(prompt=…, prefix=…)",
        )
    if request.prefix is not None:
        request.prefix.require_base(base.fingerprint, base.layout)
    tokens = tuple(_chat_tokens(base, request) if request.chat else _tokens(base, request))
    stop_ids = frozenset[int]() if request.ignore_eos else _stop_token_ids(base)
    new = request.max_new_tokens
    if base.is_encoder_decoder and request.infix:
        raise InvalidArgument(
            "infix=True, and this base is an encoder-decoder", "leave it out, or use a causal base"
        )
    if base.is_encoder_decoder:
        start = int(base.model.config.decoder_start_token_id)
        tokenized, positions = TokenizedRequest(request, (start,), tokens, stop_ids), max(len(tokens), new)
    else:
        tokenized, positions = TokenizedRequest(request, tokens, (), stop_ids), len(tokens) + new
    length = 0 if request.prefix is None else request.prefix.length
    check_rows_fit(base, positions, length, f"{what} with its {new} new tokens")
    return tokenized


def _tokens(base: FrozenBase, request: GenerationRequest) -> list[int]:
    return prompt_tokens(base, request.prompt, request.max_prompt_tokens)


def _chat_tokens(base: FrozenBase, request: GenerationRequest) -> list[int]:
    """Tokens of the turns with the prompt as the last, the base's answer about to begin."""
    tokenizer: Any = base.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        raise InvalidArgument(f"base {base.name!r} has no chat template", "leave out chat=True")
    prompt = request.prompt
    if request.max_prompt_tokens is not None:  # cut inside the template, which must stay whole
        cut = tokenizer(prompt, add_special_tokens=False)["input_ids"][: request.max_prompt_tokens]
        prompt = tokenizer.decode(cut, clean_up_tokenization_spaces=False)
    earlier = [{"role": role, "content": text} for role, text in request.history]
    turns = [*earlier, {"role": "user", "content": prompt}]
    try:
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # the base's makers wrote the template; its complaint may quote the prompt
        raise BaseUnsuitable(
            f"the chat template of base {base.name!r} fails with {type(error).__name__}",
            "leave out chat=True",
        ) from None
    if base.is_encoder_decoder:
        return prompt_tokens(base, text)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) or prompt_tokens(base, "")


def _stop_token_ids(base: FrozenBase) -> frozenset[int]:
    """The tokenizer's end-of-text token, and those that the model's own settings name."""
    eos = getattr(base.model.generation_config, "eos_token_id", None)
    eos = eos if isinstance(eos, list | tuple) else [eos]
    return frozenset(int(token) for token in [base.tokenizer.eos_token_id, *eos] if token is not None)


def banned_tokens(base: FrozenBase) -> list[int]:
    """Tokens that the model's makers forbid (Marian's padding, say)."""
    settings = base.model.generation_config
    words = getattr(settings, "bad_words_ids", None) or []
    single = {word[0] for word in words if len(word) == 1}
    return sorted(single | set(getattr(settings, "suppress_tokens", None) or []))


def _power(positions: int) -> int:
    return max(64, 1 << (positions - 1).bit_length())
