"""The drawing of a model's graph."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch

from ..style import GREY, INK, PAPER, SHADED, SOFT, style
from .graph import Graph
from .layout import Box, around, lay_out

ARROW: Any = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 1, "mutation_scale": 9, "color": SOFT, "linewidth": 1}
OVER_ARROWS: Any = {"zorder": 3, "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 1}}
MOST_NODES = 40  # that fit on a page
BENDS = sorted(np.linspace(0.9, -0.9, 13).round(2), key=abs)  # of arrows: straight, then left, away from the labels


def plot_graph(graph: Graph) -> Figure:
    """Draw a model's graph, parents above children: observed sites shaded, deterministic ones dashed, plates boxed."""
    layout = lay_out(graph)
    left, bottom, right, top = around([*layout.nodes.values(), *layout.plates.values()])
    with style():
        figure = Figure(figsize=(right - left + 0.2, top - bottom + 0.2))
        figure.set_layout_engine("none")
        ax = figure.add_axes((0, 0, 1, 1), xlim=(left - 0.1, right + 0.1), ylim=(bottom - 0.1, top + 0.1))
        ax.set_axis_off()
        for plate, (x0, y0, x1, y1) in layout.plates.items():
            shape = "round,pad=0,rounding_size=0.12"
            ax.add_patch(FancyBboxPatch((x0, y0), x1 - x0, y1 - y0, boxstyle=shape, facecolor="none", edgecolor=GREY))
            ax.text(x1 - 0.1, y0 + 0.07, plate, ha="right", va="bottom", fontsize=7.5, color=SOFT, **OVER_ARROWS)
        ellipses = {}
        for name, (kind, distribution) in graph.nodes.items():
            x0, y0, x1, y1 = layout.nodes[name]
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            look: dict[str, Any] = {"facecolor": SHADED if kind == "observed" else PAPER}
            look |= {"edgecolor": "none" if kind == "parameter" else INK}
            look |= {"linestyle": (0, (4, 2)) if kind == "deterministic" else "-"}
            height = 0.24 if kind == "parameter" else y1 - y0
            ellipses[name] = ax.add_patch(Ellipse((x, y), x1 - x0, height, **look))
            ax.text(x, y + (0.075 if distribution else 0), name, ha="center", va="center", fontsize=8.5)
            ax.text(x, y - 0.105, distribution, ha="center", va="center", fontsize=6.5, color=SOFT)
        for parent, child in graph.edges:
            others = [box for name, box in layout.nodes.items() if name not in (parent, child)]
            start, end = ellipses[parent].center, ellipses[child].center
            bend = min(BENDS, key=lambda bend: num_crossed(start, end, bend, others))
            ends = {"patchA": ellipses[parent], "patchB": ellipses[child], "connectionstyle": f"arc3,rad={bend}"}
            ax.add_patch(FancyArrowPatch(start, end, **ends, **ARROW))
    return figure


def num_crossed(start: tuple[float, float], end: tuple[float, float], bend: float, boxes: list[Box]) -> int:
    """Return through how many boxes an arc (matplotlib's arc3) runs."""
    (x0, y0), (x1, y1) = start, end
    middle = (x0 + x1) / 2 + bend * (y1 - y0), (y0 + y1) / 2 - bend * (x1 - x0)
    t = np.linspace(0, 1, 60)[:, None]
    path = (1 - t) ** 2 * start + 2 * t * (1 - t) * np.array(middle) + t**2 * np.array(end)
    x, y = path.T
    return sum(bool(np.any((a < x) & (x < c) & (b < y) & (y < d))) for a, b, c, d in boxes)
