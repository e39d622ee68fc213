"""The conjugate prior of a Gaussian mixture."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.blocks import Blocks
from .._shared.cache import remembered
from .._shared.inputs import check_spread
from .._shared.responsibilities import moments


class Prior(NamedTuple):
    """Conjugate prior of a Gaussian mixture.

    Attributes
    ----------
    concentration : float
        c: of the symmetric Dirichlet over the weights.
    mean : Tensor, shape (d,)
        m: centre of the components' means, in the data's units.
    mean_strength : float
        κ: how many observations the prior of a mean is worth.
    df : float
        ν: degrees of freedom of the covariances; more than d - 1.
    scale : Tensor, shape (d, d)
        Λ: scale of the covariances, in squared units of the data. If ν = d + 2, matrices have it as their prior mean,
        and variances (diagonal or isotropic) a prior mean of Λ/d.
    """

    concentration: float
    mean: Tensor
    mean_strength: float
    df: float
    scale: Tensor


def default_prior(
    x: Float[Tensor, "n d"] | Blocks,
    num_components: int,
    dtype: torch.dtype | None = None,
    row_weights: Float[Tensor, " n"] | None = None,
) -> Prior:
    """Return a weakly informative prior in the data's own units.

    κ = 0.01, ν = d + 2 and m, the data's mean, are those of Fraley and Raftery (2007, section 3). Their Λ is the data's
    covariance divided by K^(2/d). Here Λ is diagonal, the data's variances divided by K², which is smaller: with a
    large Λ one wide component can replace two. The Dirichlet's concentration is 5,
    so that no component starves.

    The prior's tensors have ``dtype``, default: that of ``x``. ``row_weights`` say how many times each row counts.
    ValueError if a column is constant or has no finite variance, or if the columns are linearly dependent.
    """
    dtype = dtype or x.dtype
    mean, covariance = moments(x, row_weights)
    variance, dim = covariance.diagonal(), len(mean)
    if not torch.isfinite(variance).all():
        column = int((~torch.isfinite(variance)).nonzero()[0])
        raise ValueError(f"gmm: column {column} has no finite variance: it holds nan, inf or numbers past 1e150")
    check_spread("gmm", x)
    if not (variance > 0).all():
        raise ValueError(f"gmm: column {int((variance <= 0).nonzero()[0])} is constant: leave it out")
    sd = variance.sqrt()
    if torch.linalg.eigvalsh(covariance / (sd * sd[:, None]))[0] < 100 * dim * torch.finfo(dtype).eps:
        raise ValueError("gmm: the columns are linearly dependent (or there are fewer rows than columns)")
    return Prior(5.0, mean.to(dtype), 0.01, dim + 2.0, torch.diag(variance / num_components**2).to(dtype))


remembered_prior = remembered(default_prior)


def check(num_components: int, num_rows: int) -> None:
    """Raise ValueError unless a mixture of this many rows can have this many components."""
    if not 1 <= num_components <= num_rows:
        raise ValueError(
            f"gmm: num_components must lie between 1 and the number of rows, {num_rows}; got {num_components}"
        )
