"""Error against seconds: what each method of a comparison, or each rung of `fit`, cost, and how far off it is."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from matplotlib.figure import Figure

from ..inference.compare import Comparison
from ..inference.verdict import USABLE_SHIFT, distance
from .plane import Dot, Line, plot_plane


def plot_error_against_seconds(comparison: Comparison) -> Figure:
    """Plot the worst error of every method against its seconds, both on log scales; colours are judgements.

    The error is that of the quantity farthest from the reference, `Comparison.worst`: the shift of its mean in sds of
    the reference, or how far off its sd is, on a scale on which an sd 25 % off counts as 0.25. Bands show what is good
    and what is usable. A dashed line shows the seconds of the reference. Points of methods without a spread are
    crosses: theirs is the error of the mean alone.

    Parameters
    ----------
    comparison : Comparison
        One whose reference is fit to judge; `without_error` lists the methods that are left out.

    Raises
    ------
    ValueError
        If there is no method to show.
    """
    dots = _dots(comparison)
    if not dots:
        raise ValueError(
            "plot_error_against_seconds: no method has an error: the reference is refused, or none is judged"
        )
    seconds = comparison.posteriors[comparison.reference].info.seconds
    return plot_plane(dots, [Line(f"{comparison.reference}, the reference", seconds)])


def without_error(comparison: Comparison) -> list[str]:
    """Return the methods that `plot_error_against_seconds` leaves out, since no error of theirs is known."""
    shown = {dot.name for dot in _dots(comparison)}
    return [name for name in comparison.posteriors if name not in shown and name != comparison.reference]


def plot_ladder(rungs: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the worst error of every rung of `fit` against the seconds after which it was known, as on a path.

    Rungs without an error, such as samplers, which are judged by their own chains, are dashed lines. Names begin with a
    rung's number.

    Parameters
    ----------
    rungs : sequence of mapping
        `FitInfo.rungs`.

    Raises
    ------
    ValueError
        If no rung has an error.
    """
    ended = accumulate(float(rung["seconds"]) for rung in rungs)
    dots, lines = [], []
    for number, (rung, at) in enumerate(zip(rungs, ended, strict=True), 1):
        judgement, error = rung["judgement"], rung.get("error")
        if error is not None:
            dots.append(Dot(f"{number}: {rung['method']}", at, error, judgement))
        elif judgement not in ("failed", "not tried"):
            lines.append(Line(f"{number}: {rung['method'].partition(',')[0]}", at, judgement))
    if not dots:
        raise ValueError("plot_ladder: no rung has an error")
    return plot_plane(dots, lines, path=True)


def _dots(comparison: Comparison) -> list[Dot]:
    found = []
    for name, posterior in comparison.posteriors.items():
        judgement = comparison.verdicts[name].judgement
        if name == comparison.reference or judgement == "not judged":
            continue
        error = USABLE_SHIFT * float(distance(comparison.quantities[name]).max())
        if not math.isnan(error):
            found.append(Dot(name, posterior.info.seconds, error, judgement))
    return found
