"""Variational families: autoguides by name for any model, and guides written out by hand for ours."""

from . import gmm, logistic
from .families import flow, full_rank, laplace, low_rank, map_point, mean_field

__all__ = ["flow", "full_rank", "gmm", "laplace", "logistic", "low_rank", "map_point", "mean_field"]
