"""Names, shapes and starting values of the parameters of masked networks."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from .._shared.binary import check_binary, log_odds

Network = Literal["made", "pixelcnn"]
Order = Literal["raster", "columns", "random"] | Tensor
Hidden = int | tuple[int, ...] | None
Shapes = dict[str, tuple[int, ...]]
Starts = dict[str, Callable[[], Tensor]]

DEFAULT_HIDDEN = {"made": (64,), "pixelcnn": (16, 16, 16)}
DEPTH = {"made": 1, "pixelcnn": 3}  # layers of a number of units
FIRST_KERNEL, KERNEL = 5, 3
ORDERS = ("raster", "columns", "random")
RULE = "pixels must be 0 or 1 (vae.binarise makes them)"


def network_shapes(network: str, hidden: Hidden, columns: int) -> Shapes:
    """Return names and shapes of a network's weights and biases; ValueError for an impossible network."""
    widths = _widths(network, hidden)
    shapes: Shapes = {}
    if network == "made":
        units = columns
        for layer, width in enumerate(widths):
            shapes |= {f"{layer}.weight": (width, units), f"{layer}.bias": (width,)}
            units = width
        if widths:
            shapes["logits.weight"] = (columns, units)
        shapes["direct.weight"] = (columns, columns)
    else:
        _side("pixelcnn", columns)
        channels = 1
        for layer, width in enumerate(widths):
            kernel = KERNEL if layer else FIRST_KERNEL
            shapes |= {f"{layer}.weight": (width, channels, kernel, kernel), f"{layer}.bias": (width,)}
            channels = width
        shapes["logits.weight"] = (1, channels, 1, 1)
    shapes["logits.bias"] = (columns,)
    return {f"network.{name}": shape for name, shape in shapes.items()}


def starts(x: Tensor | None, network: str, hidden: Hidden, order: str | Tensor, columns: int) -> Starts:
    """Return functions that make starting values: random weights, and the last biases at the pixels' log odds.

    Parameters
    ----------
    x : Tensor, shape (n, d), optional
        The data; default: biases of zero.
    network, hidden, order
        As for `model`.
    columns : int
        d.

    Raises
    ------
    ValueError
        For an impossible network, or an order that "pixelcnn" has not. The functions raise it for any other impossible
        order, and for data that are not 0 and 1.
    """
    like = torch.zeros(()) if x is None else x
    start: Starts = {}
    for name, shape in network_shapes(network, hidden, columns).items():
        zero = name.endswith(".bias") or name == "network.direct.weight"
        start[name] = partial(like.new_zeros, shape) if zero else partial(_glorot, shape, like)
    if x is not None:
        start["network.logits.bias"] = partial(_checked_log_odds, x)
    if network == "made":
        start["network.order"] = partial(_places, order, columns, like)
    elif isinstance(order, Tensor) or order != "raster":
        raise ValueError("autoregressive: pixelcnn goes through the pixels row by row, so its order is raster")
    return start


def _widths(network: str, hidden: Hidden) -> tuple[int, ...]:
    if network not in DEFAULT_HIDDEN:
        raise ValueError(f"autoregressive: unknown network {network!r}: there is {' and '.join(DEFAULT_HIDDEN)}")
    widths = (hidden,) * DEPTH[network] if isinstance(hidden, int) else hidden
    widths = DEFAULT_HIDDEN[network] if widths is None else widths
    if any(width < 1 for width in widths) or (network == "pixelcnn" and not widths):
        least = "at least one layer" if network == "pixelcnn" else "layers"
        raise ValueError(f"autoregressive: hidden must name {least} of one unit or more, got {hidden}")
    return widths


def _places(order: str | Tensor, columns: int, like: Tensor) -> Tensor:
    """Place of each pixel in the order, (d), from 0."""
    places = torch.arange(columns)
    if isinstance(order, Tensor):
        if order.shape != (columns,) or not torch.equal(order.cpu().double().sort().values, places.double()):
            raise ValueError(
                f"autoregressive: order must give each of the {columns} pixels its place, from 0 to {columns - 1}"
            )
        return order.to(like)
    if order == "columns":
        side = _side("order columns", columns)
        places = places.reshape(side, side).T.reshape(-1)
    elif order == "random":
        places = torch.randperm(columns, generator=torch.Generator().manual_seed(0))
    elif order != "raster":
        raise ValueError(f"autoregressive: unknown order {order!r}: there is {', '.join(ORDERS)}")
    return places.to(like)


def _side(what: str, columns: int) -> int:
    if (side := math.isqrt(columns)) ** 2 != columns:
        raise ValueError(f"autoregressive: {what} needs square images; {columns} columns are not one")
    return side


def _glorot(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uniform weights that keep the spread of what passes through them: Glorot and Bengio (2010)."""
    bound = math.sqrt(6 / ((shape[0] + shape[1]) * math.prod(shape[2:])))
    return torch.empty(shape, dtype=like.dtype, device=like.device).uniform_(-bound, bound)


def _checked_log_odds(x: Tensor) -> Tensor:
    check_binary("autoregressive", x, RULE)
    return log_odds(x)
