"""The pictures of the paper's tables, as SVG. The same results give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from antefix_simulations.common.svg import BLUE, GREY, INK, RED, draw_svg
from antefix_simulations.paper.results.tables import Rows, figure, over_samples

__all__ = ["extrapolation", "few_texts", "lengths", "rouge", "samples", "scores"]

_COLOURS = {"prefix": BLUE, "fine-tuning": RED, "LoRA": GREY}


def scores(rows: Rows, theirs: Mapping[str, float]) -> str:
    """BLEU of each row, and the paper's own where it has one."""
    return _bars(rows, "BLEU", theirs)


def rouge(rows: Rows, theirs: Mapping[str, float]) -> str:
    """ROUGE-L of each row, and the paper's own where it has one."""
    return _bars(rows, "ROUGE-L", theirs)


def samples(rows: Rows) -> str:
    """BLEU of each sample of a row, and their mean."""
    names = list(rows.results)[::-1]

    def draw(axes: Axes) -> None:
        for place, name in enumerate(names):
            values = [figure(result, "BLEU") for result in rows.results[name]]
            axes.plot(values, [place] * len(values), "o", color=BLUE, alpha=0.5, markersize=4)
            axes.plot([np.mean(values)], [place], "|", color=INK, markersize=12)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="BLEU; each sample, and their mean")

    return draw_svg(draw, 0.26 * len(names) + 0.9)


def few_texts(rows: Rows) -> str:
    """BLEU against the number of texts: the mean of the samples, between the lowest and the highest."""
    lines: dict[str, dict[int, list[float]]] = {}
    for name, results in rows.results.items():
        method, size = name.split(", ")
        score = over_samples(results, "BLEU")
        lines.setdefault(method, {})[int(size.split()[0])] = [score.mean, score.low, score.high]

    def draw(axes: Axes) -> None:
        for method, points in lines.items():
            known, values = list(points), np.array(list(points.values()))
            colour = _COLOURS[method]
            axes.fill_between(known, values[:, 1], values[:, 2], color=colour, alpha=0.15, linewidth=0)
            axes.plot(known, values[:, 0], color=colour, marker="o", markersize=4, label=method)
        sizes = sorted({size for points in lines.values() for size in points})
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set(xlabel="training texts", ylabel="BLEU")
        axes.legend(frameon=False)

    return draw_svg(draw)


def lengths(rows: Rows) -> str:
    """BLEU against positions."""
    places = [int(name) for name in rows.results]

    def draw(axes: Axes) -> None:
        values = [figure(result, "BLEU") for (result,) in rows.results.values()]
        spreads = [
            result["parts"]["all"]["scores"]["BLEU"]["spread"] or 0.0 for (result,) in rows.results.values()
        ]
        axes.errorbar(places, values, yerr=spreads, color=BLUE, marker="o", markersize=4, capsize=3)
        axes.set_xscale("log")
        axes.set_xticks(places, [str(place) for place in places])
        axes.minorticks_off()
        axes.set(xlabel="positions of the prefix", ylabel="BLEU, 95 % over test inputs")

    return draw_svg(draw)


def extrapolation(rows: Rows) -> str:
    """Nats per token on seen and on unseen categories, joined."""
    pairs = {
        name: [figure(result, "loss", part) for part in ("seen", "unseen")]
        for name, (result,) in rows.results.items()
    }
    places = _apart({name: pair[1] for name, pair in pairs.items()})

    def draw(axes: Axes) -> None:
        for name, pair in pairs.items():
            colour = _COLOURS.get(name, GREY)
            axes.plot([0, 1], pair, color=colour, marker="o", markersize=4)
            axes.plot([1.03, 1.13], [pair[1], places[name]], color=colour, linewidth=0.6)
            axes.annotate(name, (1.15, places[name]), va="center", fontsize=8, color=colour)
        axes.set_xticks([0, 1], ["seen", "unseen"])
        axes.set_xlim(-0.1, 1.7)
        axes.set(ylabel="nats per token")

    return draw_svg(draw)


def _apart(values: Mapping[str, float]) -> dict[str, float]:
    """Places for labels near their values, none over another."""
    min_gap = 0.05 * (max(values.values()) - min(values.values()))
    places: dict[str, float] = {}
    below = -math.inf
    for name in sorted(values, key=values.__getitem__):
        places[name] = below = max(values[name], below + min_gap)
    return places


def _bars(rows: Rows, measure: str, theirs: Mapping[str, float]) -> str:
    names = list(rows.results)[::-1]
    results = [rows.results[name][0] for name in names]
    values = [figure(result, measure) for result in results]
    spreads = [result["parts"]["all"]["scores"][measure]["spread"] or 0.0 for result in results]
    known = {place: theirs[name] for place, name in enumerate(names) if name in theirs}

    def draw(axes: Axes) -> None:
        colours = [BLUE if name.startswith("prefix") else GREY for name in names]
        axes.barh(range(len(names)), values, color=colours, height=0.7)
        axes.errorbar(values, range(len(names)), xerr=spreads, fmt="none", ecolor=INK, capsize=2)
        axes.plot(list(known.values()), list(known), "D", color=RED, fillstyle="none", markersize=5)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel=f"{measure} here, 95 % over test inputs\ndiamonds: the paper's")
        axes.set_xlim(left=0)

    return draw_svg(draw, 0.3 * len(names) + 1.1)
