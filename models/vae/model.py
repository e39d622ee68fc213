"""The Pyro model of a variational autoencoder, the checks of its options, and data simulated from it."""

import math
from functools import partial
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor
from torch.distributions import constraints

from .._shared.steps import Params
from .networks import DEFAULT_HIDDEN, decoder_shapes, glorot, observation

Likelihood = Literal["bernoulli", "gaussian"]
Network = Literal["mlp", "conv", "linear"]


def model(
    x: Tensor | None = None,
    *,
    latent_dim: int = 2,
    likelihood: Likelihood = "bernoulli",
    network: Network = "mlp",
    hidden: int | tuple[int, ...] | None = None,
    shared_variance: bool = False,
    variance_floor: float = 1e-4,
    prior_scale: float | None = None,
    num_rows: int | None = None,
    num_features: int | None = None,
) -> Tensor:
    """Pyro model with the factors of each row as a site, ``z``, and the decoder's weights as parameters.

    The parameters are made where they are first asked for: weights at random, the biases of the last layer such that
    the decoder starts at the mean, and the variance, of each column of the data then given.

    Parameters
    ----------
    x : Tensor, shape (n, d), optional
        The data: 0 and 1 for "bernoulli" (see `binarise`), real numbers for "gaussian", standardised or in units of
        about one. Drawn from the model where left out; ``num_rows`` and ``num_features`` must be given then.
    latent_dim : int
        q.
    likelihood : {"bernoulli", "gaussian"}
        Of a row given its factors.
    network : {"mlp", "conv", "linear"}
        Decoder: layers of tanh units; transposed convolutions that end in a square image, its rows one after the
        other; or a linear map, with as many last layers as the likelihood needs.
    hidden : int or tuple of int, optional
        Units of the hidden layers, for "conv" channels, from the data to the factors, as the encoder has them: 64, and
        (16, 32) for "conv". Each layer of "conv" halves the image's side.
    shared_variance : bool
        Whether one variance serves all columns and rows of "gaussian", ``decoder.noise``.
    variance_floor : float
        Least variance of "gaussian": without one, a column that can be reproduced exactly has unbounded density.
    prior_scale : float, optional
        Weights, biases not included, get the prior Normal(0, prior_scale²), so that fitted parameters maximise the
        joint density with it (a penalty: there are no sites to draw weights from). None where left out.
    num_rows, num_features : int, optional
        Size of the data to draw where ``x`` is left out.

    Returns
    -------
    Tensor, shape (n, d)
        The data.

    Raises
    ------
    ValueError
        If an option is out of range; where a fit starts, also for data that the likelihood cannot have made.
    """
    if x is not None:
        num_rows, num_features = x.shape
    if num_rows is None or num_features is None:
        raise ValueError("vae: to draw data, give num_rows= and num_features=")
    widths = _check(latent_dim, likelihood, network, hidden, num_features, variance_floor, prior_scale)
    heads = {"bernoulli": ("logits",), "gaussian": ("mean",) if shared_variance else ("mean", "variance")}[likelihood]
    shapes = decoder_shapes(network, widths, latent_dim, num_features, heads)
    params = {name: pyro.param(name, partial(_start, name, shape, x, variance_floor)) for name, shape in shapes.items()}
    if likelihood == "gaussian":
        params |= _variance(x, shared_variance, variance_floor)
    if prior_scale is not None and am_i_wrapped():  # nobody reads it outside of inference, where Pyro warns
        weights = [value for name, value in params.items() if name.endswith(".weight")]
        squares = torch.stack([weight.square().sum() for weight in weights]).sum() / prior_scale**2
        count = sum(weight.numel() for weight in weights)
        pyro.factor("decoder.prior", -0.5 * (squares + count * math.log(2 * math.pi * prior_scale**2)))
    zeros = next(iter(params.values())).new_zeros(latent_dim)
    with pyro.plate("rows", num_rows, dim=-1):
        z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
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
    """Rows from a decoder with one hidden layer and random weights, float64.

    Weights are normal, those of the hidden layer with variance 1, those of the last with 4 / hidden, so that columns
    bend over the plane of the factors.

    Returns
    -------
    x : Tensor, shape (num_rows, num_features)
    truth : dict
        The decoder's parameters, by the names that a fit has, and ``z`` (num_rows, latent_dim).

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    _check(latent_dim, likelihood, "mlp", hidden, num_features)
    if num_rows < 1 or not noise_variance > 0:
        raise ValueError(f"vae: num_rows and noise_variance must be positive, got {num_rows} and {noise_variance}")
    generator = torch.Generator().manual_seed(seed)
    head = "logits" if likelihood == "bernoulli" else "mean"
    shapes = decoder_shapes("mlp", (hidden,), latent_dim, num_features, (head,))
    params = {n: torch.randn(shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}
    params[f"decoder.{head}.weight"] *= 2 / math.sqrt(hidden)
    if likelihood == "gaussian":
        params["decoder.noise"] = torch.tensor(noise_variance, dtype=torch.float64)
    z = torch.randn(num_rows, latent_dim, generator=generator, dtype=torch.float64)
    return draw(observation(params, z), generator), params | {"z": z}


def draw(distribution: dist.Independent, generator: torch.Generator) -> Tensor:
    """Rows from what `observation` returns, by a generator of one's own."""
    mean, variance = distribution.mean, distribution.variance
    if isinstance(distribution.base_dist, dist.Bernoulli):
        return torch.bernoulli(mean, generator=generator)
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + variance.sqrt() * noise


