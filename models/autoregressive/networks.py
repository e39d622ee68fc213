"""Masked networks as functions of a dictionary of tensors, whose names and shapes describe them.

Hidden layers end in tanh. A mask multiplies each weight: MADE's connect a unit of degree m to those of degree m and
more, and to pixels after the m-th in the order; PixelCNN's convolutions see the rows above a pixel and what is to its
left, in the first layer without the pixel itself (mask A), in the others with it (mask B).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional

ParamMap = Mapping[str, Tensor]
ALONE = torch.Size()
MOST_NUMBERS = 5_000_000  # that a layer computes at once, for many rows


def logits(params: ParamMap, x: Tensor) -> Tensor:
    """Return the log odds of a one at each pixel given those before it, (..., d); x is (..., d)."""
    masked = _masked(params)
    return _made(params, masked, x) if "network.order" in params else _pixelcnn(params, masked, x)


def _masked(params: ParamMap) -> dict[str, Tensor]:
    return {name: params[name] * mask for name, mask in masks(params).items()}


def masks(params: ParamMap) -> dict[str, Tensor]:
    """Return a mask of zeros and ones for each weight, by its name: Germain et al. (2015), equations 8 to 13.

    The degrees of hidden units go through 1 to d - 1, again and again.
    """
    if "network.order" not in params:
        return {
            name: _kernel_mask(params[name], sees_itself=name != "network.0.weight")
            for name in params
            if name.endswith(".weight")
        }
    pixels = params["network.order"].detach() + 1
    degrees, found = pixels, {}
    for name, _ in _layers(params):
        width = params[f"{name}.bias"]
        units = 1 + torch.arange(len(width), device=width.device) % max(1, len(pixels) - 1)
        units = units.to(pixels)
        found[f"{name}.weight"] = (units[:, None] >= degrees).to(pixels)
        degrees = units
    if "network.logits.weight" in params:
        found["network.logits.weight"] = (pixels[:, None] > degrees).to(pixels)
    found["network.direct.weight"] = (pixels[:, None] > pixels).to(pixels)
    return found


def log_prior(params: ParamMap, scale: float) -> Tensor:
    """Return the log density of Normal(0, scale²) at all weights, biases excluded, in nats."""
    weights = [value for name, value in params.items() if name.endswith(".weight")]
    normal = dist.Normal(weights[0].new_zeros(()), scale)
    return torch.stack([normal.log_prob(weight).sum() for weight in weights]).sum()


class Pixels(dist.TorchDistribution):
    """A binary image, by the network that gives each of its pixels from those before it.

    Parameters
    ----------
    params : mapping
        Those of the network.
    batch_shape : torch.Size
        Of independent images with the same network.
    """

    def __init__(self, params: ParamMap, batch_shape: torch.Size = ALONE, validate_args: Any = None) -> None:
        self.params = params
        super().__init__(batch_shape, params["network.logits.bias"].shape, validate_args=validate_args)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """None: the network's parameters may be any numbers."""
        return {}

    @property
    def support(self) -> constraints.Constraint:
        """Images of zeros and ones."""
        return constraints.independent(constraints.boolean, 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Pixels":
        """Return the same for more images."""
        return Pixels(self.params, torch.Size(batch_shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x), (...), in nats: the sum over pixels of log p(x[j] | x[<j])."""
        terms = -functional.binary_cross_entropy_with_logits(logits(self.params, value), value, reduction="none")
        return terms.sum(-1).expand(torch.broadcast_shapes(self.batch_shape, value.shape[:-1]))

    @torch.no_grad()
    def sample(self, sample_shape: Any = ALONE, generator: torch.Generator | None = None) -> Tensor:
        """Draw images, pixel after pixel in the network's order, each given those drawn."""
        x = self.params["network.logits.bias"].new_zeros(self.shape(sample_shape))
        rows = x.reshape(-1, x.shape[-1])
        draw = _draw_made if "network.order" in self.params else _draw_pixelcnn
        draw(self.params, _masked(self.params), rows, generator)
        return rows.reshape(x.shape)


def _made(params: ParamMap, masked: ParamMap, x: Tensor, at: slice = slice(None)) -> Tensor:
    """Return the log odds of some pixels, default: all."""
    h = x
    for name, _ in _layers(params):
        h = torch.tanh(functional.linear(h, masked[f"{name}.weight"], params[f"{name}.bias"]))
    out = functional.linear(x, masked["network.direct.weight"][at], params["network.logits.bias"][at])
    return out + h @ masked["network.logits.weight"][at].mT if "network.logits.weight" in params else out


def _pixelcnn(params: ParamMap, masked: ParamMap, x: Tensor) -> Tensor:
    side = math.isqrt(x.shape[-1])
    h = x.reshape(-1, 1, side, side)
    for name, kernel in _layers(params):
        h = torch.tanh(functional.conv2d(h, masked[f"{name}.weight"], params[f"{name}.bias"], padding=kernel // 2))
    out = functional.conv2d(h, masked["network.logits.weight"])
    return out.reshape(x.shape) + params["network.logits.bias"]


def _draw_made(params: ParamMap, masked: ParamMap, x: Tensor, generator: torch.Generator | None) -> None:
    """Draw the rows of ``x`` (n, d), with the hidden layers once per pixel."""
    for pixel in params["network.order"].argsort().tolist():
        probability = torch.sigmoid(_made(params, masked, x, slice(pixel, pixel + 1))[:, 0])
        x[:, pixel] = torch.bernoulli(probability, generator=generator)


def _draw_pixelcnn(params: ParamMap, masked: ParamMap, x: Tensor, generator: torch.Generator | None) -> None:
    """Draw the rows of ``x`` (n, d), with the whole network once in all.

    A layer at a pixel is computed when that pixel's turn comes, and kept: it sees no later pixel.
    """
    n, side = len(x), math.isqrt(x.shape[1])
    weights = [masked[f"{name}.weight"] for name, _ in _layers(params)] + [masked["network.logits.weight"]]
    biases = [params[f"{name}.bias"] for name, _ in _layers(params)]
    margins = [weight.shape[-1] // 2 for weight in weights]
    # What each layer sees: pixels, then the units of the layer before, with zeros above and at the sides.
    seen = [x.new_zeros(n, w.shape[1], side + m, side + 2 * m) for w, m in zip(weights, margins, strict=True)]
    for pixel, shift in enumerate(params["network.logits.bias"]):
        row, column = divmod(pixel, side)
        for layer, bias in enumerate(biases):
            m, after = margins[layer], margins[layer + 1]
            near = seen[layer][:, :, row : row + m + 1, column : column + 2 * m + 1]
            units = torch.tanh(near.flatten(1) @ weights[layer][:, :, : m + 1].flatten(1).mT + bias)
            seen[layer + 1][:, :, row + after, column + after] = units
        probability = torch.sigmoid(seen[-1][:, :, row, column] @ weights[-1].flatten() + shift)
        x[:, pixel] = torch.bernoulli(probability, generator=generator)
        seen[0][:, 0, row + margins[0], column + margins[0]] = x[:, pixel]


def _layers(params: ParamMap) -> Iterator[tuple[str, int]]:
    """Name of each hidden layer, and the last dimension of its weights."""
    layer = 0
    while f"network.{layer}.weight" in params:
        yield f"network.{layer}", params[f"network.{layer}.weight"].shape[-1]
        layer += 1


def _kernel_mask(weight: Tensor, *, sees_itself: bool) -> Tensor:
    """Rows above the middle one, and of that what is left of the middle, which is included if it sees itself."""
    size = weight.shape[-1]
    place = torch.arange(size * size, device=weight.device).reshape(size, size)
    middle = size * size // 2
    return (place <= middle if sees_itself else place < middle).to(weight)
