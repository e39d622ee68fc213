"""Variational families: autoguides by name for any model, and guides written out by hand for ours."""

from . import autoregressive, factor_analysis, gmm, lda, linear, logistic, mixture, ppca, vae
from .families import flow, full_rank, laplace, low_rank, map_point, mean_field

__all__ = [
    "autoregressive",
    "factor_analysis",
    "flow",
    "full_rank",
    "gmm",
    "laplace",
    "lda",
    "linear",
    "logistic",
    "low_rank",
    "map_point",
    "mean_field",
    "mixture",
    "ppca",
    "vae",
]
