"""The Pyro model of logistic regression, and data simulated from it."""

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from .exact import predict


def model(x: Tensor, y: Tensor | None = None, *, prior_scale: float = 1.0) -> Tensor:
    """Pyro model of binary labels given features.

    Parameters
    ----------
    x : Tensor, shape (n, d)
        Features; standardise them, since all weights share one prior scale. No column of ones: the bias is added.
    y : Tensor, shape (n,), optional
        Labels, 0 or 1, of the dtype of ``x``. Default: draw them.
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
    check_prior_scale(prior_scale)
    rows, features = x.shape
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), prior_scale).expand_by([features + 1]).to_event(1))
    with pyro.plate("rows", rows):
        return pyro.sample("y", dist.Bernoulli(logits=scores(w, x)), obs=y)


def scores(w: Float[Tensor, "... p"], x: Float[Tensor, "n d"]) -> Float[Tensor, "... n"]:
    """Return the log odds of class 1 for each row, bias included.

    A batch of weights needs a dimension of size one for the rows, as draws under a plate to the left of "rows" have:
    shape (…, 1, d + 1) gives (…, n).
    """
    if w.dim() == 1:
        return w[0] + x @ w[1:]
    return w[..., 0] + (x * w[..., 1:]).sum(-1)  # `x @ w` would contract the wrong dimension of a batch


def posterior_predictive(sites: dict[str, Tensor], x: Float[Tensor, "n d"], *, seed: int = 0) -> Float[Tensor, "... n"]:
    """Simulate one set of labels for the rows of ``x`` per draw.

    Parameters
    ----------
    sites : dict
        ``w``, shape (…, d + 1).
    x : Tensor, shape (n, d)
    seed : int

    Returns
    -------
    Tensor, shape (…, n)
        0 or 1.
    """
    probability = predict(sites, x)
    return torch.bernoulli(probability, generator=torch.Generator(probability.device).manual_seed(seed))


def simulate(
    num_rows: int = 500, *, num_features: int = 5, prior_scale: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Simulate features from N(0, 1), weights from the prior and labels from the model; float64.

    Parameters
    ----------
    num_rows, num_features : int
    prior_scale : float
        Standard deviation of every weight and of the bias under the prior.
    seed : int

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
    """Return the weights themselves: logistic regression has no labels to switch."""
    return {"w": draws["w"]}


def design(x: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
    """Return the design matrix: a column of ones, then the features."""
    return torch.cat([x.new_ones(len(x), 1), x], 1)


def check_prior_scale(prior_scale: float) -> None:
    """Raise ValueError unless the prior scale is positive."""
    if not prior_scale > 0:
        raise ValueError(f"logistic: prior_scale must be positive, got {prior_scale}")
