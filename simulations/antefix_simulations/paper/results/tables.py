"""Results in the paper's form, its own figures beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from antefix.errors import InvalidArgument
from antefix_simulations.common.bootstrap import Interval
from antefix_simulations.paper.cell import PaperSettings
from antefix_simulations.paper.results import published
from antefix_simulations.paper.results.table import Table

__all__ = [
    "Rows",
    "extrapolation",
    "few_texts",
    "figure",
    "lengths",
    "over_samples",
    "starts",
    "summaries",
    "table_to_text",
    "variants",
    "webnlg",
]

Column = tuple[str, str]
"""A measure, and the part of the test."""

_DECIMALS = {"NIST": 2, "CIDEr": 2, "TER": 2}
_WRITTEN = tuple((measure, "all") for measure in ("BLEU", "NIST", "METEOR", "ROUGE-L", "CIDEr"))


@dataclass(frozen=True)
class Rows:
    """What the cells of a table found.

    Attributes:
        results: of each row's cells, in their order.
        settings: of all.
    """

    results: Mapping[str, Sequence[Mapping[str, Any]]]
    settings: PaperSettings

    def of(self, method: str) -> dict[tuple[str, ...], Mapping[str, Any]]:
        """All results of the rows whose names begin so, by texts and sample."""
        results = (
            result for name, row in self.results.items() if name.split(", ")[0] == method for result in row
        )
        return {tuple(result["arm"].split(", ")[-2:]): result for result in results}


def figure(result: Mapping[str, Any], measure: str, part: str = "all") -> float:
    """A measure of a cell, or its nats per token where `measure` is `loss`; nan where it is missing."""
    scores = result["parts"][part]
    value = scores["nats_per_token"] if measure == "loss" else scores["scores"][measure]["value"]
    return math.nan if value is None else float(value)


def over_samples(results: Sequence[Mapping[str, Any]], measure: str) -> Interval:
    """Mean over samples, between the lowest and the highest: three are too few for an interval."""
    values = [figure(result, measure) for result in results]
    return Interval(sum(values) / len(values), min(values), max(values))


def table_to_text(rows: Rows) -> Table:
    """Table 2, E2E."""
    theirs = _in_columns(published.E2E)
    return _add_notes(_beside("E2E, table to text (table 2)", rows, _WRITTEN, theirs), rows)


def webnlg(rows: Rows) -> Table:
    """Table 2, WebNLG."""
    columns = [(measure, part) for measure in ("BLEU", "METEOR", "TER") for part in published.PARTS]
    theirs = {
        name: {(measure, part): of[measure][part] for measure, part in columns}
        for name, of in published.WEBNLG.items()
    }
    table = _beside("WebNLG, categories that are trained on and others (table 2)", rows, columns, theirs)
    table.notes.append("TER: lower is better.")
    return _add_notes(table, rows)


def summaries(rows: Rows) -> Table:
    """Table 3."""
    columns = tuple((measure, "all") for measure in ("ROUGE-1", "ROUGE-2", "ROUGE-L"))
    table = _beside("Summaries (table 3)", rows, columns, _in_columns(published.SUMMARISE))
    table.notes.append("The paper's set is XSUM, and its base BART large.")
    return _add_notes(table, rows)


def variants(rows: Rows) -> Table:
    """Table 5."""
    theirs = _in_columns(published.VARIANTS)
    table = _beside("E2E, other kinds of prefixes (table 5)", rows, _WRITTEN, theirs)
    table.notes.append("A number behind a name is positions; the others have 10.")
    return _add_notes(table, rows)


def extrapolation(rows: Rows) -> Table:
    """What is lost from categories that were trained on to others (section 6.4).

    Raises:
        InvalidArgument: a test without unseen inputs.
    """
    head = ["method", "", "BLEU seen", "unseen", "lost", "nats/token seen", "unseen", "more"]
    table = Table("WebNLG, what is lost from seen to unseen categories", head)
    for name, (result,) in rows.results.items():
        if "unseen" not in result["parts"]:
            raise InvalidArgument(
                "no test line of webnlg is unseen", 'give a file whose test lines have "seen": false'
            )
        seen, unseen = (figure(result, "BLEU", part) for part in ("seen", "unseen"))
        known, new = (figure(result, "loss", part) for part in ("seen", "unseen"))
        losses = [f"{known:.3f}", f"{new:.3f}", f"{new - known:+.3f}"]
        cells = [_format("BLEU", value) for value in (seen, unseen, seen - unseen)]
        table.rows.append([name, "here", *cells, *losses])
        if name in published.WEBNLG:
            seen, unseen = (published.WEBNLG[name]["BLEU"][part] for part in ("seen", "unseen"))
            figures = [f"{value:.1f}" for value in (seen, unseen, seen - unseen)]
            table.rows.append(["", "paper", *figures, "", "", ""])
    return _add_notes(table, rows)


def few_texts(rows: Rows) -> Table:
    """Figure 3, E2E; and the mean difference of pairs: the same texts, two methods."""
    table = _add_sampled("E2E from few texts (figure 3)", rows)
    ours = rows.of("prefix")
    for method in ("fine-tuning", "LoRA"):
        theirs = rows.of(method)
        gaps = {key: figure(ours[key], "BLEU") - figure(theirs[key], "BLEU") for key in ours if key in theirs}
        if not gaps or math.isnan(sum(gaps.values())):
            continue
        whole = f"{sum(gaps.values()) / len(gaps):+.1f} BLEU on average of {len(gaps)}"
        table.notes.append(f"Prefix over {method}: {whole}; {_by(gaps, 0)}; {_by(gaps, 1)}.")
    table.notes.append("Paper, prefix over fine-tuning: +2.9 BLEU on average.")
    return _add_notes(table, rows)


def _by(gaps: Mapping[tuple[str, ...], float], part: int) -> str:
    """Means over all gaps that have a part of their names in common.

    Samples of one number lie in each other, 50 texts in the 100: they are what is drawn, not the gaps, and
    three of them have no interval.
    """
    alike: dict[str, list[float]] = {}
    for key, gap in gaps.items():
        alike.setdefault(key[part], []).append(gap)
    means = {name: sum(values) / len(values) for name, values in alike.items()}
    return ", ".join(f"{name} {mean:+.1f}" for name, mean in means.items())


def lengths(rows: Rows) -> Table:
    """Figure 4."""
    columns = (("BLEU", "all"), ("ROUGE-L", "all"))
    table = _beside("E2E, positions of the prefix (figure 4)", rows, columns, {})
    table.notes.append("Paper: rises up to a threshold, 10 in table to text, then falls a little.")
    table.notes.append(
        "One position of each prefix but the shortest is an attention sink, which is not trained."
    )
    return _add_notes(table, rows)


def starts(rows: Rows) -> Table:
    """Figure 5."""
    table = _add_sampled("E2E from 100 texts, start of the prefix (figure 5)", rows)
    table.notes.append("Paper: random is low and varies most, any word does better, words of the task best.")
    return _add_notes(table, rows)


def _in_columns(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[Column, float]]:
    return {name: {(measure, "all"): value for measure, value in of.items()} for name, of in figures.items()}


def _beside(
    title: str,
    rows: Rows,
    columns: Sequence[Column],
    theirs: Mapping[str, Mapping[Column, float]],
) -> Table:
    """A row for each cell, and one for the paper's own where it has it."""
    single = {part for _, part in columns} == {"all"}
    names = [measure if single else f"{measure} {part}" for measure, part in columns]
    table = Table(title, ["", "", *names, "nats/token", "numbers"])
    for name, (result,) in rows.results.items():
        here = [_show(result, *column) for column in columns]
        loss = f"{figure(result, 'loss'):.3f}"
        table.rows.append([name, "here", *here, loss, f"{result['numbers']:,}"])
        if name in theirs:
            paper = [_format(column[0], theirs[name][column]) for column in columns]
            table.rows.append(["", "paper", *paper, "", ""])
    return table


