"""Guides of factor analysis: those of probabilistic PCA, with noise_variance[i] ~ LogNormal for every column."""

from torch import Tensor

from . import linear_gaussian
from .linear_gaussian import factors, linear_encoder

__all__ = ["factors", "linear_encoder", "mean_field"]


def mean_field(x: Tensor, *, latent_dim: int = 2) -> None:
    """As ``guides.ppca.mean_field``, over the sites of ``models.factor_analysis.model``."""
    linear_gaussian.mean_field(x, latent_dim, shared_noise=False)
