"""What a fitted network says of rows, old or new, and rows that it draws."""

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.binary import check_binary
from .._shared.inputs import rows_of
from .networks import MOST_NUMBERS, ParamMap, Pixels, logits
from .parameters import RULE


@torch.no_grad()
def log_likelihood(params: ParamMap, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Return log p(x[n]) in nats: exact, by the chain rule.

    Parameters
    ----------
    params : mapping
        `Posterior.params` of a fit.
    x : Tensor, shape (n, d)
        Rows of 0 and 1, of the fit or new.

    Raises
    ------
    ValueError
        If the parameters hold no network, or the rows are not 0 and 1 or have another number of pixels.
    """
    x = _rows(params, x)
    return torch.cat([Pixels(params).log_prob(part) for part in x.split(_at_once(params))])


@torch.no_grad()
def conditionals(params: ParamMap, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return p(x[n, j] = 1 | x[n, <j]): what the network expects at each pixel; arguments and errors as above."""
    x = _rows(params, x)
    return torch.cat([torch.sigmoid(logits(params, part)) for part in x.split(_at_once(params))])


def independent(x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Return the log probability of each row, in nats, if every pixel is a one as often as among these rows.

    The baseline of every model of pixels: their best one without dependence.
    """
    frequency = x.mean(0)
    return (torch.xlogy(x, frequency) + torch.xlogy(1 - x, 1 - frequency)).sum(1)


def generate(params: ParamMap, num_rows: int, *, seed: int = 0) -> Float[Tensor, "n d"]:
    """Return new rows, drawn exactly: pixel after pixel. MADE runs d times for that, PixelCNN once, a pixel at a time.

    Parameters
    ----------
    params : mapping
        As for `log_likelihood`.
    num_rows : int
    seed : int
        The global generator is not used.

    Raises
    ------
    ValueError
        If the parameters hold no network.
    """
    _check_network(params)
    generator = torch.Generator(params["network.logits.bias"].device).manual_seed(seed)
    return Pixels(params).sample((num_rows,), generator)


def identify(draws: ParamMap, anchor: ParamMap | None = None, *, num_rows: int = 256) -> dict[str, Tensor]:
    """Return ``x_mean`` (d), the mean of each pixel over generated rows, to compare networks by.

    The weights of two networks cannot be compared, as units can be permuted and change sign. The frequencies have a
    standard error of up to ½ / √num_rows; networks are given the same random numbers.

    Parameters
    ----------
    draws : mapping
        A network's parameters, as for `log_likelihood`.
    anchor : mapping, optional
        Not used: pixels are in order.
    num_rows : int
        Rows to generate.
    """
    return {"x_mean": generate(draws, num_rows).mean(0)}


def _check_network(params: ParamMap) -> None:
    if "network.logits.bias" not in params:
        raise ValueError("autoregressive: the parameters hold no network: give those of a fit, Posterior.params")


def _rows(params: ParamMap, x: Tensor) -> Tensor:
    _check_network(params)
    x, columns = rows_of("autoregressive", x), len(params["network.logits.bias"])
    if x.shape[1] != columns:
        raise ValueError(f"autoregressive: the network has {columns} pixels, and the rows have {x.shape[1]}")
    check_binary("autoregressive", x, RULE)
    return x


def _at_once(params: ParamMap) -> int:
    """Rows whose widest layer has no more than `MOST_NUMBERS` numbers."""
    columns = len(params["network.logits.bias"])
    hidden = (value for name, value in params.items() if name.endswith(".bias") and name != "network.logits.bias")
    units = max(map(len, hidden), default=1)  # of "pixelcnn" channels, of which each pixel has as many
    widest = max(columns, units) if "network.order" in params else columns * units
    return max(1, MOST_NUMBERS // widest)
