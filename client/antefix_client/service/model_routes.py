"""The operations of a personal model, for programs on the same device that talk to the service."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Literal, cast

from anyio import CapacityLimiter, to_thread
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from antefix.data.example import Example
from antefix.records.header import RECORD_LIMIT
from antefix_client.inference.export import export_content
from antefix_client.learning.budget import Budget
from antefix_client.model import PersonalModel
from antefix_client.profile.version_history import Version
from antefix_client.service.http import read_body, read_content

API = "/antefix/v1"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Text(_Body):
    completion: str
    prompt: str = ""


class _Texts(_Body):
    texts: list[str | _Text]


class _Numbers(_Body):
    numbers: list[int]


class _Number(_Body):
    number: int | str | None = None


class ModelRoutes:
    """What `PersonalModel` does, as routes. Whatever takes time runs in threads."""

    def __init__(self, model: PersonalModel) -> None:
        """Take an open model; its owner closes it."""
        self._model = model
        # One thread of its own: whoever waits to learn must not take those that answer everybody else.
        self._learning = CapacityLimiter(1)

    @property
    def routes(self) -> list[Route]:
        """All of them; who reads has GET, who changes something has POST."""
        reading = (self.status, self.versions, self.texts, self.export)
        changing = (
            self.remember,
            self.remove_texts,
            self.learn,
            self.score,
            self.roll_back,
            self.receive,
            self.forget,
        )
        return [
            *(Route(f"{API}/{handler.__name__}", handler) for handler in reading),
            *(Route(f"{API}/{handler.__name__}", handler, methods=["POST"]) for handler in changing),
        ]

    async def status(self, request: Request) -> Response:
        """The profile at a glance."""
        facts = asdict(await run_in_threadpool(self._model.status))
        return JSONResponse({**facts, "folder": str(facts["folder"])})

    async def versions(self, request: Request) -> Response:
        """What was learned."""
        versions = await run_in_threadpool(self._model.versions)
        return JSONResponse([_facts(version) for version in versions])

    async def texts(self, request: Request) -> Response:
        """What is remembered, by number."""
        texts = await run_in_threadpool(self._model.texts)
        rows = [
            {"number": number, "prompt": text.prompt, "completion": text.completion}
            for number, text in texts.items()
        ]
        return JSONResponse(rows)

    async def export(self, request: Request) -> Response:
        """A prefix, the sealed record of the version in use, or the texts: `?what=`."""
        what = cast(Literal["prefix"], request.query_params.get("what", "prefix"))
        content = await run_in_threadpool(export_content, self._model.runtime, what)
        return Response(content, media_type="application/octet-stream")

    async def remember(self, request: Request) -> Response:
        """Keep texts."""
        body = await read_body(request, _Texts)
        return JSONResponse({"new": await run_in_threadpool(self._model.remember, _examples(body))})

    async def remove_texts(self, request: Request) -> Response:
        """Forget some texts."""
        body = await read_body(request, _Numbers)
        return JSONResponse({"removed": await run_in_threadpool(self._model.remove_texts, body.numbers)})

    async def learn(self, request: Request) -> Response:
        """Train a new version; answers when it is done."""
        body = await read_body(request, Budget)
        report = await to_thread.run_sync(
            lambda: self._model.learn(budget=body, progress=False), limiter=self._learning
        )
        return JSONResponse({**_finite(asdict(report)), "said": str(report)})

    async def score(self, request: Request) -> Response:
        """How well texts are predicted."""
        body = await read_body(request, _Texts)
        loss = await run_in_threadpool(self._model.score, _examples(body))
        return JSONResponse({"nats_per_token": loss})

    async def roll_back(self, request: Request) -> Response:
        """Use an older version again."""
        body = await read_body(request, _Number)
        return JSONResponse(_facts(await run_in_threadpool(self._model.roll_back, body.number)))

    async def receive(self, request: Request) -> Response:
        """Keep a version of another device; the body is its sealed record."""
        record = await read_content(request, RECORD_LIMIT, "no record is as large")
        return JSONResponse(_facts(await run_in_threadpool(self._model.receive, record)))

    async def forget(self, request: Request) -> Response:
        """Destroy the profile; from then on there is nothing to answer with."""
        await read_body(request, _Body)
        await run_in_threadpool(self._model.forget)
        return JSONResponse({"forgotten": True})


def _facts(version: Version) -> Any:
    return json.loads(version.model_dump_json())


def _examples(body: _Texts) -> list[str | Example]:
    return [text if isinstance(text, str) else Example(text.completion, text.prompt) for text in body.texts]


def _finite(facts: dict[str, Any]) -> dict[str, Any]:
    """NaN is no JSON."""
    return {name: None if value != value else value for name, value in facts.items()}
