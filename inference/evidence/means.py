"""Means of weights, their errors and diagnostics."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..diagnostics import ess, k_hat
from .tails import Beyond, tail_error

COVERED = 0.9772  # below two standard deviations of a normal


class Mean(NamedTuple):
    """The logarithm of a mean of weights, per block."""

    estimate: Tensor  # log of the mean weight, in nats
    error: Tensor  # its standard error, in nats
    spread: Tensor  # standard error of the mean weight by the sample, over that mean
    ess: Tensor  # (Σ w)² / Σ w²


def log_mean(log_weights: Tensor, edge: Beyond | None = None) -> Mean:
    """Return the log of the mean of weights in nats, shape (chain, draw, block), of Markov chains.

    The error is the sample's by the delta method, or that of the fitted tail if larger. Autocorrelation enters by the
    effective sample size; with fewer than four draws per chain all count as independent. The posterior's mass beyond
    the draws, ``edge``, counts twice: of eight schools (k̂ near 0.6) it is half of what is missing.
    """
    log_weights = log_weights.detach().cpu().double()
    draws = log_weights.shape[1]
    flat = log_weights.flatten(0, 1)
    count = len(flat)
    estimate = flat.logsumexp(0) - math.log(count)
    relative = (flat - flat.amax(0)).exp()
    relative = relative / relative.mean(0)
    spread = relative.std(0)
    size = torch.full_like(spread, count)
    if draws >= 4:
        size = torch.minimum(size, ess(log_weights, of="mean").nan_to_num(float(count)))
    spread = spread / size.sqrt()
    error = torch.maximum(spread, tail_error(relative, size).log1p())
    if edge is not None:
        error = torch.hypot(error, 2 * edge.mass.cpu())
    return Mean(estimate, error, spread, count / relative.square().mean(0))


def independent(log_weights: Tensor, edge: Beyond | None = None) -> Mean:
    """`log_mean` of independent weights, shape (draw, block)."""
    return log_mean(log_weights.unsqueeze(1), edge)


def mean_bound(log_weights: Tensor, particles: int) -> tuple[Tensor, Tensor]:
    """Return the mean over groups of ``particles`` weights of the log of their mean, and its error; shape (block,).

    ``log_weights`` have shape (draw, block). With few groups the error is wider by the ratio of Student's quantile to
    the normal's, so that two errors cover as much as with many.
    """
    from scipy import stats  # slow to import

    groups = len(log_weights) // particles
    if groups < 2:
        raise ValueError(f"iwae: {len(log_weights)} weights are fewer than two groups of {particles}")
    grouped = log_weights[: groups * particles].double().reshape(groups, particles, -1)
    bounds = grouped.logsumexp(1) - math.log(particles)
    wider = float(stats.t(groups - 1).ppf(COVERED) / stats.norm.ppf(COVERED))
    return bounds.mean(0), wider * bounds.std(0) / groups**0.5


def diagnose(log_weights: Tensor, means: Mean) -> dict[str, Any]:
    """Return the effective sample size and k̂ of the worst block, the mean log weight, and the estimate's bias.

    ``log_weights`` have shape (draw, block), and ``means`` is their `log_mean`.
    """
    worst = int(means.ess.argmin())
    return {
        "ess": float(means.ess[worst]),
        "k_hat": k_hat(log_weights[:, worst]),
        "mean_log_weight": float(log_weights.double().mean(0).sum()),
        "bias": -0.5 * float(means.spread.square().sum()),
    }
