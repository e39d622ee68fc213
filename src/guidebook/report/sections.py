"""The sections on the posteriors of any model: marginal and joint."""

from collections.abc import Mapping

import pandas as pd

from .. import plots
from ..inference.compare import Comparison
from ..inference.words import number
from ..plots import Section, Table

_MOST_PANELS, _MOST_ROWS = 12, 200
_FIGURES = {
    "mean": "mean",
    "sd": "sd",
    "mean_shift_in_sd": "mean shift",
    "sd_ratio": "sd ratio",
    "wasserstein_in_sd": "W₁",
    "mcse_in_sd": "MCSE, in sd",
    "r_hat": "R̂",
    "ess": "ESS",
}


def posteriors(comparison: Comparison, titles: Mapping[str, str]) -> Section:
    """Show every quantity under every method: the worst as densities under their ``titles``, all as tables."""
    order = plots.worst_first(comparison)
    tables = [_table(name, frame.loc[order]) for name, frame in comparison.quantities.items()]
    if all(frame["sd"].isna().all() for frame in comparison.quantities.values()):
        return Section("Marginal posteriors", "All are points, without a spread to draw.", tables=tables)
    names = ", ".join(comparison.posteriors)
    figures = []
    for i, label in enumerate(order[:_MOST_PANELS]):
        figure = plots.plot_quantity(comparison, label, titles[label])
        figures.append(plots.to_svg(figure, f"Posterior densities of {label} under {names}", f"q{i}"))
    left = len(order) - len(figures)
    text = (
        "One panel per quantity, those first in which the methods differ most. The grey area is "
        f"{comparison.reference}, lines are the others, vertical lines are point estimates. A line narrower than the "
        "area is overconfident; one beside it is biased. Narrow peaks are cut off at four times the reference's height."
    )
    if left:
        text += f" {left} more {'quantity is' if left == 1 else 'quantities are'} not drawn; their figures are below."
    return Section("Marginal posteriors", text, figures, tables, legend=True)


def _table(name: str, frame: pd.DataFrame) -> Table:
    rows = [[str(label), *(number(row[column]) for column in _FIGURES)] for label, row in frame[:_MOST_ROWS].iterrows()]
    count = f"{len(frame)} quantities" if len(frame) <= _MOST_ROWS else f"{_MOST_ROWS} of {len(frame)} quantities"
    return Table(["quantity", *_FIGURES.values()], rows, f"{name}: the figures of {count}")


def pair(comparison: Comparison) -> Section | None:
    """Show the worst quantity against the one most correlated with it; None if the reference is a point."""
    worst = plots.worst_first(comparison)[0]
    if comparison.posteriors[comparison.reference].info.is_point or not (other := plots.companion(comparison, worst)):
        return None
    description = f"Joint posterior of {worst} and {other} under {', '.join(comparison.posteriors)}"
    figure = plots.to_svg(plots.plot_pair(comparison, worst, other), description, "pair")
    return Section(
        "Joint posterior",
        f"{worst}, in which the methods differ most, against {other}, the quantity most correlated with it under "
        f"{comparison.reference} (dots: its draws). Each ellipse holds 90 % of the normal distribution with a "
        "posterior's mean and covariance. An upright ellipse over slanted dots ignores the correlation and is too "
        "narrow for that reason.",
        [figure],
        legend=True,
        wide=True,
    )
