"""Exact draws from the Pólya-Gamma distribution PG(1, c), given which a logistic likelihood is normal.

PG(1, c) is the distribution of (1 / 2π²) Σ_k g[k] / ((k - ½)² + c² / 4π²), each g[k] ~ Exponential(1). It is also that
of X / 4, X a tilted Jacobi variable with density proportional to exp(-z² x / 2) Σ_n (-1)^n a[n](x), z half of c's size.
Devroye draws from the tilted a[0] and accepts after as many terms of the alternating series as the decision needs.

References
----------
1. Polson, Scott and Windle (2013), Bayesian inference for logistic models using Pólya-Gamma latent variables,
   JASA 108, section 4 and supplement.
2. Devroye (2009), On exact simulation algorithms for some distributions related to Jacobi theta functions,
   Statistics and Probability Letters 79.
3. Michael, Schucany and Haas (1976), Generating random variates using transformations with multiple roots,
   The American Statistician 30: the inverse normal ("inverse Gaussian") distribution.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

CUT = 0.64  # where a[0] changes from its form for small x to that for large x; close to optimal by reference 2


@torch.no_grad()
def polya_gamma(c: Tensor) -> Tensor:
    """Draw ω ~ PG(1, c), independently for every entry, with torch's generator.

    Polson, Scott and Windle (2013), section 4; no approximation for any ``c``.

    Parameters
    ----------
    c : Tensor, any shape
        Tilt; its sign is irrelevant.

    Returns
    -------
    Tensor, shape of ``c``
        Positive; mean tanh(c / 2) / (2 c), which is 1/4 at 0.

    Raises
    ------
    ValueError
        If ``c`` is not floating point, or an entry is not finite.
    """
    if not c.is_floating_point():
        raise ValueError(f"polya_gamma: c must be floating point, got {c.dtype}")
    if not torch.isfinite(c).all():
        raise ValueError("polya_gamma: c must be finite")
    z = c.flatten().abs() / 2
    return 0.25 * _until_accepted(_propose, z).reshape(c.shape)


def _until_accepted(propose: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor) -> Tensor:
    """Repeat ``z -> (values, accepted)`` for the entries not accepted yet, until none are left."""
    values, accepted = propose(z)
    pending = (~accepted).nonzero().squeeze(-1)
    while len(pending):
        again, accepted = propose(z[pending])
        values[pending[accepted]] = again[accepted]
        pending = pending[~accepted]
    return values


def _propose(z: Tensor) -> tuple[Tensor, Tensor]:
    """Propose X from the normalised tilted a[0], and say whether the whole series accepts it.

    Above the cut the tilted a[0] is exponential with rate π²/8 + z²/2; below, it is 2 exp(-z) times the density of an
    inverse normal with mean 1/z. The two masses are compared on the log scale.
    """
    rate = math.pi**2 / 8 + z.square() / 2
    log_right = math.log(math.pi / 2) - rate.log() - rate * CUT
    root = math.sqrt(CUT)
    log_left = math.log(2) + torch.logaddexp(
        torch.special.log_ndtr((CUT * z - 1) / root) - z, torch.special.log_ndtr(-(CUT * z + 1) / root) + z
    )
    right = torch.rand_like(z) < torch.sigmoid(log_right - log_left)
    x = CUT + torch.empty_like(z).exponential_() / rate
    x[~right] = _left(z[~right])
    return x, _series_accepts(x)


def _series_accepts(x: Tensor) -> Tensor:
    """Whether U a[0](x) < Σ_n (-1)^n a[n](x), U uniform: partial sums bound the sum alternately from both sides."""
    u = torch.rand_like(x)
    decay = torch.where(x > CUT, 0.5 * math.pi**2 * x, 2 / x)  # a[n] / a[0] = (2n + 1) exp(-n (n + 1) decay)
    partial = torch.ones_like(x)
    accepted = torch.zeros_like(x, dtype=torch.bool)
    undecided = torch.ones_like(accepted)
    n = 0
    while undecided.any():
        n += 1
        term = (2 * n + 1) * torch.exp(-n * (n + 1) * decay)
        partial = partial - term if n % 2 else partial + term
        decided = undecided & ((u <= partial) if n % 2 else (u > partial))
        if n % 2:
            accepted |= decided
        undecided &= ~decided
    return accepted


def _left(z: Tensor) -> Tensor:
    """Draw from the inverse normal with mean 1/z and shape 1, truncated to below the cut."""
    x = torch.empty_like(z)
    flat = z < 1 / CUT
    x[flat] = _until_accepted(_tilt_inverse_chi_square, z[flat])
    x[~flat] = _until_accepted(_inverse_normal, z[~flat])
    return x


def _tilt_inverse_chi_square(z: Tensor) -> tuple[Tensor, Tensor]:
    """Propose for a mean above the cut: 1 / N² given N² > 1 / cut, tilted by exp(-z² x / 2); N from its tail.

    N's tail beyond b = 1 / √cut: b + E / b, E ~ Exponential(1), accepted with probability exp(-(E / b)² / 2).
    """
    e = torch.empty_like(z).exponential_()
    x = CUT / (1 + CUT * e).square()
    log_accept = -0.5 * CUT * e.square() - 0.5 * z.square() * x
    return x, -torch.empty_like(z).exponential_() < log_accept


def _inverse_normal(z: Tensor) -> tuple[Tensor, Tensor]:
    """Propose for a mean below the cut: the roots of Michael, Schucany and Haas; accepted if below the cut."""
    mean = 1 / z
    half = 0.5 * mean * torch.randn_like(z).square()
    small = mean / (1 + half + (half * (2 + half)).sqrt())  # free of the usual form's cancellation
    x = torch.where(torch.rand_like(z) * (mean + small) <= mean, small, mean * (mean / small))
    return x, x <= CUT
