"""The networks of an autoencoder as functions of a dictionary of tensors, whose names and shapes say what they are.

Layers keep images flat, so that all have one form: act(h · weight + bias), with a convolution of stride 2 for the
product where ``weight`` has four dimensions. A bias has an entry for each unit, pixels of a channel included. Hidden
layers end in tanh.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional

from .._shared.steps import Params

KERNEL = 4  # of the convolutions, with stride 2 and a border of 1, which halve or double a side
DEFAULT_HIDDEN = {"mlp": (64,), "conv": (16, 32), "linear": ()}


def decoder_shapes(
    network: str, hidden: tuple[int, ...], latent_dim: int, columns: int, heads: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a decoder's weights and biases, in the order of the layers.

    Parameters
    ----------
    network : {"mlp", "conv", "linear"}
    hidden : tuple of int
        Units, or channels, of the hidden layers from the data to the factors: the decoder has them the other way round.
    latent_dim : int
        q.
    columns : int
        d; for "conv" the square of a side.
    heads : tuple of str
        Names of the last layers, side by side.
    """
    units, shapes = latent_dim, {}
    outwards = tuple(reversed(hidden))
    if network != "conv":
        for layer, width in enumerate(outwards):
            shapes |= {f"{layer}.weight": (width, units), f"{layer}.bias": (width,)}
            units = width
        last = (columns, units)
    else:
        side = math.isqrt(columns) >> len(hidden)
        shapes = {"0.weight": (outwards[0] * side**2, units), "0.bias": (outwards[0] * side**2,)}
        for layer, (above, below) in enumerate(pairwise(outwards), 1):
            side *= 2
            shapes |= {f"{layer}.weight": (above, below, KERNEL, KERNEL), f"{layer}.bias": (below * side**2,)}
        last = (outwards[-1], 1, KERNEL, KERNEL)
    for head in heads:
        shapes |= {f"{head}.weight": last, f"{head}.bias": (columns,)}
    return {f"decoder.{name}": shape for name, shape in shapes.items()}


def glorot(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uniform weights that keep the spread of what passes through them: Glorot and Bengio (2010)."""
    bound = math.sqrt(6 / ((shape[0] + shape[1]) * (KERNEL if len(shape) == 4 else 1)))
    return torch.empty(shape, dtype=like.dtype, device=like.device).uniform_(-bound, bound)


def observation(params: Mapping[str, Tensor], z: Tensor) -> dist.Independent:
    """p(x | z), a distribution over rows; z is (..., q)."""
    h = _hidden(params, "decoder", z, functional.conv_transpose2d)
    if "decoder.logits.weight" in params:
        logits = _layer(params, "decoder.logits", h, functional.conv_transpose2d)
        return dist.Bernoulli(logits=logits).to_event(1)
    mean = _layer(params, "decoder.mean", h, functional.conv_transpose2d)
    if "decoder.noise" in params:
        return dist.Normal(mean, params["decoder.noise"].sqrt()).to_event(1)
    raw = _layer(params, "decoder.variance", h, functional.conv_transpose2d)
    return dist.Normal(mean, (params["decoder.variance_floor"] + functional.softplus(raw)).sqrt()).to_event(1)


def encoded(params: Mapping[str, Tensor], x: Tensor) -> Distribution:
    """q(z | x) of an encoder of normals, a distribution over rows; x is (..., d).

    Raises
    ------
    ValueError
        If the parameters are not those of a diagonal or full normal encoder.
    """
    full = "encoder.mean_scale_tril.weight" in params
    name = "encoder.mean_scale_tril" if full else "encoder.mean_scale"
    if f"{name}.weight" not in params or any(name.startswith("encoder.flow.") for name in params):
        raise ValueError("vae: the parameters hold no encoder of normals: give what was fitted as guide=")
    h = (x - params["encoder.centre"]) / params["encoder.spread"]
    h = _hidden(params, "encoder", h, functional.conv2d)
    out = _layer(params, name, h, functional.conv2d)
    units = out.shape[-1]
    size = (math.isqrt(9 + 8 * units) - 3) // 2 if full else units // 2
    mean, raw = out.split([size, units - size], -1)
    if full:
        return dist.MultivariateNormal(mean, scale_tril=_lower_triangle(raw, size))
    return dist.Normal(mean, functional.softplus(raw)).to_event(1)


def _lower_triangle(raw: Tensor, size: int) -> Tensor:
    """A Cholesky factor (..., q, q) from q(q + 1)/2 real numbers: row by row, softplus on the diagonal."""
    row, column = torch.tril_indices(size, size, device=raw.device)
    position = torch.zeros(size, size, dtype=torch.long, device=raw.device)
    position[row, column] = torch.arange(len(row), device=raw.device)
    return torch.where(row == column, functional.softplus(raw), raw)[..., position].tril()


def latent_dim_of(params: Mapping[str, Tensor]) -> int:
    """q: what the decoder's first layer takes."""
    first = next(f"decoder.{name}.weight" for name in ("0", "logits", "mean") if f"decoder.{name}.weight" in params)
    return params[first].shape[1]


def decoder_of(params: Mapping[str, Tensor]) -> Params:
    """The decoder's entries alone.

    Raises
    ------
    ValueError
        If there are none.
    """
    found = {name: value for name, value in params.items() if name.startswith("decoder.")}
    if not found:
        raise ValueError("vae: the parameters hold no decoder: give those of a fit, Posterior.params")
    return found


def _hidden(params: Mapping[str, Tensor], prefix: str, h: Tensor, convolve: Callable[..., Tensor]) -> Tensor:
    layer = 0
    while f"{prefix}.{layer}.weight" in params:
        h = torch.tanh(_layer(params, f"{prefix}.{layer}", h, convolve))
        layer += 1
    return h


def _layer(params: Mapping[str, Tensor], name: str, h: Tensor, convolve: Callable[..., Tensor]) -> Tensor:
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    if weight.dim() == 2:
        return functional.linear(h, weight, bias)
    channels = weight.shape[0 if convolve is functional.conv_transpose2d else 1]
    side = math.isqrt(h.shape[-1] // channels)
    image = convolve(h.reshape(-1, channels, side, side), weight, stride=2, padding=1)
    return image.reshape(*h.shape[:-1], -1) + bias
