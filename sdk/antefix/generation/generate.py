"""Generates texts for many users at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from antefix.common.malloc import retain_large_blocks
from antefix.common.progress import ProgressBar
from antefix.common.validation import require
from antefix.errors import InvalidArgument, OutOfMemory
from antefix.generation.beam_search import beam_search, group_key
from antefix.generation.engines import open_engine
from antefix.generation.request import Generated, GenerationRequest, Size, TokenizedRequest, tokenize
from antefix.model.frozen_base import FrozenBase

Done = Callable[[int, str, Generated | None], None]


def generate(
    base: FrozenBase,
    requests: Sequence[GenerationRequest],
    *,
    max_rows: int = 64,
    exact: bool = False,
    on_token: Callable[[int, str], None] | None = None,
    progress: bool = False,
    engine: str = "torch",
) -> list[Generated]:
    """Generate a text for each request, many at a time, each under its own prefix or none.

    Args:
        base: the frozen base.
        requests: what to generate, for any users.
        max_rows: rows that run together. A row costs `2 * layers * kv_heads * head_dim` numbers per
            position (46 KB in SmolLM2), reserved for the longest request.
        exact: promise that tokens and logits are a function of a request, `max_rows`, the machine and the
            library versions alone, bit for bit: not of the other requests. Always computes `max_rows`
            rows, so it is slow for few requests.
        on_token: called with a request's number and its next piece of text, as soon as there is one. The
            pieces of a request add up to its text. A beam search gives one piece at its end.
        progress: show a bar on stderr.
        engine: decoding engine that computes all but beam searches.

    Returns:
        One result per request, in their order.

    Raises:
        InvalidArgument, PrefixMismatch, TextTooLong: before anything is generated.
        OutOfMemory: of the device.
    """
    require(base, FrozenBase, "base")
    if isinstance(requests, GenerationRequest):
        raise InvalidArgument("requests is one GenerationRequest", "put it in a list")
    require(requests, Iterable, "requests", "give a list of GenerationRequest(prompt=…, prefix=…)")
    require(max_rows, int, "max_rows")
    if max_rows < 1:
        raise InvalidArgument(f"max_rows is {max_rows}", "use 1 or more")
    if max_rows > 2**31:
        raise InvalidArgument("max_rows is above 2,147,483,648", "use as many as there is memory for")
    prepared = [tokenize(base, request, f"request {n}") for n, request in enumerate(requests)]
    results: dict[int, Generated] = {}
    with ProgressBar(total=len(prepared), desc="generating", unit="text", disable=not progress) as bar:

        def done(number: int, text: str, result: Generated | None) -> None:
            if text and on_token is not None:
                on_token(number, text)
            if result is not None:
                results[number] = result
                bar.update()

        with retain_large_blocks(), _explain_out_of_memory(base, max_rows):
            run(base, prepared, max_rows, exact, done, streaming=on_token is not None, engine=engine)
    return [results[number] for number in range(len(prepared))]


@contextmanager
def _explain_out_of_memory(base: FrozenBase, rows: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise OutOfMemory(
            f"{base.device} has no memory left for {rows} rows at once", "use a lower max_rows"
        ) from None


def run(
    base: FrozenBase,
    prepared: Sequence[TokenizedRequest],
    max_rows: int,
    exact: bool,
    done: Done,
    *,
    streaming: bool = False,
    on_logits: Callable[[int, Tensor], None] | None = None,
    engine: str = "torch",
) -> None:
    """Run all requests; `done` gets number, piece of text, and the result with the last piece.

    `on_logits` gets number and logits of every token, for tests.
    """
    groups: dict[Size | None, list[int]] = {}
    for number, request in enumerate(prepared):
        if request.request.num_beams == 1:
            groups.setdefault(request.size.rounded if exact else None, []).append(number)
    for numbers in groups.values():
        size = Size(0)
        for number in numbers:
            size = size.union(prepared[number].size)
        rows = max_rows if exact else min(max_rows, len(numbers))
        decoder = open_engine(base, rows, size, exact=exact, streaming=streaming, engine=engine)
        numbers_of: dict[int, int] = {}
        if on_logits is not None:
            decoder.on_logits = lambda request_id, logits, of=numbers_of: on_logits(of[request_id], logits)
        waiting = deque(numbers)
        while waiting or decoder.busy:
            while waiting and decoder.free:
                number = waiting.popleft()
                numbers_of[decoder.add(prepared[number])] = number
            for output in decoder.step():
                done(numbers_of[output.request_id], output.text, output.result)
    _search_all(base, prepared, 1 if exact else max_rows, done)


def _search_all(base: FrozenBase, prepared: Sequence[TokenizedRequest], max_rows: int, done: Done) -> None:
    """All beam searches among the requests, those of one `group_key` together; a hypothesis is a row."""
    groups: dict[Hashable, list[int]] = {}
    for number, request in enumerate(prepared):
        if request.request.num_beams > 1:
            groups.setdefault(group_key(base, request), []).append(number)
    for numbers in groups.values():
        numbers.sort(key=lambda number: len(prepared[number].inputs))
        each = max(1, max_rows // prepared[numbers[0]].request.num_beams)
        for at in range(0, len(numbers), each):
            part = numbers[at : at + each]
            results = beam_search(base, [prepared[number] for number in part])
            for number, result in zip(part, results, strict=True):
                done(number, result.text, result)
