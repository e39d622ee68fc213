"""The smallest autoencoder, by hand: one factor, one column, two straight lines.

    z[n]        ~ Normal(0, 1)
    x[n] | z[n] ~ Normal(w z[n] + b, σ²)         (decoder)
    q(z[n] | x[n]) = Normal(a x[n] + c, s²)      (encoder)

With m = a x + c the encoder's mean and r = x - b - w m what the decoder leaves over there, z = m + s ε gives
E(x - b - w z)² = r² + w² s², and the ELBO of a row is

    -½ log 2π σ² - (r² + w² s²) / 2σ²  +  ½ (1 + log s² - m² - s²),

the expected log likelihood minus KL(q ‖ p). As ∂r/∂m = -w, it changes with m by g = w r / σ² - m, which reaches the
encoder through ∂m/∂a = x and ∂m/∂c = 1:

    ∂w: (r m - w s²) / σ²          ∂a: g x
    ∂b: r / σ²                     ∂c: g
    ∂σ: (r² + w² s²) / σ³ - 1 / σ  ∂s: 1 / s - s - w² s / σ²

Setting ∂s, ∂c and ∂a to zero gives s² = σ² / (w² + σ²), a = w / (w² + σ²) and c = -a b: the exact posterior, where the
ELBO is log Normal(x | b, w² + σ²). In w and σ that has no single maximum: all with w² + σ² = var(x) are as good.

References
----------
1. Kingma and Welling (2014), Auto-encoding variational Bayes, ICLR.
2. Tipping and Bishop (1999), Probabilistic principal component analysis, JRSS B 61, with one column.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.steps import Params


def elbo(params: Params, x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The ELBO of each row, exactly, in nats.

    Parameters
    ----------
    params : dict
        Scalars ``w``, ``b``, ``sigma`` (positive), ``a``, ``c`` and ``s`` (positive).
    x : Tensor, shape (n)
    """
    m, r = _at(params, x)
    w, sigma, s = params["w"], params["sigma"], params["s"]
    reconstruction = -0.5 * math.log(2 * math.pi) - sigma.log() - (r.square() + (w * s) ** 2) / (2 * sigma**2)
    return reconstruction + 0.5 * (1 - m.square() - s**2) + s.log()


def gradients(params: Params, x: Float[Tensor, " n"]) -> Params:
    """Gradient of the sum of `elbo` over the rows, by the formulas above; keyed as the parameters."""
    m, r = _at(params, x)
    w, sigma, s = params["w"], params["sigma"], params["s"]
    g = w * r / sigma**2 - m
    return {
        "w": ((r * m - w * s**2) / sigma**2).sum(),
        "b": (r / sigma**2).sum(),
        "sigma": ((r.square() + (w * s) ** 2) / sigma**3 - 1 / sigma).sum(),
        "a": (g * x).sum(),
        "c": g.sum(),
        "s": len(x) * (1 / s - s - w**2 * s / sigma**2),
    }


def maximum(x: Float[Tensor, " n"], noise_share: float = 0.5) -> Params:
    """The maximum of the summed ELBO at which σ² is the given share of the variance of x, and w is positive.

    Raises
    ------
    ValueError
        If the share does not lie between 0 and 1, or all x are equal.
    """
    variance, b = x.var(correction=0), x.mean()
    if not 0 < noise_share < 1:
        raise ValueError(f"linear_1d: noise_share must lie between 0 and 1, got {noise_share}")
    if not variance > 0:
        raise ValueError("linear_1d: all rows are equal, so that the likelihood has no bound")
    sigma, w = (noise_share * variance).sqrt(), ((1 - noise_share) * variance).sqrt()
    a = w / variance
    return {"w": w, "b": b, "sigma": sigma, "a": a, "c": -a * b, "s": torch.sqrt(x.new_tensor(noise_share))}


def _at(params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder's means, and what the decoder leaves over there."""
    m = params["a"] * x + params["c"]
    return m, x - params["b"] - params["w"] * m
