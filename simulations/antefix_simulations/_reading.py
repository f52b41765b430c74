"""Scores on all cores of a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from antefix import Example, FrozenBase, Prefix, score


def read(
    base: FrozenBase, examples: Mapping[str, Sequence[Example]], prefixes: Mapping[str, Prefix] | None
) -> dict[str, float]:
    """What `score` gives, to the last bit, from as many calls at once as there are cores, one thread each.

    Two threads in one call wait for each other hundreds of times per text, which on a busy machine is most
    of the time.
    """
    threads = torch.get_num_threads()
    count = min(threads, len(examples)) if base.device.type == "cpu" else 1
    if count == 1:
        return score(base, examples, prefixes)
    names = list(examples)
    parts = [{name: examples[name] for name in names[at::count]} for at in range(count)]
    try:
        with ThreadPoolExecutor(count, "antefix-read", torch.set_num_threads, (1,)) as pool:
            losses: dict[str, float] = {}
            for found in pool.map(lambda part: score(base, part, prefixes), parts):
                losses |= found
    finally:
        torch.set_num_threads(threads)
    return {name: losses[name] for name in names}
