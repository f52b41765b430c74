"""The paper's tables: which cells each is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from antefix import FrozenBase
from antefix_simulations.paper.cell import Cell, PaperSettings
from antefix_simulations.paper.results import plots, published, tables
from antefix_simulations.paper.results.published import WORDS
from antefix_simulations.paper.results.table import Table

__all__ = ["STUDIES", "Study"]

Cells = dict[str, list[Cell]]
"""By label of row."""

_LENGTH = 10  # the best in table to text (figure 4)
_FEW_LENGTH = 6  # section 6.3
_FEW = (50, 100, 200, 500)
_START = '"table-to-text:"'
_CAUSAL = ("in context", "embedding-only", "infix")
_METHODS = ("nothing", "in context", "fine-tuning", "top 2 layers", "adapters 3 %", "adapters 0.1 %", "LoRA")


@dataclass(frozen=True)
class Study:
    """One table.

    Attributes:
        task: the data that it needs.
        cells: that it is made of, for a base.
        table: of what they found.
        plot: the same as SVG.
    """

    task: str
    cells: Callable[[FrozenBase, PaperSettings], Cells]
    table: Callable[[tables.Rows], Table]
    plot: Callable[[tables.Rows], str]


def _prefix(task: str, method: str = "prefix", **more: Any) -> Cell:
    return Cell(task, method, **{"length": _LENGTH, "start": _START, **more})


def _usable(base: FrozenBase, methods: Sequence[str]) -> list[str]:
    """Without what an encoder-decoder has no place for: its decoder reads nothing but its own text."""
    return [name for name in methods if name not in _CAUSAL or not base.is_encoder_decoder]


def _methods(task: str) -> Callable[[FrozenBase, PaperSettings], Cells]:
    def cells(base: FrozenBase, settings: PaperSettings) -> Cells:
        return {name: [Cell(task, name)] for name in _usable(base, _METHODS)} | {"prefix": [_prefix(task)]}

    return cells


def _summaries(base: FrozenBase, settings: PaperSettings) -> Cells:
    whole = sum(parameter.numel() for parameter in base.model.parameters())
    methods = _usable(base, ("nothing", "in context", "fine-tuning", "LoRA"))
    cells = {name: [Cell("summarise", name)] for name in methods}
    for share in (2, 0.1):
        length = max(2, round(share / 100 * whole / base.layout.width))
        cells[f"prefix {share:g} %"] = [_prefix("summarise", length=length, start='"summarize"')]
    return cells


def _low_data(base: FrozenBase, settings: PaperSettings) -> Cells:
    cells: Cells = {}
    for size in _FEW:
        for method in (*_usable(base, ("fine-tuning", "LoRA")), "prefix"):
            own: dict[str, Any] = {"length": _FEW_LENGTH, "start": _START} if method == "prefix" else {}
            samples = [Cell("e2e", method, size, sample, **own) for sample in range(settings.samples)]
            cells[f"{method}, {size} texts"] = samples
    return cells


def _lengths(base: FrozenBase, settings: PaperSettings) -> Cells:
    return {str(length): [_prefix("e2e", length=length)] for length in (1, 2, 5, 10, 20, 40)}


def _starts(base: FrozenBase, settings: PaperSettings) -> Cells:
    names = [*(f'"{word}"' for word in WORDS), "examples", "random", "zeros"]
    return {
        name: [
            _prefix("e2e", inputs=100, sample=sample, start=name, length=_FEW_LENGTH)
            for sample in range(settings.samples)
        ]
        for name in names
    }


def _variants(base: FrozenBase, settings: PaperSettings) -> Cells:
    names = ["prefix", "prefix, MLP"]
    if base.is_encoder_decoder:
        names += [f"prefix, {kind} alone" for kind in base.layout.kinds]
    cells = {name: [_prefix("e2e", name)] for name in names}
    for kind in _usable(base, ("embedding-only", "infix")):
        cells |= {f"{kind} {length}": [_prefix("e2e", kind, length=length)] for length in (1, 10, 20)}
    return cells


def _scores(theirs: Mapping[str, Mapping[str, float]]) -> Callable[[tables.Rows], str]:
    return partial(plots.scores, theirs={name: of["BLEU"] for name, of in theirs.items()})


_ROUGE = {name: of["ROUGE-L"] for name, of in published.SUMMARISE.items()}
_WEBNLG = {name: of["BLEU"]["all"] for name, of in published.WEBNLG.items()}

STUDIES: dict[str, Study] = {
    "e2e": Study("e2e", _methods("e2e"), tables.table_to_text, _scores(published.E2E)),
    "webnlg": Study("webnlg", _methods("webnlg"), tables.webnlg, partial(plots.scores, theirs=_WEBNLG)),
    "summarise": Study("summarise", _summaries, tables.summaries, partial(plots.rouge, theirs=_ROUGE)),
    "low-data": Study("e2e", _low_data, tables.few_texts, plots.few_texts),
    "extrapolate": Study("webnlg", _methods("webnlg"), tables.extrapolation, plots.extrapolation),
    "length": Study("e2e", _lengths, tables.lengths, plots.lengths),
    "init": Study("e2e", _starts, tables.starts, plots.samples),
    "ablate": Study("e2e", _variants, tables.variants, _scores(published.VARIANTS)),
}
"""Named as the command names them."""
