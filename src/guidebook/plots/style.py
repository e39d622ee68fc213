"""What all figures share: colours and lines, panels, ellipses, and conversion to SVG."""

import io
import itertools
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from ..inference.compare import Comparison
from .colours import PALETTE, css

PAPER, INK, SOFT, AXIS, FAINT, SHADED, GREY = (
    PALETTE[name].light for name in ("paper", "ink", "soft", "axis", "faint", "shaded", "grey")
)
REFERENCE_LINE = PALETTE["reference-line"].light  # for a reference drawn as a line, for which GREY is too faint
COLOURS = tuple(PALETTE[f"line-{number}"].light for number in range(1, 7))
JUDGEMENTS = {name: PALETTE[name].light for name in ("good", "usable", "bad", "reference", "point")}
JUDGEMENTS["refused"] = JUDGEMENTS["bad"]  # what is not here is SOFT
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (6, 2, 1.5, 2)), (0, (1.5, 1.5)), (0, (9, 2)), (0, (3, 1)))
_SETTINGS: Any = {
    "axes.edgecolor": AXIS,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8.5,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "guidebook",
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a name is a dollar sign
    "xtick.color": SOFT,
    "xtick.labelsize": 7.5,
    "ytick.color": SOFT,
    "ytick.labelsize": 7.5,
}


class Look(NamedTuple):
    """Colour and matplotlib line style of a posterior, the same in every figure."""

    colour: str
    dash: Any


def looks(comparison: Comparison) -> dict[str, Look]:
    """Return the look of every posterior: grey for the reference, if it is one of others."""
    reference, *others = comparison.posteriors
    if not others:
        return {reference: Look(COLOURS[0], "-")}
    cycle = map(Look, itertools.cycle(COLOURS), itertools.cycle(_DASHES))
    return {reference: Look(GREY, "-")} | dict(zip(others, cycle, strict=False))


def line_colour(comparison: Comparison, name: str) -> str:
    """Return the colour of a posterior that is drawn as lines, for which a reference's grey would be too faint."""
    colour = looks(comparison)[name].colour
    return REFERENCE_LINE if colour == GREY else colour


def style() -> AbstractContextManager[None]:
    """Draw with these settings; matplotlib's own are restored afterwards."""
    return mpl.rc_context(_SETTINGS)


@contextmanager
def panel(width: float = 3.5, height: float = 2.5) -> Iterator[tuple[Figure, Axes]]:
    """Give a figure of one panel with few ticks; sizes in inches."""
    with style():
        figure = Figure(figsize=(width, height))
        ax = figure.subplots()
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        yield figure, ax


def thin(length: int, most: int) -> np.ndarray:
    """Return at most ``most`` evenly spaced positions out of ``length``, the first and the last included."""
    return np.linspace(0, length - 1, min(length, most)).round().astype(int)


def short(text: str, most: int) -> str:
    """Return a text of at most ``most`` characters, what is in the middle of a longer one left out."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"


def ellipse(centre: np.ndarray, covariance: np.ndarray, **look: Any) -> Ellipse:
    """Return the ellipse that holds 90 % of a bivariate normal."""
    values, vectors = np.linalg.eigh(covariance)
    minor, major = 2 * np.sqrt(-2 * math.log(0.1) * np.clip(values, 0, None))
    angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
    return Ellipse((float(centre[0]), float(centre[1])), major, minor, angle=angle, facecolor="none", **look)


def to_svg(figure: Figure, description: str, key: str) -> Markup:
    """Return a figure as an ``<svg>`` element for a page: described in words, with ids that start with ``key``.

    The page's CSS variables give it its colours; paper is left out.
    """
    text = io.StringIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has its own fonts
        figure.savefig(
            text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'( id="|url\(#|xlink:href="#)', rf"\g<1>{key}-", svg)
    svg = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", lambda found: f"{found[1]}: {css(found[2])}", svg)
    svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    opening = f'<svg role="img" aria-label="{escape(description)}" '
    return Markup(svg.replace("<svg ", opening, 1))  # matplotlib has escaped what it wrote