def _variance(x: Tensor | None, shared: bool, floor: float) -> Params:
    like = torch.zeros(()) if x is None else x
    if shared:
        start = partial(_column_variance, x, 1, floor)
        noise = pyro.param("decoder.noise", lambda: start().mean(), constraint=constraints.greater_than(floor))
        return {"decoder.noise": noise}
    # A constant, kept with the parameters so that they say all about the decoder: detached, it has no gradient.
    return {"decoder.variance_floor": pyro.param("decoder.variance_floor", lambda: like.new_tensor(floor)).detach()}


def _start(name: str, shape: tuple[int, ...], x: Tensor | None, floor: float) -> Tensor:
    _, layer, kind = name.split(".")
    like = torch.zeros(()) if x is None else x
    if kind == "weight":
        return like.new_zeros(shape) if layer == "variance" else glorot(shape, like)
    if layer == "variance":
        return (_column_variance(x, shape[0], floor) - floor).expm1().log()
    if x is None or layer.isdigit():
        return like.new_zeros(shape)
    if layer == "mean":
        _refuse(~torch.isfinite(x), x, "the Gaussian likelihood takes finite numbers")
        return x.mean(0)
    _refuse((x != 0) & (x != 1), x, "the Bernoulli likelihood takes 0 and 1 (vae.binarise makes them)")
    return ((x.sum(0) + 0.5) / ((1 - x).sum(0) + 0.5)).log()


def _column_variance(x: Tensor | None, columns: int, floor: float) -> Tensor:
    """Variance of each column, a hundredth of their mean or twice the floor at least; 1 where there are no data."""
    if x is None:
        return torch.ones(columns)
    variance = x.var(0, correction=0)
    return variance.clamp(min=max(0.01 * float(variance.mean()), 2 * floor))


def _refuse(bad: Tensor, x: Tensor, rule: str) -> None:
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        raise ValueError(f"vae: row {row}, column {column} is {float(x[row, column]):g}: {rule}")


def _check(
    latent_dim: int,
    likelihood: str,
    network: str,
    hidden: int | tuple[int, ...] | None,
    columns: int,
    variance_floor: float = 1.0,
    prior_scale: float | None = None,
) -> tuple[int, ...]:
    """The widths of the hidden layers; ValueError for options that no decoder can have."""
    if latent_dim < 1:
        raise ValueError(f"vae: latent_dim must be at least 1, got {latent_dim}")
    if likelihood not in ("bernoulli", "gaussian"):
        raise ValueError(f"vae: unknown likelihood {likelihood!r}: there is bernoulli and gaussian")
    if network not in DEFAULT_HIDDEN:
        raise ValueError(f"vae: unknown network {network!r}: there is {', '.join(DEFAULT_HIDDEN)}")
    if not variance_floor > 0:
        raise ValueError(f"vae: variance_floor must be positive, got {variance_floor}")
    if prior_scale is not None and not prior_scale > 0:
        raise ValueError(f"vae: prior_scale must be positive, got {prior_scale}")
    widths = (hidden,) if isinstance(hidden, int) else DEFAULT_HIDDEN[network] if hidden is None else hidden
    if network == "linear" and widths:
        raise ValueError(f"vae: the linear network has no hidden layers, got hidden={hidden}")
    if network != "linear" and (not widths or min(widths) < 1):
        raise ValueError(f"vae: hidden must name at least one layer of one unit or more, got {hidden}")
    if network == "conv" and (math.isqrt(columns) ** 2 != columns or math.isqrt(columns) % 2 ** len(widths)):
        raise ValueError(
            f"vae: {len(widths)} convolutions need square images whose side is a multiple of {2 ** len(widths)}; "
            f"{columns} columns are not"
        )
    return widths
