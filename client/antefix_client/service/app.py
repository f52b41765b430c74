"""The resident service: a personal model, unlocked once, for the applications of its user on this device.

It listens on a Unix socket that its user alone can open, or on loopback for who has the token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from antefix.errors import AntefixError
from antefix.http.openai import ChatCompletionRequest, CompletionRequest, EventWriter, ResponseBuilder
from antefix_client.model import PersonalModel
from antefix_client.service.http import BodyRefused, Guard, error_response, handle_error, read_body
from antefix_client.service.model_routes import ModelRoutes

if TYPE_CHECKING:
    from antefix.generation.interface import StepOutput


class Service:
    """Answers for one model, in OpenAI's form and in our own. Whatever takes time runs in threads."""

    def __init__(self, model: PersonalModel, more: Sequence[Route] = ()) -> None:
        """Take an open model, which its owner closes, and routes of others."""
        self._model, self._more = model, more

    def application(self, token: str | None) -> ASGIApp:
        """The routes; with a token, for who has it alone."""
        routes = [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            *ModelRoutes(self._model).routes,
            *self._more,
        ]
        handlers = {AntefixError: handle_error, BodyRefused: handle_error}
        return Guard(Starlette(routes=routes, exception_handlers=handlers), token)

    async def health(self, request: Request) -> Response:
        """Whether it is there."""
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """The one model, in OpenAI's form."""
        one = {"id": "personal", "object": "model", "created": 0, "owned_by": "antefix"}
        return JSONResponse({"object": "list", "data": [one]})

    async def completions(self, request: Request) -> Response:
        """What follows a prompt."""
        return await self._answer(await read_body(request, CompletionRequest))

    async def chat(self, request: Request) -> Response:
        """The next turn of a conversation."""
        return await self._answer(await read_body(request, ChatCompletionRequest))

    async def _answer(self, asked: CompletionRequest | ChatCompletionRequest) -> Response:
        stream = self._model.runtime.stream
        prompt_tokens, pieces = await run_in_threadpool(stream, asked.prompt, asked.settings)
        answer = ResponseBuilder(
            isinstance(asked, ChatCompletionRequest),
            asked.model or "personal",
            prompt_tokens,
            self._word(asked),
        )
        if asked.stream:
            events = _events(EventWriter(answer, with_usage=asked.with_usage), pieces)
            return StreamingResponse(iterate_in_threadpool(events), media_type="text/event-stream")
        done = (await run_in_threadpool(list, pieces))[-1].result
        if done is None:  # a running batch ends with a result
            return error_response(500, "the text broke off", "ask again")
        return JSONResponse(answer.response(done))

    def _word(self, asked: CompletionRequest | ChatCompletionRequest) -> Callable[[int], str] | None:
        """Gives texts of tokens to an answer that tells of them."""
        if asked.settings["logprobs"] is None:
            return None
        from antefix.generation.detokenizer import token_text

        return partial(token_text, self._model.base.tokenizer)


def _events(writer: EventWriter, outputs: Iterator[StepOutput]) -> Iterator[str]:
    """Server-sent events of one stream."""
    result = None
    for output in outputs:
        result = output.result
        if output.text or output.logprobs or not writer.begun:
            yield writer.chunk(output.text, output.logprobs)
    yield from writer.end(result)
