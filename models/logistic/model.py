"""The Pyro model of logistic regression, what its weights imply for rows, and simulated data."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from .._shared.inputs import check_precision, rows_of, target_of
from .._shared.scores import design, scores, scores_of_draws

LARGEST_SCORE = 1e12  # that the prior may expect: the sigmoid's curvature at larger ones is lost beside 1


def model(x: Tensor, y: Tensor | None = None, *, prior_scale: float = 1.0) -> Tensor:
    """Pyro model of binary labels given features.

    Parameters
    ----------
    x : Tensor, shape (n, d)
        Features; standardise them, since all weights share one prior scale. No column of ones: the bias is added.
    y : Tensor, shape (n,), optional
        Labels, 0 or 1. Default: draw them.
    prior_scale : float
        Standard deviation of every weight and of the bias under the prior.

    Returns
    -------
    Tensor, shape (n,)

    Raises
    ------
    ValueError
        If ``prior_scale`` is not positive, or the data are no finite rows with a label each.
    """
    check_prior_scale(prior_scale)
    x, y = data_of(x, y)
    rows, features = x.shape
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), prior_scale).expand_by([features + 1]).to_event(1))
    with pyro.plate("rows", rows):
        return pyro.sample("y", dist.Bernoulli(logits=scores(w, x)), obs=y)


def predict(sites: dict[str, Tensor], x: Float[Tensor, "n d"]) -> Float[Tensor, "... n"]:
    """Return the probability of class 1 for each row under each draw.

    Its mean over draws is the posterior predictive probability, Bishop (2006), equation 4.145.

    Parameters
    ----------
    sites : dict
        ``w``, shape (…, d + 1).
    x : Tensor, shape (n, d)

    Returns
    -------
    Tensor, shape (…, n)
    """
    return torch.sigmoid(scores_of_draws(sites, x))


def log_likelihood(sites: dict[str, Tensor], x: Float[Tensor, "n d"], y: Float[Tensor, " n"]) -> Float[Tensor, "... n"]:
    """Return log p(y[n] | x[n], w) for each row under each draw, in nats; shapes as for `predict`.

    Raises
    ------
    ValueError
        If a label in ``y``, (n,), is neither 0 nor 1.
    """
    check_labels(y)
    log_odds = scores_of_draws(sites, x)
    return logsigmoid((2 * y.to(log_odds) - 1) * log_odds)


def posterior_predictive(sites: dict[str, Tensor], x: Float[Tensor, "n d"], *, seed: int = 0) -> Float[Tensor, "... n"]:
    """Simulate one set of labels, 0 or 1, for the rows of ``x`` per draw; shapes as for `predict`."""
    probability = predict(sites, x)
    return torch.bernoulli(probability, generator=torch.Generator(probability.device).manual_seed(seed))


def simulate(
    num_rows: int = 500, *, num_features: int = 5, prior_scale: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Simulate features from N(0, 1), weights from the prior and labels from the model; float64.

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


def data_of(x: Any, y: Any = None) -> tuple[Tensor, Any]:
    """Return features and labels as floats; ValueError unless they are finite rows with a label, 0 or 1, each."""
    x = rows_of("logistic", x)
    return x, None if y is None else target_of("logistic", y, x, check_labels)


def checked(x: Any, y: Any, prior_scale: float) -> tuple[Tensor, Tensor]:
    """Return data as `data_of` does, for methods that factorise the precision of the weights."""
    x, y = data_of(x, y)
    largest = float(x.abs().max())
    if largest * prior_scale > LARGEST_SCORE:
        raise ValueError(
            f"logistic: x reaches {largest:.2g}, and a weight's prior scale is {prior_scale:g}: standardise the columns"
        )
    check_precision("logistic", design(x), prior_scale**-2, 0.25)  # the likelihood's curvature is a quarter at most
    return x, y


def check_prior_scale(prior_scale: float) -> None:
    """Raise ValueError unless the prior scale is positive."""
    if not prior_scale > 0:
        raise ValueError(f"logistic: prior_scale must be positive, got {prior_scale}")


def check_labels(y: Tensor) -> None:
    """Raise ValueError unless all labels are 0 or 1."""
    wrong = (y != 0) & (y != 1)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"logistic: labels must be 0 or 1, got {float(y[row]):g} in row {row}")
