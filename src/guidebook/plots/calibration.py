"""Ranks of true values: their distribution less the uniform one, with the band that it leaves one time in twenty."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..inference.calibrate import Calibration
from ..inference.calibration.uniformity import Uniformity
from .style import COLOURS, GREY, INK, short, style

MOST_PANELS = 12
_COLUMNS = 4


def plot_calibration(calibration: Calibration) -> Figure:
    """Plot the empirical distribution function of each quantity's ranks, less the uniform one; the worst twelve.

    A curve that falls through the middle has ranks at both ends: draws too narrow. One that rises: too wide. A bump
    upwards: true values among the lowest draws, which are biased up; downwards: biased down.

    Säilynoja, Bürkner and Vehtari (2022), Statistics and Computing 32, section 2.1.
    """
    order = calibration.table["p_value"].sort_values(kind="stable").index[:MOST_PANELS]
    names = [name for name in calibration.table.index if name in set(order)]
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    uniform = Uniformity(calibration.num_simulations, calibration.num_draws, len(calibration.table))
    with style():
        figure = Figure(figsize=(1.9 * columns + 0.4, 1.6 * rows + 0.3))
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for ax, name in zip(panels.flat, names, strict=False):
            _panel(ax, calibration, str(name), uniform)
        for ax in panels.flat[len(names) :]:
            ax.set_visible(False)
        figure.supxlabel("rank of the true value, as a share of the draws", fontsize=8, color=INK)
        figure.supylabel("share below, less uniform", fontsize=8, color=INK)
    return figure


def _panel(ax: Axes, calibration: Calibration, name: str, uniform: Uniformity) -> None:
    places = uniform.points / (calibration.num_draws + 1)
    low, high = uniform.band()
    found = uniform.counts(calibration.ranks[name].numpy()) / calibration.num_simulations
    direction = str(calibration.table["direction"][name])
    colour = COLOURS[1] if direction else COLOURS[0]
    ax.fill_between(places, low - places, high - places, step="post", color=GREY, alpha=0.35, linewidth=0)
    ax.axhline(0, color=GREY, linewidth=0.7)
    ax.step(places, found - places, where="post", color=colour, linewidth=1.2)
    title = f"{short(name, 22)}\n{direction}" if direction else short(name, 22)
    ax.set_title(title, loc="left", fontsize=7.5, color=colour if direction else INK)
    ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
