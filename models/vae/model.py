"""The Pyro model of a variational autoencoder, and data simulated from it."""

import math
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor
from torch.distributions import constraints

from .._shared.inputs import rows_of
from .._shared.steps import Params
from .networks import observation
from .parameters import Hidden, Network, column_variance, decoder_shapes, decoder_start

Likelihood = Literal["bernoulli", "gaussian"]


def model(
    x: Tensor | None = None,
    *,
    latent_dim: int = 2,
    likelihood: Likelihood = "bernoulli",
    network: Network = "mlp",
    hidden: Hidden = None,
    shared_variance: bool = False,
    variance_floor: float = 1e-4,
    prior_scale: float | None = None,
    num_rows: int | None = None,
    num_features: int | None = None,
) -> Tensor:
    """Pyro model with the factors of each row as a site, ``z``, and the decoder's weights as parameters.

    The parameters start at random weights; the last layer's biases put the decoder at the mean, and the variance, of
    each column of the data first seen.

    Parameters
    ----------
    x : Tensor, shape (n, d), optional
        The data: 0 and 1 for "bernoulli" (see `binarise`), real numbers for "gaussian", standardised or in units of
        about one. Default: drawn from the model, which needs ``num_rows`` and ``num_features``.
    latent_dim : int
        q.
    likelihood : {"bernoulli", "gaussian"}
        Of a row given its factors.
    network : {"mlp", "conv", "linear"}
        Decoder: layers of tanh units; transposed convolutions that end in a square image, its rows one after the
        other; or a linear map, with as many last layers as the likelihood needs.
    hidden : int or tuple of int, optional
        Units of the hidden layers, for "conv" channels, from the data to the factors, in the encoder's order. Default:
        64, and (16, 32) for "conv". Each layer of "conv" halves the image's side.
    shared_variance : bool
        Whether one variance serves all columns and rows of "gaussian", ``decoder.noise``.
    variance_floor : float
        Smallest variance of "gaussian": without it, a column that can be reproduced exactly has unbounded density.
    prior_scale : float, optional
        Gives weights, but not biases, the prior Normal(0, prior_scale²): fitted parameters maximise the joint density
        (a penalty: weights are not sites, and not drawn). Default: no prior.
    num_rows, num_features : int, optional
        Size of the data to draw.

    Returns
    -------
    Tensor, shape (n, d)

    Raises
    ------
    ValueError
        If an option is out of range; at the start of a fit, also for data that the likelihood cannot have made.
    """
    if x is not None:
        rows: Tensor = rows_of("vae", x)
        x, (num_rows, num_features) = rows, rows.shape
    if num_rows is None or num_features is None:
        raise ValueError("vae: to draw data, give num_rows= and num_features=")
    _check(latent_dim, likelihood, variance_floor, prior_scale)
    heads = {"bernoulli": ("logits",), "gaussian": ("mean",) if shared_variance else ("mean", "variance")}[likelihood]
    shapes = decoder_shapes(network, hidden, latent_dim, num_features, heads)
    start = decoder_start(shapes, x, variance_floor)
    # Parameters.
    params = {name: pyro.param(name, start[name]) for name in shapes}
    zero = next(iter(params.values())).new_zeros(())
    if heads == ("mean",):
        params["decoder.noise"] = pyro.param(
            "decoder.noise",
            lambda: column_variance(x, variance_floor).mean(),
            constraint=constraints.greater_than(variance_floor),
        )
    elif heads == ("mean", "variance"):  # a constant, kept beside the parameters so that these describe the decoder
        floor = pyro.param("decoder.variance_floor", lambda: zero + variance_floor)
        params["decoder.variance_floor"] = floor.detach()
    if prior_scale is not None and am_i_wrapped():  # outside of inference Pyro warns of factors
        weights = [value for name, value in params.items() if name.endswith(".weight")]
        prior = dist.Normal(zero, prior_scale)
        pyro.factor("decoder.prior", torch.stack([prior.log_prob(weight).sum() for weight in weights]).sum())
    # Locals.
    with pyro.plate("rows", num_rows, dim=-1):
        z = pyro.sample("z", dist.Normal(zero, 1.0).expand_by([latent_dim]).to_event(1))
        return pyro.sample("x", observation(params, z), obs=x)


latent_model = model  # the factors are sites already


def simulate(
    num_rows: int = 500,
    *,
    latent_dim: int = 2,
    num_features: int = 16,
    likelihood: Likelihood = "bernoulli",
    hidden: int = 32,
    noise_variance: float = 0.05,
    seed: int = 0,
) -> tuple[Tensor, Params]:
    """Simulate rows from a decoder with one hidden layer and random weights, float64.

    Weights are normal, with variance 1 in the hidden layer and 4 / hidden in the last, so that columns bend over the
    plane of the factors.

    Returns
    -------
    x : Tensor, shape (num_rows, num_features)
    truth : dict
        The decoder's parameters, named as in a fit, and ``z`` (num_rows, latent_dim).

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    _check(latent_dim, likelihood)
    if num_rows < 1 or not noise_variance > 0:
        raise ValueError(f"vae: num_rows and noise_variance must be positive, got {num_rows} and {noise_variance}")
    generator = torch.Generator().manual_seed(seed)
    head = "logits" if likelihood == "bernoulli" else "mean"
    shapes = decoder_shapes("mlp", hidden, latent_dim, num_features, (head,))
    params = {n: torch.randn(shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}
    params[f"decoder.{head}.weight"] *= 2 / math.sqrt(hidden)
    if likelihood == "gaussian":
        params["decoder.noise"] = torch.tensor(noise_variance, dtype=torch.float64)
    z = torch.randn(num_rows, latent_dim, generator=generator, dtype=torch.float64)
    return draw(observation(params, z), generator), params | {"z": z}


def draw(distribution: dist.Independent, generator: torch.Generator) -> Tensor:
    """Draw rows from what `observation` returns."""
    mean, variance = distribution.mean, distribution.variance
    if isinstance(distribution.base_dist, dist.Bernoulli):
        return torch.bernoulli(mean, generator=generator)
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + variance.sqrt() * noise


def _check(latent_dim: int, likelihood: str, variance_floor: float = 1.0, prior_scale: float | None = None) -> None:
    if latent_dim < 1:
        raise ValueError(f"vae: latent_dim must be at least 1, got {latent_dim}")
    if likelihood not in ("bernoulli", "gaussian"):
        raise ValueError(f"vae: unknown likelihood {likelihood!r}: there is bernoulli and gaussian")
    if not variance_floor > 0:
        raise ValueError(f"vae: variance_floor must be positive, got {variance_floor}")
    if prior_scale is not None and not prior_scale > 0:
        raise ValueError(f"vae: prior_scale must be positive, got {prior_scale}")
