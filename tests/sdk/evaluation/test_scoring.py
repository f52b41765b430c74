"""Scores on several cores."""

from __future__ import annotations

import pytest
import torch

from antefix import Example, score
from tests.support import tiny_models


@pytest.mark.parametrize("threads", [2, 3])
def test_scores_do_not_depend_on_the_number_of_workers(threads: int) -> None:
    base = tiny_models.base("llama")
    words = " ".join(str(number) for number in range(40))
    users = ["ann", "bob", "eve"]
    examples = {
        user: [Example(f"{words} {user} {n}") for n in range(3 + at)] for at, user in enumerate(users)
    }
    alone = score(base, examples)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = score(base, examples)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert list(found) == users
    assert found == alone == {user: score(base, examples[user]) for user in users}


def test_nobody_has_no_scores() -> None:
    assert score(tiny_models.base("llama"), {}) == {}
