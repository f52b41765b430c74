"""The pictures of a report, as SVG. The same run gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from antefix_simulations.common.bootstrap import interval
from antefix_simulations.common.svg import BLUE, GREY, INK, RED, draw_svg
from antefix_simulations.common.terminal import printable
from antefix_simulations.report.summary import Summary

__all__ = ["curve", "epsilon", "gains", "history", "matrix", "rounds", "throughput"]


def gains(run: Summary) -> str:
    """What each user gains by the own prefix over the shared one, sorted."""
    values = np.sort([line["shared"] - line["private"] for line in run.users])[::-1]
    colours = [BLUE if value > 0 else RED for value in values]

    def draw(axes: Axes) -> None:
        axes.bar(np.arange(1, len(values) + 1), values, color=colours, width=0.9, linewidth=0)
        axes.axhline(0, color=GREY, linewidth=0.8)
        mean = interval(list(values))
        axes.axhline(mean.mean, color=INK, linewidth=1, linestyle="--")
        axes.annotate(f"mean {mean.mean:.3f}", (len(values), mean.mean), ha="right", va="bottom", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="users, sorted by gain", ylabel="nats per token gained")

    return draw_svg(draw)


def rounds(run: Summary) -> str:
    """What new users gain by the shared prefix of each round over the first; 95 % over users, paired."""
    points = run.cold_start()
    numbers, means = [point[0] for point in points], [point[2] for point in points]

    def draw(axes: Axes) -> None:
        low, high = ([getattr(mean, side) for mean in means] for side in ("low", "high"))
        axes.fill_between(numbers, low, high, color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(numbers, [mean.mean for mean in means], color=BLUE, marker="o", markersize=4)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="round", ylabel="nats per token gained")

    return draw_svg(draw)


def history(run: Summary) -> str:
    """Gain over the shared prefix against how many texts a user trained on."""

    def draw(axes: Axes) -> None:
        texts = [line["texts"] for line in run.users]
        axes.scatter(
            texts, [line["shared"] - line["private"] for line in run.users], s=14, color=GREY, alpha=0.6
        )
        for group in run.by_history().values():
            mean, middle = (
                run.gain("private", "shared", group),
                float(np.median([line["texts"] for line in group])),
            )
            error = [[mean.mean - mean.low], [mean.high - mean.mean]]
            axes.errorbar([middle], [mean.mean], yerr=error, fmt="o", color=BLUE, capsize=3)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="training texts of a user", ylabel="nats per token gained")

    return draw_svg(draw)


def curve(run: Summary) -> str:
    """Gain over the shared prefix against how many texts were used, of the same users."""
    points = run.curve()

    def draw(axes: Axes) -> None:
        texts = [point[0] for point in points]
        low, high = ([getattr(gain, side) for _, _, gain in points] for side in ("low", "high"))
        axes.fill_between(texts, low, high, color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(texts, [gain.mean for _, _, gain in points], color=BLUE, marker="o", markersize=4)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel=f"training texts used, of {points[0][1]} users", ylabel="nats per token gained")

    return draw_svg(draw)


def matrix(run: Summary) -> str:
    """Some users' texts under each of their prefixes: how much worse than under the own."""
    lines = [line for line in run.users if "matrix" in line]
    losses = np.array([line["matrix"] for line in lines])
    excess = losses - np.diagonal(losses)[:, None]
    names = [printable(str(line["user"]), 14) for line in lines]

    def draw(axes: Axes) -> None:
        limit = float(np.abs(excess).max()) or 1.0
        axes.imshow(excess, cmap="RdBu_r", vmin=-limit, vmax=limit)
        for row, column in np.ndindex(*excess.shape):
            dark = abs(excess[row, column]) > 0.6 * limit
            axes.text(
                column,
                row,
                f"{excess[row, column]:+.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )
        axes.set_xticks(
            range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False
        )
        axes.set_yticks(range(len(names)), names, parse_math=False)
        axes.set(xlabel="prefix of", ylabel="texts of")

    return draw_svg(draw, 0.42 * len(lines) + 1.3)


def throughput(times: Sequence[dict[str, float]]) -> str:
    """Users per second of each cohort, as they were done, and the memory of who did them."""

    def draw(axes: Axes) -> None:
        order = np.arange(1, len(times) + 1)
        axes.plot(order, [line["users"] / max(line["seconds"], 1e-9) for line in times], ".", color=BLUE)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="cohorts, in the order they were done", ylabel="users per second")
        axes.set_ylim(bottom=0)
        memory = axes.twinx()
        memory.plot(order, [line["peak_mb"] for line in times], color=RED, linewidth=1)
        memory.set_ylabel("peak memory, MB", color=RED)
        memory.set_ylim(bottom=0)
        memory.spines["right"].set_visible(True)

    return draw_svg(draw)


def epsilon(run: Summary) -> str:
    """Privacy spent, by round."""
    lines = [line for line in run.rounds if "epsilon" in line]

    def draw(axes: Axes) -> None:
        axes.plot(
            [line["round"] for line in lines], [line["epsilon"] for line in lines], color=BLUE, marker="o"
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="round", ylabel="epsilon")
        axes.set_ylim(bottom=0)

    return draw_svg(draw)
