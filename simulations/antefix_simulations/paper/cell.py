"""One cell of the paper's tables: which method, on what data, how it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from antefix.common.settings import Count, Settings

__all__ = ["QUICK", "Cell", "PaperSettings"]


class PaperSettings(Settings):
    """What all cells of a folder have in common.

    Attributes:
        budget: tokens of training for a cell; steps are as many as they last for.
        batch_size: texts of a step (the paper's default is 5).
        max_passes: over the training texts, however long the budget lasts.
        judging: dev texts that a method is looked at by, at most.
        tests: test inputs that are written and scored, drawn once; of WebNLG half of them unseen.
        beams: hypotheses of the search.
        new_tokens: of a written text at most.
        max_prompt_tokens: inputs are cut to so many.
        samples: of the training texts, where a table averages over samples.
        factors: grid of learning rates, in multiples of each method's middle one. Each is tried for a quarter
            of the budget.
        beyond: further ones, tried outward as long as the best so far is the outermost on its side.
    """

    budget: Count = 150_000
    batch_size: Count = 5
    max_passes: Annotated[float, Field(gt=0)] = 60.0
    judging: Count = 60
    tests: Count = 100
    beams: Count = 5
    new_tokens: Count = 64
    max_prompt_tokens: Count = 320
    samples: Count = 3
    factors: tuple[float, ...] = (0.3, 1.0, 3.0)
    beyond: tuple[float, ...] = (0.01, 0.03, 0.1, 10.0, 30.0, 100.0)


QUICK = PaperSettings(budget=3_000, judging=8, tests=8, beams=2, new_tokens=32, samples=1, beyond=())
"""To see all of it work on little; its figures mean nothing."""


@dataclass(frozen=True)
class Cell:
    """A method, trained once on one sample of a task, and tested.

    Attributes:
        task: name of the data.
        method: one of `antefix_simulations.paper.methods.METHODS`.
        inputs: training texts; 0 for as many as the budget lasts for.
        sample: number of the draw.
        length: positions of a prefix; 0 for methods without one.
        start: where a prefix begins: `examples`, `random`, `zeros`, or words in quotes.
    """

    task: str
    method: str
    inputs: int = 0
    sample: int = 0
    length: int = 0
    start: str = ""

    @property
    def name(self) -> str:
        """By which a result is found again."""
        prefix = f", {self.length} positions from {self.start}" if self.length else ""
        return f"{self.task}: {self.method}{prefix}, {self.inputs or 'all'} texts, sample {self.sample}"
