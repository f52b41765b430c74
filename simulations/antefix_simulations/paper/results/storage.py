"""What a task costs to keep: numbers of each method, beside a copy of the base."""

from __future__ import annotations

from antefix import FrozenBase
from antefix_simulations.paper.results.table import Table
from antefix_simulations.paper.weights import KINDS

__all__ = ["storage"]

_LENGTHS = (5, 10)
_BYTES = 4  # fp32, as prefixes are kept


def storage(base: FrozenBase) -> Table:
    """Section 4.1's promise: a base once, and little for each task."""
    whole = sum(parameter.numel() for parameter in base.model.parameters())
    prefixes = {f"prefix of {length}": base.layout.size(length) for length in _LENGTHS}
    kinds = {name: kind(base, 0).numbers for name, kind in KINDS.items() if name != "fine-tuning"}
    table = Table(
        f"What is kept for each task, {base.name}", ["", "numbers", "MiB in fp32", "of the base", "a copy is"]
    )
    for name, numbers in (prefixes | kinds | {"fine-tuning": whole}).items():
        cells = [f"{numbers:,}", f"{numbers * _BYTES / 2**20:,.2f}", f"{numbers / whole:.2%}"]
        table.rows.append([name, *cells, f"{whole / numbers:,.0f} times that"])
    table.notes.append(
        "Paper: 250 thousand for E2E on GPT-2 medium (5 positions, 24 layers, keys and values of 1,024: "
        "5·24·2·1024 = 245,760) of 345 million."
    )
    return table
