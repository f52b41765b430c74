"""Overwrites what a computation leaves behind in its kernels' own memory."""

from __future__ import annotations

from antefix import FrozenBase, GenerationRequest
from antefix.generation.engines import open_engine
from antefix.generation.request import Size, tokenize

__all__ = ["scrub"]

_TOKENS = 64


def scrub(base: FrozenBase) -> None:
    """Compute once under nobody's prefix, in the thread that computed under somebody's.

    Matrix products pack their operands into buffers that a thread keeps: the keys that were seen last stay
    there when all that we hold of a prefix is zeros. This takes their place.
    """
    prompt = "a " * _TOKENS
    request = GenerationRequest(prompt=prompt, max_prompt_tokens=_TOKENS, max_new_tokens=3, ignore_eos=True)
    batch = open_engine(base, 1, Size(2 * _TOKENS), streaming=False)
    batch.add(tokenize(base, request))
    while batch.busy:
        batch.step()
