"""Means and standard deviations under the posterior, from many chains of a few draws, with what can be known of errors.

Errors come from the spread between chains, which are independent, so that they allow for autocorrelation. The gradients
that the chains have taken serve as control variates: their means are zero under the posterior, and draws whose mean
gradient is not are corrected by as much as it says.

Mira, Solgi and Imparato (2013), Zero variance Markov chain Monte Carlo for Bayesian estimators, Statistics and Computing
23; Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari and Gelman (2024), Nested R̂, Bayesian Analysis.
"""

from typing import NamedTuple

import torch
from torch import Tensor

CHAINS_PER_CONTROL = 4  # chains for each control variate, at least
SUPERCHAINS = 8  # groups of chains that began near one another
LEAST_ERROR = 1e-3  # in standard deviations: no estimate is called more exact


class Moments(NamedTuple):
    """Figures of each quantity under the posterior, shape (quantity,).

    Attributes
    ----------
    mean, sd : Tensor
    error_of_mean, error_of_sd : Tensor
        Standard errors.
    drift, error_of_drift : Tensor
        How far the mean moved between the first and the second half of the draws, in sds, and its standard error.
    growth, error_of_growth : Tensor
        How much the sd grew between the halves, relative to itself, and its standard error.
    """

    mean: Tensor
    sd: Tensor
    error_of_mean: Tensor
    error_of_sd: Tensor
    drift: Tensor
    error_of_drift: Tensor
    growth: Tensor
    error_of_growth: Tensor


def moments(values: Tensor, coordinates: Tensor, gradients: Tensor) -> Moments:
    """Return the moments of quantities by the draws of all chains.

    Parameters
    ----------
    values : Tensor, shape (draw, chain, quantity)
    coordinates, gradients : Tensor, shape (draw, chain, d)
        Where the draws are, in coordinates of about unit scale, and the potential's gradients there (nats per unit).
    """
    chains, dim = coordinates.shape[1:]
    controlled = (dim + 1) * CHAINS_PER_CONTROL <= chains
    slopes = gradients.mean(0) if controlled else gradients.new_zeros(chains, 0)
    mean, error_of_mean = _controlled(values.mean(0), slopes[:, None].expand(-1, values.shape[2], -1))
    squares = (values - mean).square()
    controls = slopes[:, None].expand(-1, values.shape[2], -1)
    if controlled:
        controls = torch.cat([controls, _second_order(values, coordinates, gradients)[..., None]], 2)
    variance, error_of_variance = _controlled(squares.mean(0), controls)
    plain = squares.mean((0, 1))
    variance = torch.where(variance > 0.05 * plain, variance, plain).clamp(min=1e-300)
    sd = variance.sqrt()

    half = len(values) // 2
    moved = (values[-half:].mean(0) - values[:half].mean(0)) / sd
    grown = (squares[-half:].mean(0) - squares[:half].mean(0)) / (2 * variance)
    root = chains**0.5
    return Moments(
        mean,
        sd,
        (error_of_mean / sd).clamp(min=LEAST_ERROR) * sd,
        (error_of_variance / (2 * variance)).clamp(min=LEAST_ERROR) * sd,
        moved.mean(0),
        moved.std(0) / root,
        grown.mean(0),
        grown.std(0) / root,
    )


def nested_r_hat(values: Tensor, starts: Tensor) -> Tensor:
    """Return nested R̂, shape (quantity,): whether chains from different places tell of different posteriors.

    A superchain is made of chains that began near one another in the quantity itself. As many draws as there are leave
    it above 1 by chance: 1 + 1/(2 n) for n effective draws of a superchain.

    Parameters
    ----------
    values : Tensor, shape (draw, chain, quantity)
    starts : Tensor, shape (chain, quantity)
        The quantities where the chains began.
    """
    draws, chains, quantities = values.shape
    size = chains // SUPERCHAINS
    order = starts.argsort(0)[: size * SUPERCHAINS]
    grouped = values.gather(1, order.expand(draws, -1, -1)).reshape(draws, SUPERCHAINS, size, quantities)
    of_chains = grouped.mean(0)
    between = of_chains.mean(1).var(0)
    within = of_chains.var(1).mean(0) + (grouped.var(0).mean((0, 1)) if draws > 1 else 0.0)
    return (1 + between / within).sqrt()


def _second_order(values: Tensor, coordinates: Tensor, gradients: Tensor) -> Tensor:
    """Return (a·z)(a·g) - a·a by chain and quantity, a the coefficients of the quantity's regression on z.

    Its mean is zero under the posterior, and for a linear quantity of a normal it is the squared deviation from the
    mean less the variance.
    """
    z = (coordinates - coordinates.mean((0, 1))).flatten(0, 1)
    f = (values - values.mean((0, 1))).flatten(0, 1)
    a = torch.linalg.lstsq(z, f).solution  # (d, quantity)
    product = (z @ a) * (gradients.flatten(0, 1) @ a) - a.square().sum(0)
    return product.unflatten(0, values.shape[:2]).mean(0)


def _controlled(of_chains: Tensor, controls: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over chains (chain, quantity) at controls (chain, quantity, k) of zero, and its standard error."""
    chains, _, count = controls.shape
    mean, at = of_chains.mean(0), controls.mean(0)
    rest = of_chains - mean
    if count:
        x = (controls - at).movedim(1, 0)  # (quantity, chain, k)
        scale = x.square().mean(1, keepdim=True).sqrt().clamp(min=1e-300)
        x = x / scale
        gram = x.mT @ x + 1e-8 * chains * torch.eye(count).to(x)
        b = torch.linalg.solve(gram, x.mT @ rest.T[..., None])
        rest = rest - (x @ b)[..., 0].T
        mean = mean - (at / scale[:, 0] * b[..., 0]).sum(1)
    return mean, (rest.square().sum(0) / (chains - 1 - count) / chains).sqrt()
