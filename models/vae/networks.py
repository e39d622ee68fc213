"""The networks of an autoencoder as functions of a dictionary of tensors, whose names and shapes describe them.

Images stay flat between layers, so that all layers have one form: act(h · weight + bias), or a convolution of stride 2
for the product if ``weight`` has four dimensions. A bias has one entry per unit, pixels of a channel included. Hidden
layers end in tanh. The encoder sees rows minus ``encoder.centre``, divided by ``encoder.spread``.
"""

import math
from collections.abc import Mapping

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional

from .._shared.steps import Params

ParamMap = Mapping[str, Tensor]
MOST_NUMBERS = 5_000_000  # that a layer computes at once, for many draws


def observation(params: ParamMap, z: Tensor) -> dist.Independent:
    """Return p(x | z), a distribution over rows; z is (..., q)."""
    h = _hidden(params, "decoder", z)
    if "decoder.logits.weight" in params:
        return dist.Bernoulli(logits=_layer(params, "decoder.logits", h)).to_event(1)
    if "decoder.noise" in params:
        variance = params["decoder.noise"]
    else:
        variance = params["decoder.variance_floor"] + functional.softplus(_layer(params, "decoder.variance", h))
    return dist.Normal(_layer(params, "decoder.mean", h), variance.sqrt()).to_event(1)


def features(params: ParamMap, x: Tensor) -> Tensor:
    """Return the encoder's last hidden layer, shape (..., h); x is (..., d)."""
    return _hidden(params, "encoder", (x - params["encoder.centre"]) / params["encoder.spread"])


def encoded(params: ParamMap, x: Tensor) -> Distribution:
    """Return q(z | x), a distribution over rows, of an encoder of normals (else ValueError); x is (..., d)."""
    if any(name.startswith("encoder.flow.") for name in params) or not _heads(params):
        raise ValueError("vae: the parameters hold no encoder of normals: give what was fitted as guide=")
    return normal(params, features(params, x))


def normal(params: ParamMap, h: Tensor) -> Distribution:
    """Return the normal distribution of the factors that the encoder's last layer makes of its hidden one."""
    head = _heads(params)[0]
    out = _layer(params, head, h)
    units = out.shape[-1]
    if head == "encoder.mean_scale":
        mean, raw = out.split(units // 2, -1)
        return dist.Normal(mean, functional.softplus(raw)).to_event(1)
    size = (math.isqrt(9 + 8 * units) - 3) // 2
    mean, raw = out.split([size, units - size], -1)
    return dist.MultivariateNormal(mean, scale_tril=_lower_triangle(raw, size))


def _heads(params: ParamMap) -> list[str]:
    return [h for h in ("encoder.mean_scale_tril", "encoder.mean_scale") if f"{h}.weight" in params]


def _lower_triangle(raw: Tensor, size: int) -> Tensor:
    """A Cholesky factor (..., q, q) from q(q + 1)/2 real numbers: row by row, softplus on the diagonal."""
    row, column = torch.tril_indices(size, size, device=raw.device)
    position = torch.zeros(size, size, dtype=torch.long, device=raw.device)
    position[row, column] = torch.arange(len(row), device=raw.device)
    return torch.where(row == column, functional.softplus(raw), raw)[..., position].tril()


def latent_dim_of(params: ParamMap) -> int:
    """Return q, the number of inputs of the decoder's first layer."""
    first = next(f"decoder.{name}.weight" for name in ("0", "logits", "mean") if f"decoder.{name}.weight" in params)
    return params[first].shape[1]


def decoder_of(params: ParamMap) -> Params:
    """Return the decoder's entries; ValueError if there are none."""
    found = {name: value for name, value in params.items() if name.startswith("decoder.")}
    if not found:
        raise ValueError("vae: the parameters hold no decoder: give those of a fit, Posterior.params")
    return found


def widest(decoder: ParamMap) -> int:
    """Return the largest number of units of a layer."""
    return max(value.numel() for name, value in decoder.items() if name.endswith(".bias"))


def _hidden(params: ParamMap, prefix: str, h: Tensor) -> Tensor:
    layer = 0
    while f"{prefix}.{layer}.weight" in params:
        h = torch.tanh(_layer(params, f"{prefix}.{layer}", h))
        layer += 1
    return h


def _layer(params: ParamMap, name: str, h: Tensor) -> Tensor:
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    if weight.dim() == 2:
        return functional.linear(h, weight, bias)
    if name.startswith("decoder."):
        convolve, channels = functional.conv_transpose2d, weight.shape[0]
    else:
        convolve, channels = functional.conv2d, weight.shape[1]
    side = math.isqrt(h.shape[-1] // channels)
    image = convolve(h.reshape(-1, channels, side, side), weight, stride=2, padding=1)
    return image.reshape(*h.shape[:-1], -1) + bias
