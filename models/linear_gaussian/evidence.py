"""Evidence of a number of factors in probabilistic PCA, by Laplace's method around the maximum of the likelihood."""

import math

from jaxtyping import Float
from torch import Tensor

from .data import check
from .start import principal_axes


def laplace_evidence(x: Float[Tensor, "n d"], latent_dim: int) -> float:
    """Return log p(x | latent_dim) under vague priors, in nats, up to a constant that all ``latent_dim`` share.

    Minka (2000), Automatic choice of dimensionality for PCA, NIPS 13, equations 30 and 31, with the likelihood's
    constants kept. The loadings are written as eigenvalues, directions (uniform, of which Laplace's method integrates
    the tangent space) and a rotation of the factors that changes nothing and is left out. That, not the prior of
    `ppca.model` on W, is what makes the integral finite: there, the density is flat along rotations and has no
    curvature for Laplace's method.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    latent_dim : int
        q, less than d.

    Returns
    -------
    float
        -inf if the rows lie in fewer than q dimensions.

    Raises
    ------
    ValueError
        If ``latent_dim`` is out of range.
    """
    n, d = x.shape
    q = latent_dim
    check("ppca", q, d)
    found = principal_axes(x, q)
    eigenvalues, noise = found["eigenvalues"], found["noise_variance"]
    if not noise > 0:
        return -math.inf
    precision = 1 / eigenvalues.clone()
    precision[q:] = 1 / noise
    gaps = (eigenvalues[:q, None] - eigenvalues) * (precision - precision[:q, None])
    log_curvature = sum(gaps[i, i + 1 :].log().sum() + (d - i - 1) * math.log(n) for i in range(q))
    sizes = range(d, d - q, -1)
    log_uniform = -q * math.log(2) + sum(math.lgamma(k / 2) - k / 2 * math.log(math.pi) for k in sizes)
    num_angles = d * q - q * (q + 1) / 2
    log_det = eigenvalues[:q].log().sum() + (d - q) * noise.log()
    log_likelihood = -0.5 * n * (d * math.log(2 * math.pi) + log_det + d)
    volume = (num_angles + q) / 2 * math.log(2 * math.pi) - q / 2 * math.log(n)
    return float(log_likelihood + log_uniform + volume - 0.5 * log_curvature)
