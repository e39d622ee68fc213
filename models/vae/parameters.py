"""Names, shapes and starting values of the parameters of decoders and encoders."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from .._shared.binary import check_binary, log_odds

Network = Literal["mlp", "conv", "linear"]
Hidden = int | tuple[int, ...] | None
Head = Literal["mean_scale", "mean_scale_tril"]
Shapes = dict[str, tuple[int, ...]]
Starts = dict[str, Callable[[], Tensor]]

KERNEL = 4  # of the convolutions, with stride 2 and padding 1, which halve or double a side
DEFAULT_HIDDEN = {"mlp": (64,), "conv": (16, 32), "linear": ()}
UNIT = math.log(math.e - 1)  # softplus(UNIT) = 1


def layer_widths(network: str, hidden: Hidden, columns: int) -> tuple[int, ...]:
    """Return the units, or channels, of the hidden layers; ValueError for an impossible network."""
    if network not in DEFAULT_HIDDEN:
        raise ValueError(f"vae: unknown network {network!r}: there is {', '.join(DEFAULT_HIDDEN)}")
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


def decoder_shapes(network: str, hidden: Hidden, latent_dim: int, columns: int, heads: tuple[str, ...]) -> Shapes:
    """Return names and shapes of a decoder's weights and biases, in the order of the layers.

    ``hidden`` goes from the data to the factors, the reverse of the decoder's order; ``heads`` names the last layers,
    side by side.
    """
    widths = layer_widths(network, hidden, columns)[::-1]
    units, shapes = latent_dim, {}
    if network != "conv":
        for layer, width in enumerate(widths):
            shapes |= {f"{layer}.weight": (width, units), f"{layer}.bias": (width,)}
            units = width
        last = (columns, units)
    else:
        side = math.isqrt(columns) >> len(widths)
        shapes = {"0.weight": (widths[0] * side**2, units), "0.bias": (widths[0] * side**2,)}
        for layer, (above, below) in enumerate(pairwise(widths), 1):
            side *= 2
            shapes |= {f"{layer}.weight": (above, below, KERNEL, KERNEL), f"{layer}.bias": (below * side**2,)}
        last = (widths[-1], 1, KERNEL, KERNEL)
    for head in heads:
        shapes |= {f"{head}.weight": last, f"{head}.bias": (columns,)}
    return {f"decoder.{name}": shape for name, shape in shapes.items()}


def encoder_shapes(network: str, hidden: Hidden, latent_dim: int, columns: int, head: str) -> Shapes:
    """Return names and shapes of an encoder's weights and biases; arguments as for `decoder_shapes`.

    ``head`` is "mean_scale" for means and scales of independent normals, or "mean_scale_tril" for means and a Cholesky
    factor.
    """
    units, channels, shapes = columns, 1, {}
    for layer, width in enumerate(layer_widths(network, hidden, columns)):
        shape = (width, channels, KERNEL, KERNEL) if network == "conv" else (width, units)
        units, channels = (width * units // channels // 4, width) if network == "conv" else (width, 1)
        shapes |= {f"{layer}.weight": shape, f"{layer}.bias": (units,)}
    outputs = 2 * latent_dim if head == "mean_scale" else latent_dim + latent_dim * (latent_dim + 1) // 2
    shapes |= {f"{head}.weight": (outputs, units), f"{head}.bias": (outputs,)}
    return {f"encoder.{name}": shape for name, shape in shapes.items()}


def decoder_start(shapes: Shapes, x: Tensor | None, variance_floor: float) -> Starts:
    """Return functions that make starting values: random weights, and a decoder at the columns' means and variances.

    Without data the means are zero (of a Bernoulli decoder one half) and the variances one. The functions raise
    ValueError for data that the likelihood cannot have made.
    """
    like = torch.zeros(()) if x is None else x
    start = _starts(shapes, like)
    if "decoder.variance.weight" in shapes:
        shape = shapes["decoder.variance.bias"]
        start["decoder.variance.weight"] = partial(like.new_zeros, shapes["decoder.variance.weight"])
        start["decoder.variance.bias"] = lambda: (
            _inverse_softplus(column_variance(x, variance_floor) - variance_floor).expand(shape).clone()
        )
    if x is not None and "decoder.logits.bias" in shapes:
        start["decoder.logits.bias"] = partial(_log_odds, x)
    elif x is not None:
        start["decoder.mean.bias"] = partial(x.mean, 0)
    return start


def encoder_start(x: Tensor, latent_dim: int, network: str, hidden: Hidden, head: Head) -> Starts:
    """Return functions that make starting values of an encoder: random means, and scales near one.

    The constants ``encoder.centre`` and ``encoder.spread`` are the means of the columns and one standard deviation for
    all of them.
    """
    shapes = encoder_shapes(network, hidden, latent_dim, x.shape[1], head)

    def bias() -> Tensor:
        row, column = torch.tril_indices(latent_dim, latent_dim)
        scale = torch.ones(latent_dim) if head == "mean_scale" else row == column
        return torch.cat([x.new_zeros(latent_dim), UNIT * scale.to(x)])

    constants: Starts = {"encoder.centre": lambda: x.mean(0), "encoder.spread": partial(_spread, x)}
    return constants | _starts(shapes, x) | {f"encoder.{head}.bias": bias}


def _starts(shapes: Shapes, like: Tensor) -> Starts:
    return {
        name: partial(glorot, shape, like) if name.endswith(".weight") else partial(like.new_zeros, shape)
        for name, shape in shapes.items()
    }


def glorot(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return uniform weights that keep the spread of what passes through them: Glorot and Bengio (2010)."""
    bound = math.sqrt(6 / ((shape[0] + shape[1]) * (KERNEL if len(shape) == 4 else 1)))
    return torch.empty(shape, dtype=like.dtype, device=like.device).uniform_(-bound, bound)


def column_variance(x: Tensor | None, floor: float) -> Tensor:
    """Return each column's variance, at least a hundredth of their mean and twice the floor; 1 without data."""
    variance = torch.ones(1) if x is None else x.var(0, correction=0)
    return variance.clamp(min=max(0.01 * float(variance.mean()), 2 * floor))


def _inverse_softplus(value: Tensor) -> Tensor:
    return value + (-(-value).expm1()).log()  # the exponential of a large value would overflow


def _spread(x: Tensor) -> Tensor:
    """Standard deviation over all columns, one if it is zero."""
    sd = (x - x.mean(0)).square().mean().sqrt()
    return torch.where(sd > 0, sd, 1)


def _log_odds(x: Tensor) -> Tensor:
    check_binary("vae", x, "the Bernoulli likelihood takes 0 and 1 (vae.binarise makes them)")
    return log_odds(x)
