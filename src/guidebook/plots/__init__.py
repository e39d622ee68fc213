"""Figures of posteriors, of the runs that made them and of the model itself; matplotlib without pyplot.

Every function returns a figure of its own. Nothing is kept between calls: no current figure, no changed setting.
"""

from .compare import ComparisonFigure, plot_comparison, plot_quantity, worst_first
from .graphs.figure import MOST_NODES, plot_graph
from .graphs.graph import Graph, model_graph
from .models.images import plot_manifold, plot_reconstructions, plot_samples
from .models.mixtures import Mixture, mixtures_of, plot_mixtures, separating_columns
from .models.profiles import Band, plot_profiles, plot_shares, profiles_of, shares_of
from .pairs import companion, plot_pair
from .runs import plot_losses, plot_objective
from .style import Look, looks, to_svg

__all__ = [
    "MOST_NODES",
    "Band",
    "ComparisonFigure",
    "Graph",
    "Look",
    "Mixture",
    "companion",
    "looks",
    "mixtures_of",
    "model_graph",
    "plot_comparison",
    "plot_graph",
    "plot_losses",
    "plot_manifold",
    "plot_mixtures",
    "plot_objective",
    "plot_pair",
    "plot_profiles",
    "plot_quantity",
    "plot_reconstructions",
    "plot_samples",
    "plot_shares",
    "profiles_of",
    "separating_columns",
    "shares_of",
    "to_svg",
    "worst_first",
]
