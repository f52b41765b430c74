"""A decoding engine is one class and one line: everything that generates reaches it by its name."""

from collections.abc import Callable

import pytest
from torch import Tensor

from antefix import FrozenBase
from antefix.errors import InvalidArgument
from antefix.generation.engines import ENGINES, open_engine
from antefix.generation.generate import generate
from antefix.generation.interface import DecodingEngine, StepOutput
from antefix.generation.request import Generated, GenerationRequest, Size, TokenizedRequest
from tests.support import tiny_models


class Echo:
    """Gives every request its own tokens back, one a step."""

    def __init__(
        self, base: FrozenBase, rows: int, size: Size, *, exact: bool = False, streaming: bool = True
    ) -> None:
        if exact:
            raise InvalidArgument("the echo is not exact", "leave out exact=True")
        self.on_logits: Callable[[int, Tensor], None] | None = None
        self.free, self.capacity = rows, size
        self._base, self._requests, self._last_id = base, dict[int, list[int]](), 0
        self._given: dict[int, list[int]] = {}

    @property
    def busy(self) -> bool:
        return bool(self._requests)

    def add(self, request: TokenizedRequest) -> int:
        self.free -= 1
        self._last_id += 1
        self._requests[self._last_id] = list(request.inputs[: request.request.max_new_tokens])
        self._given[self._last_id] = []
        return self._last_id

    def step(self) -> list[StepOutput]:
        return [self._next(request_id) for request_id in list(self._requests)]

    def _next(self, request_id: int) -> StepOutput:
        tokens, given = self._requests[request_id], self._given[request_id]
        given.append(tokens.pop(0))
        text = str(self._base.tokenizer.decode(given[-1:]))
        if tokens:
            return StepOutput(request_id, text, None)
        self.cancel(request_id)
        whole = str(self._base.tokenizer.decode(given))
        return StepOutput(request_id, text, Generated(whole, tuple(given), "length"))

    def cancel(self, request_id: int) -> bool:
        self.free += 1
        return self._requests.pop(request_id, None) is not None


def test_a_second_engine_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "echo", Echo)
    base = tiny_models.base("llama")
    requests = [GenerationRequest(prompt=text, max_new_tokens=4) for text in ("roof", "tile", "an antefix")]
    pieces: dict[int, str] = {}
    results = generate(
        base,
        requests,
        max_rows=2,
        engine="echo",
        on_token=lambda number, text: pieces.update({number: pieces.get(number, "") + text}),
    )
    wanted = [tuple(base.tokenizer(request.prompt)["input_ids"][:4]) for request in requests]
    assert [result.tokens for result in results] == wanted
    assert [pieces[number] for number in range(3)] == [result.text for result in results]


def test_an_engine_that_is_not_exact_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "echo", Echo)
    with pytest.raises(InvalidArgument, match="not exact"):
        generate(tiny_models.base("llama"), [GenerationRequest(prompt="An")], exact=True, engine="echo")


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match=r"no decoding engine 'vulkan'.*use one of torch"):
        open_engine(tiny_models.base("llama"), 1, Size(64), engine="vulkan")


def test_the_engine_without_a_name_is_the_batch_on_torch() -> None:
    engine: DecodingEngine = open_engine(tiny_models.base("llama"), 3, Size(64))
    assert (engine.free, engine.busy, engine.step(), engine.cancel(1)) == (3, False, [], False)
    assert engine.capacity.decoder >= 64
