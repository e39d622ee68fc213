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
from torch import Tensor

from ..verdict import MAX_MCSE, margin
from .short_chains import stuck

CHAINS_PER_CONTROL = 4  # chains for each control variate, at least
DRAWS_PER_DIM = 4  # draws for each coordinate that a quantity is regressed on, at least
SUPERCHAINS = 8  # groups of chains that began near one another
LEAST_ERROR = 1e-3  # in standard deviations: no estimate is called more exact
MAX_BIAS = 0.05  # in standard deviations, of chains that count as settled
NARROW = 0.3  # spread of starts, in that of the draws, that tells what is left of them
MAX_LEFT = 0.99  # of the way from where chains began: more cannot be told from all
TESTS = 8  # of one quantity, whose errors of the first kind are to be rare together
LEAST_SPREAD = 1e-6  # of a control variate between chains, in its mean: less is rounding
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
        Whether chains have stopped drifting and forgotten where they began, none is stuck, and errors are small, also
        without control variates.
    plain : Tensor, shape (4, quantity)
        Means and standard deviations of the draws alone, wherever they are, and their standard errors.
    """

    mean: Tensor
    sd: Tensor
    error_of_mean: Tensor
    error_of_sd: Tensor
    nested_r_hat: Tensor
    settled: Tensor
    plain: Tensor


def moments(values: Tensor, starts: Tensor, chains: Tensor, begun: Tensor, gradients: Tensor) -> Moments:
    """Return the moments of quantities by the draws of all chains; nan for quantities that are not finite.

    Parameters
    ----------
    values : Tensor, shape (draw, chain, quantity)
    starts : Tensor, shape (chain, quantity)
        The quantities where the chains began.
    chains : Tensor, shape (draw, chain, d)
        Where the chains are, in coordinates of about unit scale.
    begun : Tensor, shape (chain, d)
        Where they began, in the same coordinates.
    gradients : Tensor, shape (draw, chain, d)
        Of the potential by the coordinates, in nats.
    """
    finite = values.isfinite().all(0).all(0) & starts.isfinite().all(0)
    if not finite.all():
        found = torch.full((9, len(finite)), torch.nan, dtype=values.dtype)
        if finite.any():
            some = moments(values[..., finite], starts[:, finite], chains, begun, gradients)
            found[:, finite] = torch.cat([torch.stack(some[:5]), some.plain])
            finite[finite.clone()] = some.settled
        return Moments(found[0], found[1], found[2], found[3], found[4], finite, found[5:])
    slope, curvature = _controls(values, chains, gradients)
    mean, error_of_mean = _controlled(values.mean(0), slope)
    squares = (values - mean).square()
    variance, error_of_variance = _controlled(squares.mean(0), torch.cat([slope, curvature], 2))
    raw = squares.mean((0, 1))
    variance = torch.where(variance > LEAST_VARIANCE * raw, variance, raw).clamp(min=1e-300)
    sd = variance.sqrt()

    distance = (starts.mean(0) - mean).abs() / sd
    scaled, scaled_squares = (values - mean) / sd, squares / (2 * variance)  # errors of the latter are of log sds
    left = _left_over(*_standardised(chains, begun))
    bias = _bias(scaled, (starts - mean) / sd, chains, left, 0.0)
    bias_of_sd = _bias(scaled_squares, (starts - mean).square() / (2 * variance), chains, left, 0.5)
    error = torch.hypot((error_of_mean / sd).clamp(min=LEAST_ERROR), bias.possible)
    error_of_sd = torch.hypot((error_of_variance / (2 * variance)).clamp(min=LEAST_ERROR), bias_of_sd.possible)
    settled = torch.maximum(bias.certain, bias_of_sd.certain) <= MAX_BIAS
    settled &= (torch.maximum(bias.error, bias_of_sd.error) <= MAX_MCSE) & ~stuck(chains).any()
    settled &= torch.maximum(error, error_of_sd) <= MAX_MCSE * distance.clamp(min=1)
    own_sd = values.std((0, 1))
    plain = torch.stack([values.mean((0, 1)), own_sd, bias.error * sd, bias_of_sd.error * variance / own_sd])
    return Moments(mean, sd, error * sd, error_of_sd * sd, _nested_r_hat(values, starts), settled, plain)


def _controls(values: Tensor, coordinates: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Return control variates of means and, besides, of squares, shape (chain, quantity, k): zero under the posterior.

    Those of means are the gradients, or their projections on the quantity's covariance c with the coordinates z where
    there are too few chains for all of them. That of squares is (a·z)(c·g) - a·c, a the quantity's regression
    coefficients and g the gradients: for a linear quantity of a normal, the squared distance from the mean less the
    variance.
    """
    draws, chains, dim = coordinates.shape
    count = values.shape[2]
    if draws * chains < DRAWS_PER_DIM * dim:
        nothing = values.new_zeros(chains, count, 0)
        return nothing, nothing
    z = (coordinates - coordinates.mean((0, 1))).flatten(0, 1)
    f = (values - values.mean((0, 1))).flatten(0, 1)
    driver = "gelsd" if z.device.type == "cpu" else "gels"  # the last digits of "gelsy", the default, vary by the run
    a = torch.linalg.lstsq(z, f, driver=driver).solution  # (d, quantity)
    covariance = z.T @ f / len(z)
    projected = gradients @ covariance
    curvature = ((z @ a).unflatten(0, (draws, chains)) * projected - (a * covariance).sum(0)).mean(0)
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
        scale = x.square().mean(1, keepdim=True).sqrt()
        scale = torch.where(
            scale > LEAST_SPREAD * at[:, None].abs(), scale, torch.inf
        )  # the same in all: tells nothing
        x = x / scale
        gram = x.mT @ x + 1e-8 * chains * torch.eye(count).to(x)
        weights = torch.linalg.solve(gram, x.mT @ rest.T[..., None])
        rest = rest - (x @ weights)[..., 0].T
        mean = mean - (at / scale[:, 0] * weights[..., 0]).sum(1)
    return mean, (rest.square().sum(0) / (chains - 1 - count) / chains).sqrt()


