"""Bridge sampling between a posterior and a normal distribution fitted to half of its draws.

With p(x, u) the joint density on the unconstrained scale, g the normal, and l = log p(x, u) - log g(u),

    r ← mean over draws of g of  e^l / (s₁ e^l + s₂ r)   ÷   mean over draws of the posterior of  1 / (s₁ e^l + s₂ r),

whose fixed point is the evidence; s₁ and s₂ are the two samples' proportions, the posterior's by its effective size.

The error is the relative mean squared error of reference 3 with the draws' effective size for the mean of the second
ratio in place of its spectral density at zero. Given the normal, halves of the draws that hardly depend on one another
make it the only noise: over 100 repetitions of normal, log-gamma and Student posteriors in 1 to 30 dimensions, with
draws of autocorrelation -0.5 to 0.97, distances from the exact value had a spread of 0.75 to 1.14 errors.

References
----------
1. Meng and Wong (1996), Simulating ratios of normalizing constants via a simple identity, Statistica Sinica 6.
2. Gronau, Sarafoglou, Matzke, Ly, Boehm, Marsman, Leslie, Forster, Wagenmakers and Steingroever (2017), A tutorial on
   bridge sampling, Journal of Mathematical Psychology 81: halves and effective sizes.
3. Frühwirth-Schnatter (2004), Estimating marginal likelihoods for mixture and Markov switching models using bridge
   sampling techniques, Econometrics Journal 7: the relative mean squared error.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from ..diagnostics import ess, r_hat

TOLERANCE = 1e-10  # of the estimate, in nats
MAX_ITERATIONS = 1000


class Bridged(NamedTuple):
    """Result of the iteration; tensors have shape (block,)."""

    estimate: Tensor  # in nats
    relative_mse: Tensor  # mean squared error over the squared evidence (reference 3), autocorrelation included
    posterior_ess: Tensor  # effective size of the second half of the draws, the median over coordinates
    r_hat: Tensor  # of all draws, the largest over coordinates
    iterations: int
    converged: bool


def bridge(log_density: Callable[[Tensor], Tensor], draws: Tensor, num_proposals: int | None) -> Bridged:
    """Estimate the evidence of each block, given a log density (draw, block, size) → (draw, block) in nats.

    The first half of each chain of ``draws``, shape (chain, draw, block, size), fits the normal. ``num_proposals``
    draws of the normal are taken; default: as many as in the second half.
    """
    half = draws.shape[1] // 2
    first, second = draws[:, :half].flatten(0, 1), draws[:, half:]
    chains, length, _, size = second.shape
    if half < 4 or len(first) <= size + 1:
        raise ValueError(
            f"bridge: {len(first)} draws, half of those given, are too few for a normal in {size} dimensions: draw more"
        )
    centred = first - first.mean(0)
    covariance = torch.einsum("sni,snj->nij", centred, centred) / (len(first) - 1)
    root, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        raise ValueError("bridge: the draws of the posterior lie in a plane: no normal fits them")
    normal = MultivariateNormal(first.mean(0), scale_tril=root)

    proposals = normal.sample(torch.Size([num_proposals or chains * length]))
    of_posterior, of_normal = (
        (log_density(at) - normal.log_prob(at)).double() for at in (second.flatten(0, 1), proposals)
    )
    total = chains * length
    size_of_posterior = ess(second).cpu().median(-1).values.nan_to_num(float(total)).clamp(max=total)
    share = (size_of_posterior / (size_of_posterior + len(proposals))).to(of_normal)
    log_share, log_rest = share.log(), (1 - share).log()

    estimate, change, iterations = of_normal.logsumexp(0) - math.log(len(of_normal)), math.inf, 0
    while not change < TOLERANCE and iterations < MAX_ITERATIONS:
        below = log_rest + estimate
        above = of_normal - torch.logaddexp(log_share + of_normal, below)
        under = -torch.logaddexp(log_share + of_posterior, below)
        ahead = above.logsumexp(0) - math.log(len(above)) - under.logsumexp(0) + math.log(len(under))
        change, estimate, iterations = float((ahead - estimate).abs().max()), ahead, iterations + 1

    of_first = (of_normal - torch.logaddexp(log_share + of_normal, log_rest + estimate)).exp()
    of_second = (estimate - torch.logaddexp(log_share + of_posterior, log_rest + estimate)).exp()
    size_of_second = ess(of_second.reshape(chains, length, -1), of="mean").nan_to_num(float(total)).clamp(max=total)
    relative_mse = _relative_variance(of_first) / len(of_first)
    relative_mse = relative_mse + _relative_variance(of_second) / size_of_second.to(of_second)
    mixed = r_hat(draws).nan_to_num(1.0).amax(-1)
    return Bridged(estimate, relative_mse, size_of_posterior, mixed, iterations, change < TOLERANCE)


def _relative_variance(values: Tensor) -> Tensor:
    return values.var(0) / values.mean(0).square()
