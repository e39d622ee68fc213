"""The Pyro model of an image whose pixels follow from those before them, and data simulated from it."""

import math

import pyro
import torch
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor

from .._shared.inputs import rows_of
from .._shared.steps import Params
from .maps import generate
from .networks import Pixels, log_prior
from .parameters import Hidden, Network, Order, network_shapes, starts


def model(
    x: Tensor | None = None,
    *,
    network: Network = "made",
    hidden: Hidden = None,
    order: Order = "raster",
    prior_scale: float | None = None,
    num_rows: int | None = None,
    num_features: int | None = None,
) -> Tensor:
    """Pyro model without latent variables: rows of pixels, and a network's weights as parameters.

    The weights start at random, the last layer's biases at the log odds of each pixel in the data first seen.

    Parameters
    ----------
    x : Tensor, shape (n, d), optional
        Images of 0 and 1 (see ``vae.binarise``), row by row. Default: drawn from the model, which needs ``num_rows``
        and ``num_features``.
    network : {"made", "pixelcnn"}
        Masked layers of tanh units, beside direct connections from pixel to pixel; or masked convolutions, the first
        5 × 5, the others 3 × 3, for square images.
    hidden : int or tuple of int, optional
        Units of the hidden layers, for "pixelcnn" channels; one number stands for one layer, of "pixelcnn" for three.
        Default: 64, and (16, 16, 16) for "pixelcnn". With (), "made" is a logistic regression per pixel.
    order : {"raster", "columns", "random"} or Tensor, shape (d,)
        In which pixels follow from one another: row by row, column by column, shuffled (always in the same way), or the
        place of each pixel, from 0 to d - 1. "pixelcnn" has "raster" alone.
    prior_scale : float, optional
        Gives weights, but not biases, the prior Normal(0, prior_scale²): fitted parameters maximise the posterior
        density (a penalty: weights are not sites, and not drawn). Default: no prior, so that they maximise the
        likelihood.
    num_rows, num_features : int, optional
        Size of the data to draw.

    Returns
    -------
    Tensor, shape (n, d)

    Raises
    ------
    ValueError
        If an option is out of range; at the start of a fit, also for data that are not 0 and 1.
    """
    if x is not None:
        rows: Tensor = rows_of("autoregressive", x)
        x, (num_rows, num_features) = rows, rows.shape
    if num_rows is None or num_features is None:
        raise ValueError("autoregressive: to draw data, give num_rows= and num_features=")
    if prior_scale is not None and not prior_scale > 0:
        raise ValueError(f"autoregressive: prior_scale must be positive, got {prior_scale}")
    # Parameters.
    start = starts(x, network, hidden, order, num_features)
    params = {name: pyro.param(name, value) for name, value in start.items()}
    if prior_scale is not None and am_i_wrapped():  # outside of inference Pyro warns of factors
        pyro.factor("network.prior", log_prior(params, prior_scale))
    # Rows.
    with pyro.plate("rows", num_rows, dim=-1):
        return pyro.sample("x", Pixels(params), obs=x)


def simulate(
    num_rows: int = 500, *, num_features: int = 16, hidden: int = 32, order: Order = "raster", seed: int = 0
) -> tuple[Tensor, Params]:
    """Simulate rows from MADE with one hidden layer and random weights, float64.

    Weights are normal, with variance 1 in the hidden layer and between pixels, and 4 / hidden in the last.

    Returns
    -------
    x : Tensor, shape (num_rows, num_features)
    truth : dict
        The network's parameters, named as in a fit.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    if num_rows < 1 or num_features < 1:
        raise ValueError(
            f"autoregressive: num_rows and num_features must be positive, got {num_rows} and {num_features}"
        )
    generator = torch.Generator().manual_seed(seed)
    shapes = network_shapes("made", hidden, num_features)
    params = {n: torch.randn(shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}
    params["network.logits.weight"] *= 2 / math.sqrt(hidden)
    like = torch.zeros(1, num_features, dtype=torch.float64)
    params["network.order"] = starts(like, "made", hidden, order, num_features)["network.order"]()
    return generate(params, num_rows, seed=seed), params
