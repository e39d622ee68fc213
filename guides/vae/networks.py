"""The encoder's network, by ``pyro.param``: layers of tanh units, or convolutions over images that stay flat."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import pyro
import torch
from torch import Tensor
from torch.nn import functional

Network = Literal["mlp", "conv", "linear"]
Hidden = int | tuple[int, ...] | None

KERNEL = 4  # of the convolutions, with stride 2 and a border of 1, which halve a side
UNIT = math.log(math.e - 1)  # softplus of it is 1


def loc_scale(h: Tensor, latent_dim: int) -> tuple[Tensor, Tensor]:
    """Means and scales of independent normals, (n, q) each, from the last hidden layer; scales start near one."""

    def start() -> Tensor:
        return h.new_tensor([0.0, UNIT]).repeat_interleave(latent_dim)

    loc, raw = layer("mean_scale", (2 * latent_dim, h.shape[-1]), h, start).split(latent_dim, -1)
    return loc, functional.softplus(raw)


def features(x: Tensor, network: Network, hidden: Hidden) -> Tensor:
    """The last hidden layer, shape (n, h); images stay flat."""
    if network not in ("mlp", "conv", "linear"):
        raise ValueError(f"encoder: unknown network {network!r}: there is mlp, conv and linear")
    if isinstance(hidden, int):
        hidden = (hidden,)
    widths = hidden if hidden is not None else {"mlp": (64,), "conv": (16, 32), "linear": ()}[network]
    if network == "linear" and widths:
        raise ValueError(f"encoder: the linear network has no hidden layers, got hidden={hidden}")
    if network == "conv" and (math.isqrt(x.shape[1]) ** 2 != x.shape[1] or math.isqrt(x.shape[1]) % 2 ** len(widths)):
        raise ValueError(f"encoder: {len(widths)} convolutions cannot halve rows of {x.shape[1]} columns as images")
    centre = _constant("encoder.centre", lambda: x.mean(0))
    h = (x - centre) / _constant("encoder.spread", lambda: _spread(x - centre))
    channels = 1
    for index, width in enumerate(widths):
        shape = (width, channels, KERNEL, KERNEL) if network == "conv" else (width, h.shape[-1])
        h, channels = torch.tanh(layer(str(index), shape, h)), width
    return h


def layer(name: str, shape: tuple[int, ...], h: Tensor, bias: Callable[[], Tensor] | None = None) -> Tensor:
    """The layer h · weight + bias, by a convolution if ``shape`` has four dimensions; ``bias`` is where that starts."""
    weight = pyro.param(f"encoder.{name}.weight", partial(glorot, shape, h))
    if len(shape) == 2:
        return functional.linear(h, weight, pyro.param(f"encoder.{name}.bias", bias or (lambda: h.new_zeros(shape[0]))))
    side = math.isqrt(h.shape[-1] // shape[1])
    image = functional.conv2d(h.reshape(-1, shape[1], side, side), weight, stride=2, padding=1).flatten(1)
    return image + pyro.param(f"encoder.{name}.bias", lambda: h.new_zeros(image.shape[-1]))


def glorot(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uniform weights that keep the spread of what passes through them: Glorot and Bengio (2010)."""
    bound = math.sqrt(6 / ((shape[0] + shape[1]) * (KERNEL if len(shape) == 4 else 1)))
    return torch.empty(shape, dtype=like.dtype, device=like.device).uniform_(-bound, bound)


def _constant(name: str, start: Callable[[], Tensor]) -> Tensor:
    """A constant kept with the parameters, so that these say all about the encoder: detached, it has no gradient."""
    return pyro.param(name, start).detach()


def _spread(centred: Tensor) -> Tensor:
    """Standard deviation over all columns, one where there is none."""
    sd = centred.square().mean().sqrt()
    return torch.where(sd > 0, sd, 1)
