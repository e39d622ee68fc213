"""EM of the linear Gaussian models, on as many rows as there are columns, however many rows the data have.

A rotation of the rows, x → H x with H orthogonal, leaves every sum over rows in a Gaussian likelihood as it was. One
that gathers the mean in a single row and makes the rest upper triangular leaves at most d + 1 rows that are not zero,
so that an iteration costs min(n, d) d q operations (Tipping and Bishop 1999, appendix B, need d² q or n d q).
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import pyro
import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.steps import Params, Steps
from .model import LOC_SCALE, NOISE_SCALE, NOISE_SHAPE, check, check_columns, default_prior, starting_sites, triangle


class Rotated(NamedTuple):
    """Data after a rotation of the rows.

    Attributes
    ----------
    x : Tensor, shape (r, d)
        What is left of the data: r ≤ d + 1 rows, or n + 1. The remaining rows are zero, but count.
    ones : Tensor, shape (r,)
        What is left of a column of ones: √n in the last row, and zeros.
    num_rows : int
        n.
    """

    x: Tensor
    ones: Tensor
    num_rows: int


class Expectations(NamedTuple):
    """What the E-step hands on.

    Attributes
    ----------
    mean : Tensor, shape (r, q)
        E[z | x] of the rotated rows.
    covariance : Tensor, shape (q, q)
        Of z given x, the same for all n rows.
    noise_variance : Tensor, shape () or (d,)
        The parameter, to which the loadings are fitted where there is a prior.
    log_likelihood : Tensor, scalar
        log p(x), in nats; nan for parameters out of range.
    """

    mean: Tensor
    covariance: Tensor
    noise_variance: Tensor
    log_likelihood: Tensor


def rotate(x: Float[Tensor, "n d"]) -> Rotated:
    """Rotate the rows of the data so that few of them are not zero."""
    mean, rest = triangle(x)
    length = math.sqrt(len(x))
    ones = x.new_zeros(len(rest) + 1)
    ones[-1] = length
    return Rotated(torch.cat([rest, length * mean.unsqueeze(0)]), ones, len(x))


@functools.lru_cache(maxsize=4)
def _remembered(x: Tensor, version: int) -> Rotated:
    """`rotate`, worked out once for a tensor; ``version`` counts the tensor's changes."""
    return rotate(x)


def linear_gaussian_em(
    name: str,
    *,
    latent_dim: int,
    map: bool,
    prior_scale: float,
    shared_noise: bool,
    degenerate: Callable[..., str | None],
) -> Steps:
    """Steps of EM for one noise variance or one a column.

    Without a prior these are Tipping and Bishop's (1999, appendix B) and Rubin and Thayer's (1982). With ``map`` the
    M-step maximises in two stages, W and loc given the last noise variance and then the noise variance given these
    (ECM, Meng and Rubin 1993), as W's prior is not in units of the noise.

    Parameters
    ----------
    name : str
        The model's, for error messages.
    latent_dim : int
        q.
    map : bool
        Whether to add the logarithm of `default_prior` to the objective.
    prior_scale : float
        Of that prior.
    shared_noise : bool
        Whether one noise variance serves all columns.
    degenerate : callable
        As for `Steps`.

    Returns
    -------
    Steps
        Restarts begin at random loadings, but the first one with a noise variance a column at principal axes.
    """

    def init(restart: int, x: Tensor) -> Params:
        check(name, latent_dim, x.shape[1], prior_scale)
        if restart == 0 and not shared_noise:
            return starting_sites(name, x, latent_dim, shared_noise=False)
        if not shared_noise:
            check_columns(name, x)
        variance = x.var(0, correction=0)
        W = (variance / latent_dim).sqrt()[:, None] * x.new_empty(x.shape[1], latent_dim).normal_()
        return {"W": W, "loc": x.mean(0), "noise_variance": variance.mean() if shared_noise else variance}

    def e_step(params: Params, x: Tensor) -> Expectations:
        data = _remembered(x, x._version)
        W, columns = params["W"], x.shape[1]
        noise = params["noise_variance"].expand(columns)
        weighted = W / noise[:, None]
        eye = torch.eye(latent_dim, dtype=x.dtype, device=x.device)
        root, info = torch.linalg.cholesky_ex(eye + W.mT @ weighted)
        root = torch.where(info == 0, root, torch.nan)
        covariance = torch.cholesky_inverse(root)
        centred = data.x - data.ones[:, None] * params["loc"]
        mean = centred @ weighted @ covariance
        distance = ((centred - mean @ W.mT).square() / noise).sum() + mean.square().sum()
        log_det = noise.log().sum() + 2 * root.diagonal().log().sum()
        log_likelihood = -0.5 * (distance + data.num_rows * (log_det + columns * math.log(2 * math.pi)))
        return Expectations(mean, covariance, params["noise_variance"], log_likelihood)

    def m_step(expectations: Expectations, x: Tensor) -> Params:
        data = _remembered(x, x._version)
        features = torch.cat([expectations.mean, data.ones[:, None]], 1)
        gram = features.mT @ features
        gram[:-1, :-1] += data.num_rows * expectations.covariance
        coefficients = _regress(gram, features.mT @ data.x, expectations.noise_variance, prior_scale if map else None)
        W, loc = coefficients[:-1].mT, coefficients[-1]
        squares = (data.x - features @ coefficients).square().sum(0)
        squares = squares + data.num_rows * ((W @ expectations.covariance) * W).sum(1)
        count = data.num_rows
        if shared_noise:
            squares, count = squares.sum(), count * x.shape[1]
        if map:
            squares, count = squares + 2 * NOISE_SCALE * prior_scale**2, count + 2 * (NOISE_SHAPE + 1)
        return {"W": W, "loc": loc, "noise_variance": squares / count}

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return expectations.log_likelihood + (log_prior(params) if map else 0)

    def log_prior(params: Params) -> Tensor:
        W = params["W"]
        with pyro.validation_enabled(False):  # an extrapolation may leave the support, and is then refused
            prior = default_prior(
                W, num_features=len(W), latent_dim=latent_dim, prior_scale=prior_scale, shared_noise=shared_noise
            )
            return sum((p.log_prob(params[site]) for site, p in prior._asdict().items()), start=W.new_zeros(()))

    return Steps(init, e_step, m_step, objective, degenerate, accelerate=True)


def _regress(gram: Tensor, target: Tensor, noise: Tensor, prior_scale: float | None) -> Tensor:
    """Coefficients of every column on factors and ones, shape (q + 1, d): (gram + ψ P)⁻¹ target, column by column.

    P is the prior precision of a column's coefficients, zero where ``prior_scale`` is None. With S = P^(-½) the
    eigenvectors of S gram S serve all columns, whatever their ψ.
    """
    scale = target.new_ones(len(target))
    if prior_scale is not None:
        scale[:-1], scale[-1] = prior_scale, LOC_SCALE * prior_scale
    else:
        noise = torch.zeros_like(noise)
    values, vectors = torch.linalg.eigh(gram * scale * scale[:, None])
    return scale[:, None] * (vectors @ ((vectors.mT @ (scale[:, None] * target)) / (values[:, None] + noise)))
