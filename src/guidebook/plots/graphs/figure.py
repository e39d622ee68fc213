"""The drawing of a model's graph."""

import itertools
from collections.abc import Hashable

from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from ..style import GREY, INK, SOFT, style
from .graph import Graph
from .layout import Layout

MOST_NODES = 40  # of a model's graph that a page can show


def plot_graph(graph: Graph) -> Figure:
    """A model's graph, parents above children: observed sites shaded, deterministic ones dashed, plates as boxes."""
    layout = Layout(graph)
    left, bottom, right, top = layout.extent()
    with style():
        figure = Figure(figsize=(right - left, top - bottom))
        figure.set_layout_engine("none")
        ax = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top))
        ax.set_axis_off()
        for plate in graph.plates:
            x0, y0, x1, y1 = layout.box(plate)
            shape = "round,pad=0,rounding_size=0.12"
            ax.add_patch(FancyBboxPatch((x0, y0), x1 - x0, y1 - y0, boxstyle=shape, facecolor="none", edgecolor=GREY))
            ax.text(x1 - 0.1, y0 + 0.07, plate.rstrip(), ha="right", va="bottom", fontsize=7.5, color=SOFT)
        for chain in layout.chains:
            path = _curve(layout, chain)
            ax.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=9, color=SOFT, linewidth=1))
        for name, (kind, distribution) in graph.nodes.items():
            x, y = layout.x[name], layout.y(name)
            if kind != "parameter":
                fill = "#d3dbe4" if kind == "observed" else "white"
                dash = (0, (4, 2)) if kind == "deterministic" else "-"
                size = 2 * layout.half_width(name), 2 * layout.HALF_HEIGHT
                ax.add_patch(Ellipse((x, y), *size, facecolor=fill, edgecolor=INK, linestyle=dash))
            lift = 0.075 if distribution else 0.0
            ax.text(x, y + lift, name, ha="center", va="center", fontsize=8.5)
            ax.text(x, y - 0.105, distribution, ha="center", va="center", fontsize=6.5, color=SOFT)
    return figure


def _curve(layout: Layout, chain: list[Hashable]) -> Path:
    """A smooth line through the bends of an edge, upright where it meets them."""
    points = [(layout.x[n], layout.y(n)) for n in chain]
    foot = 0.1 if layout.graph.nodes[str(chain[0])][0] == "parameter" else layout.HALF_HEIGHT
    points[0] = (points[0][0], points[0][1] - foot)
    points[-1] = (points[-1][0], points[-1][1] + layout.HALF_HEIGHT + 0.02)
    vertices, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = (y0 + y1) / 2
        vertices += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Path.CURVE4] * 3
    return Path(vertices, codes)
