"""How a run went: the objective of gradient steps and of alternating updates, step by step."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..inference.info import CaviInfo, EmInfo, McemInfo, SviInfo
from .style import INK, Look, panel, thin


def plot_losses(name: str, info: SviInfo | McemInfo, look: Look) -> Figure:
    """Plot the negative loss of gradient steps: single steps faint, their running mean as a line."""
    values = -info.losses.detach().cpu().double().numpy()
    values[~np.isfinite(values)] = np.nan
    mean = np.asarray(pd.Series(values).rolling(max(1, len(values) // 50), min_periods=1).mean())
    shown = thin(len(values), 500)
    at_point = info.is_point or "laplace" in (info.guide or "").lower()  # its loss is a log joint density
    with panel() as (figure, ax):
        ax.plot(shown + 1, values[shown], color=look.colour, alpha=0.25, linewidth=0.6)
        ax.plot(shown + 1, mean[shown], color=look.colour, linewidth=1.6)
        framed = [*mean[len(mean) // 20 :], pd.Series(values[len(values) // 2 :]).quantile(0.98)]
        title = name
        if isinstance(info, SviInfo) and info.elbo is not None and not at_point:
            framed.append(info.elbo)
            ax.axhline(info.elbo, color=INK, linewidth=0.8, linestyle=":")
            title += f": ELBO {info.elbo:,.1f} at the end".replace("-", "−")
        _frame(ax, np.array(framed))
        ylabel = "log joint density, nats" if at_point else "ELBO estimate, nats"
        ax.set(title=title, xlabel="step", ylabel=ylabel)
    return figure


def plot_objective(name: str, info: EmInfo | CaviInfo, look: Look) -> Figure:
    """Plot the objective of the best restart after each iteration, and where the other valid restarts ended."""
    values = info.objective.detach().cpu().double().numpy()
    shown = thin(len(values), 500)
    with panel() as (figure, ax):
        ax.plot(shown, values[shown], color=look.colour, linewidth=1.6, marker="o", markersize=2.2)
        _frame(ax, values[len(values) // 20 :])
        bottom, _ = ax.get_ylim()
        for optimum in info.optima:
            if optimum["degenerate"] is None and bottom < optimum["objective"]:
                ax.axhline(optimum["objective"], color=INK, linewidth=0.8, linestyle=":")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ylabel = "log likelihood, nats" if isinstance(info, EmInfo) else "ELBO, nats"
        ax.set(title=name, xlabel="iteration", ylabel=ylabel)
    return figure


def _frame(ax: Axes, values: np.ndarray) -> None:
    """Fit the vertical axis to ``values``, whatever else is drawn."""
    values = values[np.isfinite(values)]
    if len(values):
        low, high = float(values.min()), float(values.max())
        pad = 0.08 * (high - low) or 0.01 * (1 + abs(low))
        ax.set_ylim(low - pad, high + pad)
