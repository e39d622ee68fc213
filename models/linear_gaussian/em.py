"""EM of the linear Gaussian models, on as many rows as there are columns, however many rows the data have.

Rows are taken about their mean, so that data far from 0 lose no digits. A rotation of them, x → H x with H orthogonal,
leaves every sum over rows in a Gaussian likelihood unchanged. One that puts their mean into a single row, here of
zeros, and makes the rest upper triangular leaves at most d + 1 rows, so an iteration costs min(n, d) d q operations
(Tipping and Bishop 1999, appendix B, need d² q or n d q).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.blocks import Blocks
from .._shared.inputs import check_spread, rows_of
from .._shared.row_weights import checked_weights
from .._shared.steps import Params, Steps
from .compress import compress
from .data import check, check_columns
from .start import starting_sites_of


class CompressedRows(NamedTuple):
    """Data, and what a rotation of the rows leaves of them."""

    x: Tensor  # (n, d): the data; those rotated if the data come in blocks
    centre: Tensor  # (d,): their mean
    rows: Tensor  # (r, d): the rows about it, rotated; r ≤ d + 1, or n + 1
    ones: Tensor  # (r,): a column of ones, rotated likewise: √n in the last row, and zeros

    @property
    def total(self) -> Tensor:
        """How many rows there are, each as many times as it counts."""
        return self.ones[-1].square()

    @property
    def variance(self) -> Tensor:
        """Variance of each column, with 1/n, shape (d,)."""
        return self.rows[:-1].square().sum(0) / self.total


class Expectations(NamedTuple):
    """Result of the E-step."""

    mean: Tensor  # (r, q): E[z | x] of the rotated rows
    covariance: Tensor  # (q, q): of z given x, the same for all n rows
    noise_variance: Tensor  # () or (d,): the parameter; a prior weighs the loadings against it
    log_likelihood: Tensor  # log p(x), in nats; nan for parameters out of range


def prepare(x: Float[Tensor, "n d"] | Blocks, row_weights: Tensor | None = None) -> CompressedRows:
    """Rotate the rows of the data, about their mean, so that few of them are not zero.

    ``row_weights`` say how many times each row counts; default: once.
    """
    row_weights = checked_weights("em", row_weights, len(x))
    centre, rest = compress(x, row_weights)
    if isinstance(x, Tensor):
        centre, rest = centre.to(x.dtype), rest.to(x.dtype)
    ones = rest.new_zeros(len(rest) + 1)
    ones[-1] = math.sqrt(len(x) if row_weights is None else float(row_weights.sum()))
    rows = torch.cat([rest, rest.new_zeros(1, x.shape[1])])
    return CompressedRows(x if isinstance(x, Tensor) else rows, centre, rows, ones)


def em_steps(
    name: str, latent_dim: int, prior_scale: float | None, degenerate: Callable[..., str | None], *, shared_noise: bool
) -> Steps:
    """Return steps of EM for one noise variance, or one per column; for maximum likelihood without ``prior_scale``.

    Without a prior these are Tipping and Bishop's (1999, appendix B) and Rubin and Thayer's (1982). With one, whose
    logarithm is added to the objective, the M-step maximises in two stages, W and loc given the last noise variance and
    then the noise variance given these (ECM, Meng and Rubin 1993), since W's prior is not in units of the noise.
    Restarts begin at random loadings, except the first one with a noise variance per column: at principal axes.
    """

    def init(restart: int, *data: Tensor) -> Params:
        found = prepared(*data)
        columns, variance, loc = found.x.shape[1], found.variance, found.centre
        check(name, latent_dim, columns, 1.0 if prior_scale is None else prior_scale)
        check_spread(name, found.x, variance)
        if not shared_noise:
            check_columns(found.x)
            if restart == 0:
                return starting_sites_of(loc, found.rows[:-1], float(found.total), latent_dim, shared_noise=False)
        W = (variance / latent_dim).sqrt()[:, None] * variance.new_empty(columns, latent_dim).normal_()
        return {"W": W, "loc": loc, "noise_variance": variance.mean() if shared_noise else variance}

    def objective(params: Params, expectations: Expectations) -> Tensor:
        return expectations.log_likelihood + (0 if prior_scale is None else _log_prior(params, prior_scale))

    m_step = partial(_m_step, prior_scale=prior_scale, shared_noise=shared_noise)

    def checked_rows(x: Tensor | Blocks, row_weights: Tensor | None = None) -> CompressedRows:
        x = rows_of(name, x)
        if not (isinstance(x, Tensor) or shared_noise):
            check_columns(x)
        return prepare(x, row_weights)

    return Steps(init, e_step, m_step, objective, degenerate, checked_rows, accelerate=True, by_blocks=True)


def e_step(params: Params, *data: Tensor) -> Expectations:
    """Return what the factors are expected to be, and log p(x); data as they are or as `prepare` returns them."""
    found = prepared(*data)
    x, centre, rows, ones = found
    W, columns = params["W"], x.shape[1]
    noise = params["noise_variance"].expand(columns)
    weighted = W / noise[:, None]
    root, info = torch.linalg.cholesky_ex(torch.eye(W.shape[1], dtype=x.dtype, device=x.device) + W.mT @ weighted)
    root = torch.where(info == 0, root, torch.nan)
    covariance = torch.cholesky_inverse(root)
    centred = rows - ones[:, None] * (params["loc"] - centre)
    mean = centred @ weighted @ covariance
    distance = ((centred - mean @ W.mT).square() / noise).sum() + mean.square().sum()
    log_det = noise.log().sum() + 2 * root.diagonal().log().sum()
    log_likelihood = -0.5 * (distance + found.total * (log_det + columns * math.log(2 * math.pi)))
    return Expectations(mean, covariance, params["noise_variance"], log_likelihood)


def _m_step(expectations: Expectations, *data: Tensor, prior_scale: float | None, shared_noise: bool) -> Params:
    found = prepared(*data)
    x, centre, rows, ones = found
    features = torch.cat([expectations.mean, ones[:, None]], 1)
    gram = features.mT @ features
    gram[:-1, :-1] += found.total * expectations.covariance
    coefficients = _regress(gram, features.mT @ rows, expectations.noise_variance, prior_scale, centre)
    W, loc = coefficients[:-1].mT, centre + coefficients[-1]
    squares = (rows - features @ coefficients).square().sum(0)
    squares = squares + found.total * ((W @ expectations.covariance) * W).sum(1)
    count = found.total
    if shared_noise:
        squares, count = squares.sum(), count * x.shape[1]
    if prior_scale is not None:  # InverseGamma(a, b) adds 2 b to the squares and 2 (a + 1) to the count
        squares, count = squares + 2 * prior_scale**2 / 10, count + 2 * (1 + 1)
    return {"W": W, "loc": loc, "noise_variance": squares / count}


def _regress(gram: Tensor, target: Tensor, noise: Tensor, prior_scale: float | None, centre: Tensor) -> Tensor:
    """Coefficients of every column on factors and ones, (q + 1, d): (gram + ψ P)⁻¹ (target + ψ P m), column by column.

    P is the prior precision of a column's coefficients, zero without a prior, and m their prior mean: zero, but minus
    the ``centre`` for the ones, from where the mean is counted. With S = P^(-½) the eigenvectors of S gram S serve all
    columns, whatever their ψ.
    """
    scale = target.new_ones(len(target))
    if prior_scale is not None:
        scale[:-1], scale[-1] = prior_scale, 10 * prior_scale
    else:
        noise = torch.zeros_like(noise)
    wanted = scale[:, None] * target
    wanted[-1] -= noise * centre / scale[-1]
    values, vectors = torch.linalg.eigh(gram * scale * scale[:, None])
    return scale[:, None] * (vectors @ ((vectors.mT @ wanted) / (values[:, None] + noise)))


def _log_prior(params: Params, prior_scale: float) -> Tensor:
    """Log density, in nats, of the prior that ``ppca.model`` and ``factor_analysis.model`` write out."""
    zero = params["W"].new_zeros(())
    with pyro.validation_enabled(False):  # a jump may leave the support, and is then refused
        W = dist.Normal(zero, prior_scale).log_prob(params["W"])
        loc = dist.Normal(zero, 10 * prior_scale).log_prob(params["loc"])
        noise = dist.InverseGamma(zero + 1, prior_scale**2 / 10).log_prob(params["noise_variance"])
    return W.sum() + loc.sum() + noise.sum()


def prepared(*data: Tensor) -> CompressedRows:
    """Return what `prepare` makes of the data, unless it has been done."""
    return CompressedRows(*data) if len(data) == 4 else prepare(*data)