class _Bias(NamedTuple):
    """How far chains may be off, and are for certain, shape (quantity,); and the standard error of their means."""

    possible: Tensor
    certain: Tensor
    error: Tensor


def _bias(values: Tensor, starts: Tensor, chains: Tensor, left: tuple[Tensor, Tensor], expected: float) -> _Bias:
    """Return the bias of the mean of ``values``, of which ``expected`` is what control variates make.

    It has four parts: what is left of where chains began, in the quantity itself and in coordinates that it varies
    with; drift from the first half of the draws to the second; the difference that control variates make; and that of
    chains that hardly move. Drift and difference count where they are no chance.
    """
    draws, count, half = len(values), values.shape[2], len(values) // 2
    root, allowed = values.shape[1] ** 0.5, margin(TESTS * count)
    moved, of_chains = values[-half:].mean(0) - values[:half].mean(0), values.mean(0)
    mean, error = of_chains.mean(0), of_chains.std(0) / root
    drift = _beyond(moved.mean(0).abs(), allowed * moved.std(0) / root)
    corrected = _beyond((mean - expected).abs(), allowed * error)
    is_stuck = stuck(chains)
    of_stuck = (mean - of_chains[~is_stuck].mean(0)).abs() if 0 < is_stuck.sum() < len(is_stuck) else 0.0 * mean
    seen = (drift**2 + corrected**2 + of_stuck**2).sqrt()

    z, _ = _standardised(chains, chains[0])
    slopes = ((values - mean).flatten(0, 1).T @ z.flatten(0, 1) / (draws * len(is_stuck))).abs()
    own = _left_over(values, starts)
    possible, certain = (torch.maximum(o, (slopes * c).max(1).values) for o, c in zip(own, left, strict=True))
    return _Bias(torch.hypot(seen, possible), torch.hypot(seen, certain), error)


def _left_over(values: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much of the way from where they began chains may still have to go, and have for certain.

    If a share ρ of a chain's start is left in the mean of its draws, as its regression on the start tells, the mean has
    come 1 - ρ of the way, and has ρ / (1 - ρ) as far to go as it has come. Starts too near one another to tell are
    replaced by the first of the draws, of which more is left.
    """
    root, of_chains, half = len(starts) ** 0.5, values.mean(0), len(values) // 2
    came = of_chains - starts
    distance = came.mean(0).abs() + came.std(0) / root
    narrow = starts.std(0) < NARROW * values.std((0, 1))
    x, y = torch.where(narrow, values[0], starts), torch.where(narrow, values[-half:].mean(0), of_chains)
    x, y = x - x.mean(0), y - y.mean(0)
    spread = x.square().sum(0).clamp(min=1e-300)
    slope = (x * y).sum(0) / spread
    error = ((y - slope * x).square().mean(0) / spread).sqrt()
    possible = (slope.abs() + error).clamp(max=MAX_LEFT)
    certain = _beyond(slope.abs(), margin(TESTS * len(slope)) * error).clamp(max=MAX_LEFT)
    return possible / (1 - possible) * distance, certain / (1 - certain) * distance


def _standardised(values: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return values (draw, chain, k) and others in units of their standard deviation, from their mean."""
    sd, mean = torch.std_mean(values, (0, 1))
    return tuple((each - mean) / sd.clamp(min=1e-300) for each in (values, *others))


def _beyond(value: Tensor, allowed: Tensor) -> Tensor:
    return torch.where(value > allowed, value, 0.0)


def _nested_r_hat(values: Tensor, starts: Tensor) -> Tensor:
    """Return nested R̂, a superchain being made of chains that began near one another in the quantity."""
    draws, chains, _ = values.shape
    size = chains // SUPERCHAINS
    order = starts.argsort(0)[: size * SUPERCHAINS]
    grouped = values.gather(1, order.expand(draws, -1, -1)).unflatten(1, (SUPERCHAINS, size))
    of_chains = grouped.mean(0)
    within = of_chains.var(1).mean(0) + grouped.var(0).mean((0, 1))
    return (1 + of_chains.mean(1).var(0) / within.clamp(min=1e-300)).sqrt()
