"""Means and standard deviations under the posterior from many short chains, with what can be known of their errors.

The gradients that the chains have taken serve as control variates: their means are zero under the posterior, so that
they cancel most of the noise, and correct draws whose mean gradient is not zero by as much as it tells. Standard errors
come from the spread between chains, which are independent. Chains that are still under way, or remember where they
began, have a bias besides: it is estimated from how far they still move and how much they remember.

Mira, Solgi and Imparato (2013), Zero variance Markov chain Monte Carlo for Bayesian estimators, Statistics and
Computing 23; Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari and Gelman (2024), Nested R̂, Bayesian Analysis.
"""

from typing import NamedTuple

import torch
from scipy.special import fdtrc
from torch import Tensor

from ..diagnostics import MAX_CHANCE
from ..verdict import margin

CHAINS_PER_CONTROL = 4  # chains for each control variate, at least
DRAWS_PER_DIM = 4  # draws for each coordinate that a quantity is regressed on, at least
SUPERCHAINS = 8  # groups of chains that began near one another
LEAST_ERROR = 1e-3  # in standard deviations: no estimate is called more exact
MAX_BIAS = 0.05  # in standard deviations, of chains that count as settled
LEAST_VARIANCE = 0.05  # of that of the draws: control variates that promise less have failed


class Moments(NamedTuple):
    """Figures of each quantity under the posterior, shape (quantity,).

    Attributes
    ----------
    mean, sd : Tensor
    error_of_mean, error_of_sd : Tensor
        Standard error and estimated bias together, in the quantity's units.
    nested_r_hat : Tensor
        Whether chains that began in different places tell of one posterior: 1 if they do. It is above 1 by chance, too:
        about 1 + 1/(2 n), for n effective draws of a superchain.
    settled : Tensor of bool
        Whether chains have stopped moving, and forgotten where they began, as far as can be seen.
    """

    mean: Tensor
    sd: Tensor
    error_of_mean: Tensor
    error_of_sd: Tensor
    nested_r_hat: Tensor
    settled: Tensor


def moments(values: Tensor, starts: Tensor, coordinates: Tensor, gradients: Tensor) -> Moments:
    """Return the moments of quantities by the draws of all chains; nan for quantities that are not finite.

    Parameters
    ----------
    values : Tensor, shape (draw, chain, quantity)
    starts : Tensor, shape (chain, quantity)
        The quantities where the chains began.
    coordinates, gradients : Tensor, shape (draw, chain, d)
        Where the draws are, in coordinates of about unit scale, and the potential's gradients there (nats per unit).
    """
    finite = values.isfinite().all(0).all(0) & starts.isfinite().all(0)
    if not finite.all():
        found = torch.full((5, len(finite)), torch.nan, dtype=values.dtype)
        if finite.any():
            some = moments(values[..., finite], starts[:, finite], coordinates, gradients)
            found[:, finite] = torch.stack(some[:5])
            finite[finite.clone()] = some.settled
        return Moments(*found, finite)
    slope, curvature = _controls(values, coordinates, gradients)
    mean, error_of_mean = _controlled(values.mean(0), slope)
    squares = (values - mean).square()
    variance, error_of_variance = _controlled(squares.mean(0), torch.cat([slope, curvature], 2))
    plain = squares.mean((0, 1))
    variance = torch.where(variance > LEAST_VARIANCE * plain, variance, plain).clamp(min=1e-300)
    sd = variance.sqrt()

    distance = (starts.mean(0) - mean).abs() / sd
    nested, drift, memory = _bias(values / sd, starts)
    bias = torch.hypot(drift, memory * distance.clamp(min=1))
    _, growth, memory_of_squares = _bias(squares / (2 * variance), (starts - mean).square())
    bias_of_sd = torch.hypot(growth, memory_of_squares)
    error = torch.hypot((error_of_mean / sd).clamp(min=LEAST_ERROR), bias)
    error_of_sd = torch.hypot((error_of_variance / (2 * variance)).clamp(min=LEAST_ERROR), bias_of_sd)
    return Moments(mean, sd, error * sd, error_of_sd * sd, nested, torch.maximum(bias, bias_of_sd) <= MAX_BIAS)


def _controls(values: Tensor, coordinates: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Return control variates of means and, besides, of squares, shape (chain, quantity, k): zero under the posterior.

    Those of means are the gradients, or their projections on the quantity's regression coefficients a where there are
    too few chains for all of them. That of squares is (a·z)(a·g) - a·a, z the coordinates and g the gradients: for a
    linear quantity of a normal, the squared distance from the mean less the variance.
    """
    draws, chains, dim = coordinates.shape
    count = values.shape[2]
    if draws * chains < DRAWS_PER_DIM * dim:
        nothing = values.new_zeros(chains, count, 0)
        return nothing, nothing
    z = (coordinates - coordinates.mean((0, 1))).flatten(0, 1)
    f = (values - values.mean((0, 1))).flatten(0, 1)
    a = torch.linalg.lstsq(z, f).solution  # (d, quantity)
    projected = gradients @ a
    curvature = ((z @ a).unflatten(0, (draws, chains)) * projected - a.square().sum(0)).mean(0)
    if (dim + 1) * CHAINS_PER_CONTROL <= chains:
        return gradients.mean(0)[:, None].expand(-1, count, -1), curvature[..., None]
    return projected.mean(0)[..., None], curvature[..., None]


def _controlled(of_chains: Tensor, controls: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of figures of chains (chain, quantity), less what controls explain, and its standard error."""
    chains, _, count = controls.shape
    mean, at = of_chains.mean(0), controls.mean(0)
    rest = of_chains - mean
    if count:
        x = (controls - at).movedim(1, 0)  # (quantity, chain, k)
        scale = x.square().mean(1, keepdim=True).sqrt().clamp(min=1e-300)
        x = x / scale
        gram = x.mT @ x + 1e-8 * chains * torch.eye(count).to(x)
        weights = torch.linalg.solve(gram, x.mT @ rest.T[..., None])
        rest = rest - (x @ weights)[..., 0].T
        mean = mean - (at / scale[:, 0] * weights[..., 0]).sum(1)
    return mean, (rest.square().sum(0) / (chains - 1 - count) / chains).sqrt()


def _bias(values: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return nested R̂, and what is no chance of drift and of memory, both in the units of ``values``.

    Drift is how far the mean moves from the first half of the draws to the second. Memory is the spread of the means of
    superchains, groups of chains that began near one another, beyond that of chains of one group.
    """
    draws, chains, count = values.shape
    half = draws // 2
    moved = values[-half:].mean(0) - values[:half].mean(0)
    drift, allowed = moved.mean(0).abs(), margin(count) * moved.std(0) / chains**0.5
    size = chains // SUPERCHAINS
    order = starts.argsort(0)[: size * SUPERCHAINS]
    grouped = values.gather(1, order.expand(draws, -1, -1)).unflatten(1, (SUPERCHAINS, size))
    of_chains = grouped.mean(0)
    between, by_chance = of_chains.mean(1).var(0), of_chains.var(1).mean(0) / size
    within = by_chance * size + grouped.var(0).mean((0, 1))
    degrees = SUPERCHAINS - 1, SUPERCHAINS * (size - 1)
    p_value = torch.as_tensor(fdtrc(*degrees, (between / by_chance.clamp(min=1e-300)).numpy()))
    memory = torch.where(2 * count * p_value < MAX_CHANCE, (between - by_chance).clamp(min=0).sqrt(), 0.0)
    return (1 + between / within.clamp(min=1e-300)).sqrt(), torch.where(drift > allowed, drift, 0.0), memory
