"""What weights of logistic regression imply for rows: probabilities and log likelihoods."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


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
    return torch.sigmoid(_log_odds(sites, x))


def log_likelihood(sites: dict[str, Tensor], x: Float[Tensor, "n d"], y: Float[Tensor, " n"]) -> Float[Tensor, "... n"]:
    """Return log p(y[n] | x[n], w) for each row under each draw, in nats.

    Parameters
    ----------
    sites : dict
        ``w``, shape (…, d + 1).
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)
        Labels, 0 or 1.

    Returns
    -------
    Tensor, shape (…, n)

    Raises
    ------
    ValueError
        If a label is neither 0 nor 1.
    """
    check_labels(y)
    log_odds = _log_odds(sites, x)
    return logsigmoid((2 * y.to(log_odds) - 1) * log_odds)


def check_labels(y: Tensor) -> None:
    """Raise ValueError unless all labels are 0 or 1."""
    wrong = (y != 0) & (y != 1)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"logistic: labels must be 0 or 1, got {float(y[row]):g} in row {row}")


def _log_odds(sites: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return scores, (…, n), of weights with any dimensions on the left, (…, d + 1)."""
    w = sites["w"]
    return w[..., :1] + w[..., 1:] @ x.to(w).mT
