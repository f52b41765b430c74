"""Callers of hosted inference: OpenAI's API over TLS, streamed, from the bench's own process."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        caller: number of who asks.
        prompt: what is asked. Private elsewhere.
        new_tokens: that come back, end of text or not.
        model: `personal` for the caller's prefix, `base` for none.
        at: seconds after the first, where calls come at times of their own.
    """

    caller: int
    prompt: str = field(repr=False)
    new_tokens: int
    model: str = "personal"
    at: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What came of one call: seconds to the first piece and to the last, tokens, and why it failed."""

    first_s: float
    whole_s: float
    tokens: int
    error: str = ""


@dataclass(frozen=True)
class Load:
    """What came of many calls.

    Attributes:
        outcomes: in the order of the calls that were asked.
        seconds: from the first call to the last answer.
    """

    outcomes: list[Outcome]
    seconds: float

    @property
    def rate(self) -> float:
        """New tokens per second."""
        return sum(outcome.tokens for outcome in self.outcomes) / self.seconds

    @property
    def errors(self) -> list[str]:
        """Why calls failed."""
        return [outcome.error for outcome in self.outcomes if outcome.error]


def load(url: str, authority: Path, tokens: Sequence[str], calls: Sequence[Call], *, timed: bool) -> Load:
    """Make calls.

    Args:
        url: of the gateway.
        authority: certificate that signed its own.
        tokens: of the callers, by their numbers.
        calls: to make.
        timed: each at its own time, whoever still waits; else each caller's calls one after another.
    """
    return asyncio.run(_load(url, authority, tokens, calls, timed))


def arrivals(calls: Sequence[Call], per_second: float, seed: int = 0) -> list[Call]:
    """The same calls at random times (Poisson), the same ones for the same seed."""
    dice, at, timed = random.Random(seed), 0.0, []
    for call in calls:
        at += dice.expovariate(per_second)
        timed.append(replace(call, at=at))
    return timed


async def _load(url: str, authority: Path, tokens: Sequence[str], calls: Sequence[Call], timed: bool) -> Load:
    verify = ssl.create_default_context(cafile=str(authority))
    async with AsyncExitStack() as stack:
        clients = {}
        for number in {call.caller for call in calls}:
            headers = {"Authorization": f"Bearer {tokens[number]}"}
            client = httpx.AsyncClient(
                base_url=url, verify=verify, headers=headers, timeout=_TIMEOUT_S, trust_env=False
            )
            clients[number] = await stack.enter_async_context(client)
        begun = time.perf_counter()
        if timed:
            working = [_later(clients[call.caller], call, begun) for call in calls]
            outcomes = await asyncio.gather(*working)
        else:
            each: dict[int, list[Call]] = defaultdict(list)
            for call in calls:
                each[call.caller].append(call)
            parts = await asyncio.gather(*(_in_turn(clients[caller], mine) for caller, mine in each.items()))
            outcomes = [outcome for part in parts for outcome in part]
        return Load(list(outcomes), time.perf_counter() - begun)


async def _in_turn(client: httpx.AsyncClient, calls: Sequence[Call]) -> list[Outcome]:
    return [await _ask(client, call) for call in calls]


async def _later(client: httpx.AsyncClient, call: Call, begun: float) -> Outcome:
    await asyncio.sleep(max(0.0, begun + call.at - time.perf_counter()))
    return await _ask(client, call)


async def _ask(client: httpx.AsyncClient, call: Call) -> Outcome:
    body = {
        "model": call.model,
        "prompt": call.prompt,
        "max_tokens": call.new_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begun, first, tokens, error = time.perf_counter(), 0.0, 0, ""
    try:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                return Outcome(0.0, time.perf_counter() - begun, 0, f"status {answer.status_code}")
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                first = first or time.perf_counter() - begun
                event = json.loads(line[len("data: ") :])
                error = event.get("error", {}).get("type", error)
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    except httpx.HTTPError as failed:
        error = type(failed).__name__
    return Outcome(first, time.perf_counter() - begun, tokens, error)
