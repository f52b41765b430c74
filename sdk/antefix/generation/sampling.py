"""The next token of each row, from that row's logits and seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from antefix.generation.request import GenerationRequest, TokenLogprob

_FIRST_LOOK = 1024  # most likely tokens that nearly always hold `top_p`; sorting all takes 10 times as long


class Sampler:
    """Draws the tokens of one row, one random number each."""

    def __init__(self, request: GenerationRequest) -> None:
        self._temperature = request.temperature
        self._top_k, self._top_p = request.top_k, request.top_p
        self._generator = torch.Generator().manual_seed(request.seed)

    def draw(self, logits: Tensor) -> int:
        """Token of logits [vocabulary], fp32."""
        draw = torch.rand((), generator=self._generator, dtype=torch.float64).item()
        weights, tokens = self._candidates(logits / self._temperature)
        cumulative = weights.double().cumsum(0)
        place = int(torch.searchsorted(cumulative, cumulative[-1] * draw, right=True))
        place = min(place, len(weights) - 1)  # beyond the end only by rounding, or if all is NaN
        return place if tokens is None else int(tokens[place])

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Probabilities of the tokens to draw from, most likely first; None for all, in their order."""
        if self._top_k is None and self._top_p is None:
            return logits.softmax(0), None
        if self._top_k is not None:
            best, tokens = logits.topk(min(self._top_k, len(logits)))
            weights = best.softmax(0)
        else:
            best, tokens = logits.topk(min(_FIRST_LOOK, len(logits)))
            weights = (best - logits.logsumexp(0)).exp()
            if not weights.sum() >= (self._top_p or 1.0):
                best, tokens = logits.sort(descending=True, stable=True)
                weights = best.softmax(0)
        if self._top_p is not None:
            preceding = weights.double().cumsum(0) - weights  # probability of all likelier tokens
            count = max(1, int((preceding < self._top_p).sum()))
            weights, tokens = weights[:count], tokens[:count]
        return weights, tokens


def sampler_of(request: GenerationRequest) -> Sampler | None:
    """The row's sampler; None takes the most likely token."""
    return Sampler(request) if request.temperature > 0 else None


def logprob_of(logits: Tensor, token: int, top: int) -> TokenLogprob:
    """How likely a token was by logits [vocabulary], fp32, and the `top` most likely ones."""
    logprobs = logits.log_softmax(0)
    best = logprobs.topk(min(top, len(logits)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return TokenLogprob(token, float(logprobs[token]), tuple(pairs))


def choose(logits: Tensor, samplers: Sequence[Sampler | None]) -> list[int]:
    """One token per row of logits [rows, vocabulary], fp32."""
    tokens: list[int] = logits.max(-1).indices.tolist()  # on a CPU a third of argmax's time
    for number, sampler in enumerate(samplers):
        if sampler is not None:
            tokens[number] = sampler.draw(logits[number])
    return tokens
