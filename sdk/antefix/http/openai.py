"""Requests and answers in the form of OpenAI's API, as far as a personal model has an answer for them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from antefix.generation.request import Generated, TokenLogprob

_DEFAULT_MAX_TOKENS = 256


class _RequestBody(BaseModel):
    """What both kinds have in common. Fields that would have no effect are refused unless neutral.

    Attributes:
        model: whatever the caller names; there is one.
        max_tokens: new tokens at most.
        n: answers; one only.
        ignore_eos: go on past the end of the text, so that lengths compare; not OpenAI's, but vLLM's.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model: str = ""
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: str | list[str] | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stream: bool = False
    stream_options: dict[str, bool] | None = None
    n: Literal[1] = 1
    ignore_eos: bool = False
    user: str | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Keywords of a `GenerationRequest`."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        values: dict[str, Any] = {
            "max_new_tokens": self.max_tokens or _DEFAULT_MAX_TOKENS,
            "temperature": self.temperature,
            "stop": tuple(stop),
            "ignore_eos": self.ignore_eos,
            "seed": uuid.uuid4().int % 2**63 if self.seed is None else self.seed,
        }
        if self.temperature > 0 and self.top_p < 1:
            values["top_p"] = self.top_p
        return values

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return bool((self.stream_options or {}).get("include_usage"))


class CompletionRequest(_RequestBody):
    """Body of `POST /v1/completions`."""

    prompt: str
    echo: Literal[False] = False
    logprobs: int | None = Field(default=None, ge=0, le=5)
    best_of: Literal[1] = 1

    @property
    def settings(self) -> dict[str, Any]:
        """Keywords of a `GenerationRequest`."""
        return {**super().settings, "logprobs": self.logprobs}


class Message(BaseModel):
    """One turn."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str
    name: str | None = None


class ChatCompletionRequest(_RequestBody):
    """Body of `POST /v1/chat/completions`; the last turn is the user's."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: dict[Literal["type"], Literal["text"]] | None = None

    @model_validator(mode="after")
    def _agree(self) -> ChatCompletionRequest:
        if self.messages[-1].role != "user":
            raise ValueError("the last message is not of the user")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs: true")
        self.max_tokens = self.max_completion_tokens or self.max_tokens
        return self

    @property
    def prompt(self) -> str:
        """The last turn."""
        return self.messages[-1].content

    @property
    def settings(self) -> dict[str, Any]:
        """Keywords of a `GenerationRequest`."""
        roles = {"developer": "system"}
        history = tuple((roles.get(turn.role, turn.role), turn.content) for turn in self.messages[:-1])
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return {**super().settings, "chat": True, "history": history, "logprobs": logprobs}


@dataclass
class ResponseBuilder:
    """Puts one answer into OpenAI's form.

    Attributes:
        chat: which of the two forms.
        model: name to answer under.
        prompt_tokens: tokens that were read.
        word: text of a token; None where logprobs were not asked for.
    """

    chat: bool
    model: str
    prompt_tokens: int
    word: Callable[[int], str] | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))
    _offset: int = 0

    def response(self, generated: Generated) -> dict[str, Any]:
        """All at once."""
        choice = self._choice(generated.finish, generated.logprobs)
        if self.chat:
            choice["message"] = {"role": "assistant", "content": generated.text}
        else:
            choice["text"] = generated.text
        return {**self._head(""), "choices": [choice], "usage": self.usage(len(generated.tokens))}

    def chunk(
        self, text: str, finish: str | None, logprobs: Sequence[TokenLogprob] = (), *, first: bool = False
    ) -> dict[str, Any]:
        """A part of a stream; the last one has the reason why it ended."""
        choice = self._choice(finish, logprobs)
        if self.chat:
            delta = {"content": text} if text else {}
            choice["delta"] = {"role": "assistant", **delta} if first else delta
        else:
            choice["text"] = text
        return {**self._head(".chunk"), "choices": [choice]}

    def usage_chunk(self, tokens: int) -> dict[str, Any]:
        """The last part of a stream that was asked to count."""
        return {**self._head(".chunk"), "choices": [], "usage": self.usage(tokens)}

    def usage(self, tokens: int) -> dict[str, int]:
        """Tokens read and written."""
        read = self.prompt_tokens
        return {"prompt_tokens": read, "completion_tokens": tokens, "total_tokens": read + tokens}

    def _choice(self, finish: str | None, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        reason = None if finish is None else _reason(finish)
        return {"index": 0, "finish_reason": reason, "logprobs": self._logprobs(logprobs)}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        word = self.word
        if word is None:
            return None
        if self.chat:
            content = [
                {
                    **_token_logprob(word, entry.token, entry.logprob),
                    "top_logprobs": [_token_logprob(word, *top) for top in entry.top],
                }
                for entry in logprobs
            ]
            return {"content": content, "refusal": None}
        words, offsets = [word(entry.token) for entry in logprobs], []
        for text in words:
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "tokens": words,
            "token_logprobs": [_finite(entry.logprob) for entry in logprobs],
            "top_logprobs": [
                {word(token): _finite(value) for token, value in entry.top} for entry in logprobs
            ],
            "text_offset": offsets,
        }

    def _head(self, part: str) -> dict[str, Any]:
        kind = f"chat.completion{part}" if self.chat else "text_completion"
        prefix = "chatcmpl-" if self.chat else "cmpl-"
        return {"id": prefix + self.id, "object": kind, "created": self.created, "model": self.model}


class EventWriter:
    """Writes the server-sent events of one streamed answer, as text to send at once."""

    def __init__(self, builder: ResponseBuilder, *, with_usage: bool) -> None:
        """Begin; `with_usage` ends the stream with the counts of tokens."""
        self._builder, self._with_usage = builder, with_usage
        self.begun = False

    def chunk(self, text: str, logprobs: Sequence[TokenLogprob] = (), finish: str | None = None) -> str:
        """A part of the text; the first part of a chat names the role."""
        content = self._builder.chunk(text, finish, logprobs, first=not self.begun)
        self.begun = True
        return _event(content)

    def end(self, generated: Generated | None, logprobs: Sequence[TokenLogprob] = ()) -> Iterator[str]:
        """Why the text ended, the counts where asked for, and the end; the end alone of what was cut off."""
        if generated is not None:
            yield self.chunk("", logprobs, generated.finish)
            if self._with_usage:
                yield _event(self._builder.usage_chunk(len(generated.tokens)))
        yield "data: [DONE]\n\n"

    @staticmethod
    def error(error: Exception, message: str) -> str:
        """What a stream says that fails after its begin, when the status has been sent."""
        return _event({"error": {"type": type(error).__name__, "message": message}})


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _token_logprob(word: Callable[[int], str], token: int, logprob: float) -> dict[str, Any]:
    text = word(token)
    return {"token": text, "logprob": _finite(logprob), "bytes": list(text.encode())}


def _finite(logprob: float) -> float:
    """JSON has neither infinity nor NaN; OpenAI's own answer for what cannot come."""
    return logprob if logprob > -9999.0 else -9999.0  # not max(), which gives NaN back


def _reason(finish: str) -> str:
    return "length" if finish == "length" else "stop"
