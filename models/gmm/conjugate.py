"""What a Gaussian mixture's conjugate prior becomes once every row has been shared out among the components."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .model import Covariance, Prior


class Statistics(NamedTuple):
    """Sufficient statistics of rows shared out among components.

    Attributes
    ----------
    counts : Tensor, shape (..., k)
        Rows to each component's name.
    mean : Tensor, shape (..., k, d)
        Their means.
    scatter : Tensor
        Sums of squares and products about those means: (..., k, d, d), tied (..., 1, d, d), diagonal (..., k, d),
        isotropic (..., k).
    """

    counts: Tensor
    mean: Tensor
    scatter: Tensor


class Update(NamedTuple):
    """A normal-inverse-Wishart (or normal-inverse-gamma) posterior, a component each.

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


def statistics(shares: Float[Tensor, "... n k"], x: Float[Tensor, "n d"], covariance: Covariance) -> Statistics:
    """Counts, means and scatter, given each row's shares; an empty component has nan for its mean."""
    counts = shares.sum(-2)
    mean = (shares.mT @ x) / counts[..., None]
    centred = x - mean.unsqueeze(-2)  # (..., k, n, d)
    if covariance in ("full", "tied"):
        scatter = (shares.mT.unsqueeze(-1) * centred).mT @ centred
        scatter = scatter if covariance == "full" else scatter.sum(-3, keepdim=True)
    else:
        scatter = (shares.mT.unsqueeze(-1) * centred.square()).sum(-2)
        scatter = scatter if covariance == "diagonal" else scatter.sum(-1)
    return Statistics(counts, mean, scatter)


def outer(gap: Tensor, weight: Tensor, covariance: Covariance) -> Tensor:
    """Weighted squares and products of ``gap``, (..., k, d), in the shape of `Statistics.scatter`."""
    if covariance in ("full", "tied"):
        product = weight[..., None, None] * gap.unsqueeze(-1) * gap.unsqueeze(-2)
        return product if covariance == "full" else product.sum(-3, keepdim=True)
    square = weight[..., None] * gap.square()
    return square if covariance == "diagonal" else square.sum(-1)


def prior_scale(prior: Prior, covariance: Covariance) -> Tensor:
    """Λ as one component has it: (d, d), its diagonal, or that diagonal's mean."""
    if covariance in ("full", "tied"):
        return prior.scale
    return prior.scale.diagonal() if covariance == "diagonal" else prior.scale.diagonal().mean()


def update(shared: Statistics, prior: Prior, covariance: Covariance) -> Update:
    """The posterior of means and covariances, Bishop (2006), equations 10.60 to 10.63."""
    counts, dim = shared.counts, shared.mean.shape[-1]
    mean = torch.where((counts > 0)[..., None], shared.mean, prior.mean)
    scatter = torch.nan_to_num(shared.scatter) if not (counts > 0).all() else shared.scatter
    strength = prior.mean_strength + counts
    centre = (prior.mean_strength * prior.mean + counts[..., None] * mean) / strength[..., None]
    between = outer(mean - prior.mean, prior.mean_strength * counts / strength, covariance)
    rows = {"tied": lambda: counts.sum(-1, keepdim=True), "isotropic": lambda: dim * counts}
    df = prior.df + rows.get(covariance, lambda: counts)()
    return Update(strength, centre, df, prior_scale(prior, covariance) + scatter + between)
