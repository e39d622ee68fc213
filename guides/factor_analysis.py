"""Guides of factor analysis written out: over the global sites of `model`, and over the factors of `latent_model`.

mean_field       W[i, j], loc[i] ~ Normal, noise_variance[i] ~ LogNormal
linear_encoder   z[n] ~ Normal(A (x[n] - b), L Lᵀ), which can be the exact posterior
factors          z[n, j] ~ Normal, each with its own location and scale
"""

from torch import Tensor

from . import linear_gaussian
from .linear_gaussian import factors, linear_encoder

__all__ = ["factors", "linear_encoder", "mean_field"]


def mean_field(x: Tensor, *, latent_dim: int = 2) -> None:
    """Independent distributions over the sites of ``models.factor_analysis.model``, each with its site's support.

    The exact posterior of W is a ring, as axes can turn; this guide covers an arc of it, so its sd of W means little.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    latent_dim : int
        q, as given to the model.
    """
    linear_gaussian.mean_field(x, latent_dim, shared_noise=False)
