"""A picture of who is predicted how well under whose prefix."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from antefix_simulations._terminal import printable

_MOST_ANNOTATED = 24  # users; beyond, the numbers would be too small to read


def draw(
    title: str, users: Sequence[str], columns: Sequence[str], losses: Sequence[Sequence[float]]
) -> bytes:
    """PNG of a table: one row per user's held-out texts, `columns` in front, then each user's own prefix.

    Colour is the distance to the best of the row, because texts differ in difficulty: rows compare with
    nothing but themselves. The diagonal has a frame.

    Args:
        title: one line.
        users: names of rows, and of the last columns.
        columns: names of the columns before those.
        losses: nats per token [users][columns + users].
    """
    values = np.asarray(losses, dtype=float)
    above = values - values.min(axis=1, keepdims=True)
    across, down = values.shape[1], values.shape[0]
    cell = min(0.66, 18 / across)  # inches
    figure = Figure(figsize=(2.8 + cell * across, 1.9 + 0.75 * cell * down), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # The base alone is so far off that it would leave the others one colour.
    top = max(float(above[:, 1:].max()), 1e-6)
    image = axes.imshow(above, cmap="YlGnBu_r", vmin=0, vmax=top, aspect="auto")
    bar = figure.colorbar(image, ax=axes, pad=0.02, extend="max" if above.max() > top else "neither")
    bar.set_label("nats per token above the best of the row")
    _label(axes, title, users, columns)
    _mark(axes, len(columns), down)
    if down <= _MOST_ANNOTATED:
        _annotate(axes, values, above / top)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # names in any script
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _label(axes: Axes, title: str, users: Sequence[str], columns: Sequence[str]) -> None:
    names = [printable(user, 18) for user in users]
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    axes.set_xticks(range(len(columns) + len(names)), [*columns, *names], rotation=35, ha="right")
    axes.set_yticks(range(len(names)), names)
    for tick in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        tick.set_parse_math(False)  # a dollar in a name is a dollar
    axes.set_xlabel("read under: the base alone, the shared prefix, or the private prefix of …")
    axes.set_ylabel("held-out texts of …")
    axes.tick_params(length=0)


def _mark(axes: Axes, before: int, users: int) -> None:
    """Frame the diagonal; set the columns that are nobody's apart."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.axvline(before - 0.5, color="white", linewidth=5)
    for user in range(users):
        corner = (before + user - 0.5, user - 0.5)
        frame = Rectangle(corner, 1, 1, fill=False, edgecolor="#d62728", linewidth=2.2, clip_on=False)
        frame.set_zorder(3)  # above the gap
        axes.add_patch(frame)


def _annotate(axes: Axes, values: np.ndarray, shade: np.ndarray) -> None:
    best = values.argmin(axis=1)
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            axes.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if shade[row, column] < 0.55 else "#222222",
                weight="bold" if column == best[row] else "normal",
            )
