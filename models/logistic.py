"""Bayesian logistic regression: a linear score, squashed to the probability of the second of two classes.

    w[0], …, w[d] ~ Normal(0, prior_scale²)           (w[0] is the bias: the weight of a column of ones)
    y[n] | x[n]   ~ Bernoulli(sigmoid(w[0] + x[n] · w[1:]))

======  =====  =======  ===========
symbol  site   shape    support
======  =====  =======  ===========
w       ``w``  (d + 1)  real
y       ``y``  (n)      {0, 1}
======  =====  =======  ===========

References
----------
1. Bishop (2006), Pattern Recognition and Machine Learning, section 4.5.
2. Jaakkola and Jordan (2000), Bayesian parameter estimation via variational methods, Statistics and Computing 10.
"""

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor


def model(x: Tensor, y: Tensor | None = None, *, prior_scale: float = 1.0) -> Tensor:
    """Pyro model of binary labels given features.

    Parameters
    ----------
    x : Tensor, shape (n, d)
        Features; standardise them if one prior scale is to suit them all. No column of ones: the bias is added here.
    y : Tensor, shape (n,), optional
        Labels, 0 or 1, of the dtype of ``x``. Drawn from the model where left out.
    prior_scale : float
        Standard deviation of every weight and of the bias under the prior.

    Returns
    -------
    Tensor, shape (n,)
        The labels.

    Raises
    ------
    ValueError
        If ``prior_scale`` is not positive.
    """
    if not prior_scale > 0:
        raise ValueError(f"logistic: prior_scale must be positive, got {prior_scale}")
    rows, features = x.shape
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), prior_scale).expand_by([features + 1]).to_event(1))
    with pyro.plate("rows", rows):
        return pyro.sample("y", dist.Bernoulli(logits=scores(w, x)), obs=y)


def scores(w: Float[Tensor, "... p"], x: Float[Tensor, "n d"]) -> Float[Tensor, "... n"]:
    """Log odds of class 1 for each row, bias included.

    A batch of weights needs a dimension of one where the rows go: shape (…, 1, d + 1) gives (…, n), as draws
    under a plate to the left of "rows" have it.
    """
    if w.dim() == 1:
        return w[0] + x @ w[1:]
    return w[..., 0] + (x * w[..., 1:]).sum(-1)  # `x @ w` would contract the wrong dimension of a batch


def predict(w: Float[Tensor, "s p"], x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Posterior predictive probability of class 1 for each row: the mean of sigmoid(score) over draws of ``w``.

    Bishop (2006), equation 4.145, by Monte Carlo.
    """
    return torch.sigmoid(w[:, :1] + w[:, 1:] @ x.mT).mean(0)


def simulate(
    num_rows: int = 500, *, num_features: int = 5, prior_scale: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Features from N(0, 1), weights from the prior, labels from the model; all float64.

    Returns
    -------
    x : Tensor, shape (num_rows, num_features)
    y : Tensor, shape (num_rows,)
    truth : dict
        ``{"w": Tensor of shape (num_features + 1,)}``.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, num_features, generator=generator, dtype=torch.float64)
    w = prior_scale * torch.randn(num_features + 1, generator=generator, dtype=torch.float64)
    y = torch.bernoulli(torch.sigmoid(scores(w, x)), generator=generator)
    return x, y, {"w": w}


def identify(draws: dict[str, Tensor], anchor: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights themselves: logistic regression has no symmetry to remove."""
    return {"w": draws["w"]}
