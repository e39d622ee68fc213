"""What a choice between values of an option rests on: the criterion with its errors, and other criteria below it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..inference.choice import Choice
from .style import COLOURS, GREY, INK, SOFT, style

TITLES = {
    "num_parameters": "effective number of parameters",
    "bic": "BIC, nats; higher is better",
    "icl": "ICL, nats; higher is better",
    "laplace_evidence": "Minka's log evidence, nats; higher is better",
    "perplexity": "held-out perplexity; lower is better",
}
_NOT_DRAWN = ("elpd", "error", "difference", "difference_error", "num_unreliable", "seconds", "perplexity_error")
_FAR = 5  # times the median difference: a value so much worse is named at the edge, and does not stretch the axis


def plot_choice(choice: Choice) -> Figure:
    """Plot the criterion at each value, the chosen one marked; each further criterion on an axis of its own.

    Whiskers are one standard error: thin grey ones of the criterion, thick ones of its difference to the best.
    """
    table = choice.table
    further = [str(name) for name in table if name not in _NOT_DRAWN and np.isfinite(table[name]).sum() > 1]
    place = _places(list(table.index))
    with style():
        figure = Figure(figsize=(3.9, 2.7 + 1.15 * len(further)))
        axes = figure.subplots(1 + len(further), 1, squeeze=False, height_ratios=[2.3] + [1] * len(further))[:, 0]
        _criterion(axes[0], choice, place)
        for ax, name in zip(axes[1:], further, strict=True):
            _further(ax, table, name, place)
        for ax in axes:
            ax.axvline(
                place[list(table.index).index(choice.chosen)], color=GREY, linewidth=0.8, linestyle=":", zorder=0
            )
            ax.set_xticks(place, [] if ax is not axes[-1] else [_label(value) for value in table.index])
            ax.set_xlim(min(place) - 0.4, max(place) + 0.4)
        axes[-1].set_xlabel(choice.option)
    return figure


def _criterion(ax: Axes, choice: Choice, place: Sequence[float]) -> None:
    values, table = list(choice.table.index), choice.table.fillna(0.0)
    far = _far(choice.table)
    for x, (value, row) in zip(place, table.iterrows(), strict=True):
        if value in far:
            difference = float(choice.table["difference"].to_numpy()[values.index(value)])
            text = f"↓ {difference:,.0f}".replace("-", "−") if math.isfinite(difference) else "↓ −∞"
            ax.text(x, 0.02, text, transform=ax.get_xaxis_transform(), color=COLOURS[0], fontsize=7, ha="center")
            continue
        colour = COLOURS[1] if value == choice.chosen else COLOURS[0]
        ax.errorbar(x, row["elpd"], yerr=row["error"], color=GREY, linewidth=0.9, capsize=2)
        ax.errorbar(
            x, row["elpd"], yerr=row["difference_error"], color=colour, linewidth=2.6, marker="o", markersize=4.5
        )
    near = [index for index, value in enumerate(values) if value not in far]
    ax.plot([place[i] for i in near], table["elpd"].iloc[near], color=COLOURS[0], linewidth=0.7, alpha=0.6, zorder=0)
    at = place[values.index(choice.chosen)]
    right = at > (min(place) + max(place)) / 2
    ax.annotate(
        f"{_label(choice.chosen)} is chosen",
        (at, 0.98),
        xycoords=ax.get_xaxis_transform(),
        xytext=(-4 if right else 4, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top",
        color=COLOURS[1],
        fontsize=8,
    )
    ax.margins(y=0.16)  # room for that name above all there is, and for arrows below
    ax.set_title(f"elpd by {next(iter(choice.scores.values())).how}, nats; higher is better", loc="left", color=INK)
    ax.yaxis.set_major_locator(MaxNLocator(5))


def _far(table: pd.DataFrame) -> set[Any]:
    """Return the values that would stretch the axis, if there are enough others."""
    behind = -table["difference"].to_numpy(float)
    usual = np.median(behind[np.isfinite(behind) & (behind > 0)] if (behind > 0).any() else behind)
    impossible = ~np.isfinite(behind)
    far = impossible | (behind > _FAR * usual)
    return {value for value, out in zip(table.index, far if (~far).sum() >= 3 else impossible, strict=True) if out}


def _further(ax: Axes, table: pd.DataFrame, name: str, place: Sequence[float]) -> None:
    error = table.get(f"{name}_error")
    ax.errorbar(place, table[name], yerr=error, color=SOFT, linewidth=1, marker="o", markersize=3, elinewidth=0.8)
    ax.set_title(TITLES.get(name, name), loc="left")
    ax.yaxis.set_major_locator(MaxNLocator(3))
    if name != "num_parameters" and name in TITLES:
        best = int((table[name] if name == "perplexity" else -table[name]).argmin())
        ax.plot(place[best], table[name].iloc[best], marker="o", markersize=5, color=COLOURS[2], zorder=3)


def _places(values: Sequence[Any]) -> list[float]:
    """Return whole numbers near each other as they are, all else at even distances."""
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    if whole and max(values) - min(values) < 2 * len(values):
        return [float(value) for value in values]
    return [float(index) for index in range(len(values))]


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
