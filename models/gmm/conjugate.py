"""Sufficient statistics of a Gaussian mixture's rows, and what they make of the conjugate prior."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .covariance import Form
from .prior import Prior


class Statistics(NamedTuple):
    """Sufficient statistics of the rows, weighted by their responsibilities.

    Attributes
    ----------
    counts : Tensor, shape (..., k)
        N_k: (effective) number of rows per component.
    mean : Tensor, shape (..., k, d)
        Their means; nan for a component without rows.
    scatter : Tensor
        Sums of squares and products about those means: (..., k, d, d), tied (..., 1, d, d), diagonal (..., k, d),
        isotropic (..., k).
    """

    counts: Tensor
    mean: Tensor
    scatter: Tensor


class NormalWishart(NamedTuple):
    """A normal-inverse-Wishart (or normal-inverse-gamma) posterior per component.

    Attributes
    ----------
    mean_strength : Tensor, shape (..., k)
        κ.
    mean : Tensor, shape (..., k, d)
        m.
    df : Tensor, shape (..., k), tied (..., 1)
        ν; a diagonal or isotropic precision has shape ν/2 and rate ``scale``/2.
    scale : Tensor
        Λ, shaped as `Statistics.scatter`.
    """

    mean_strength: Tensor
    mean: Tensor
    df: Tensor
    scale: Tensor


def statistics(r: Float[Tensor, "... k n"], x: Float[Tensor, "n d"], form: Form) -> Statistics:
    """Return the sufficient statistics, given each row's responsibilities r."""
    counts = r.sum(-1)
    mean = (r @ x) / counts.unsqueeze(-1)
    return Statistics(counts, mean, form.scatter(r, x.mT - mean.nan_to_num().unsqueeze(-1)))


def update(given: Statistics, prior: Prior, form: Form) -> NormalWishart:
    """Return the posterior of means and covariances, Bishop (2006), equations 10.60 to 10.63."""
    counts = given.counts
    mean = torch.where((counts > 0).unsqueeze(-1), given.mean, prior.mean)
    strength = prior.mean_strength + counts
    centre = (prior.mean_strength * prior.mean + counts.unsqueeze(-1) * mean) / strength.unsqueeze(-1)
    shrinkage = (prior.mean_strength * counts / strength).unsqueeze(-1)
    between = form.scatter(shrinkage, (mean - prior.mean).unsqueeze(-1))
    df = prior.df + form.degrees(counts, mean.shape[-1])
    return NormalWishart(strength, centre, df, form.project(prior.scale) + given.scatter + between)
