"""How pictures look, and how they become SVG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["BLUE", "GREY", "INK", "RED", "draw_svg"]

BLUE, RED, GREY, INK = "#2563a8", "#b8442f", "#8a8f98", "#3a3f47"
_STYLE: Any = {
    "svg.hashsalt": "antefix",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw_svg(draw: Callable[[Axes], None], height: float = 2.9) -> str:
    """What `draw` draws, in inches of height. The same drawing gives the same bytes."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Text stays text: who shows it has the letters that the library's own font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(4.8, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]