def _add_sampled(title: str, rows: Rows) -> Table:
    """A row for the samples of each."""
    table = Table(title, ["", "BLEU", "lowest, highest", "ROUGE-L", "nats/token", "lowest, highest"])
    for name, results in rows.results.items():
        bleu, rouge, loss = (over_samples(results, measure) for measure in ("BLEU", "ROUGE-L", "loss"))
        bleu_cells = _format("BLEU", bleu.mean), f"{_format('BLEU', bleu.low)}, {_format('BLEU', bleu.high)}"
        loss_cells = f"{loss.mean:.3f}", f"{loss.low:.3f}, {loss.high:.3f}"
        table.rows.append([name, *bleu_cells, _format("ROUGE-L", rouge.mean), *loss_cells])
    return table


def _show(result: Mapping[str, Any], measure: str, part: str) -> str:
    """A value and half of its 95 % interval; a dash where there is none."""
    score = result["parts"].get(part, {"scores": {}})["scores"].get(measure, {"value": None})
    if score["value"] is None:
        return "-"
    value = _format(measure, score["value"])
    return value if score["spread"] is None else f"{value} ± {_format(measure, score['spread'])}"


def _format(measure: str, value: float) -> str:
    """With as many places as the paper; a dash for what is missing."""
    return "-" if math.isnan(value) else f"{value:.{_DECIMALS.get(measure, 1)}f}"


def _add_notes(table: Table, rows: Rows) -> Table:
    """With what is to be said below every table."""
    every = [result for results in rows.results.values() for result in results]
    missing = {
        f"{name}: {score['missing']}."
        for result in every
        for name, score in result["parts"]["all"]["scores"].items()
        if score["missing"] and name in " ".join(table.head)
    }
    table.notes += [
        f"{name}: {result['examples'] or 'no'} training texts fit in front."
        for name, results in rows.results.items()
        for result in results
        if name == "in context" and "examples" in result
    ]
    settings, tests = rows.settings, every[0]["parts"]["all"]["inputs"]
    table.notes += sorted(missing)
    table.notes.append(
        f"About {settings.budget:,} tokens of training each, in steps of {settings.batch_size} texts; "
        f"{tests} test inputs, {settings.beams} beams. ±: half of the 95 % interval over these. "
        f"Paper: {published.SOURCE}."
    )
    return table
