"""Figures of posteriors, of the runs that made them, and of a model's graph; matplotlib without pyplot.

Every function returns a new figure and changes no setting.
"""

from .calibration import plot_calibration
from .choice import plot_choice
from .compare import ComparisonFigure, companion, plot_comparison, plot_pair, plot_quantity, worst_first
from .densities import Marginal, marginals
from .errors import plot_error_against_seconds, plot_ladder, without_error
from .graphs.figure import plot_graph
from .graphs.graph import Graph, model_graph
from .models import images
from .models.images import plot_manifold, plot_reconstructions, plot_samples
from .predictive import plot_predictive_check
from .runs import plot_losses, plot_objective
from .section import Section, Table
from .style import looks, to_svg

__all__ = [
    "ComparisonFigure",
    "Graph",
    "Marginal",
    "Section",
    "Table",
    "companion",
    "images",
    "looks",
    "marginals",
    "model_graph",
    "plot_calibration",
    "plot_choice",
    "plot_comparison",
    "plot_error_against_seconds",
    "plot_graph",
    "plot_ladder",
    "plot_losses",
    "plot_manifold",
    "plot_objective",
    "plot_pair",
    "plot_predictive_check",
    "plot_quantity",
    "plot_reconstructions",
    "plot_samples",
    "to_svg",
    "without_error",
    "worst_first",
]
