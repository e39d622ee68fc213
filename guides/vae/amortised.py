"""Encoders: one network for all rows, and what it says of a row's factors."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineCoupling, Permute
from torch import Tensor
from torch.nn import functional

from .networks import UNIT, Hidden, Network, features, glorot, layer, loc_scale


def encoder(x: Tensor, *, latent_dim: int = 2, network: Network = "mlp", hidden: Hidden = None) -> None:
    """Independent normals, their means and scales by a network.

    Parameters
    ----------
    x : Tensor, shape (n, d)
        All rows, or a batch of them.
    latent_dim : int
        q, as given to the model.
    network : {"mlp", "conv", "linear"}
        Layers of tanh units, convolutions over a square image, or a linear map.
    hidden : int or tuple of int, optional
        Units of the hidden layers, for "conv" channels, from the data on: 64, and (16, 32) for "conv".

    Raises
    ------
    ValueError
        For convolutions of rows that are no square images.
    """
    loc, scale = loc_scale(features(x, network, hidden), latent_dim)
    with pyro.plate("rows", len(x), dim=-1):
        pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def full_covariance_encoder(x: Tensor, *, latent_dim: int = 2, network: Network = "mlp", hidden: Hidden = None) -> None:
    """Normals with any covariance, their means and Cholesky factors by a network; arguments and errors as `encoder`."""
    h = features(x, network, hidden)
    row, column = torch.tril_indices(latent_dim, latent_dim, device=x.device)

    def start() -> Tensor:
        return torch.cat([h.new_zeros(latent_dim), torch.where(row == column, UNIT, 0.0).to(h)])

    out = layer("mean_scale_tril", (latent_dim + len(row), h.shape[-1]), h, start)
    loc, raw = out.split([latent_dim, len(row)], -1)
    position = torch.zeros(latent_dim, latent_dim, dtype=torch.long, device=x.device)
    position[row, column] = torch.arange(len(row), device=x.device)
    scale = torch.where(row == column, functional.softplus(raw), raw)[:, position].tril()
    with pyro.plate("rows", len(x), dim=-1):
        pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=scale))


def flow_encoder(
    x: Tensor,
    *,
    latent_dim: int = 2,
    network: Network = "mlp",
    hidden: Hidden = None,
    num_transforms: int = 4,
    flow_hidden: int = 32,
) -> None:
    """`encoder`'s normals, bent by affine couplings that see the row: Dinh et al. (2017).

    A coupling moves and stretches half of the factors by what the other half is, and by the network's last hidden
    layer; the halves take turns. It starts as the identity. Its inverse is as quick, so that any value has a density.

    Parameters
    ----------
    x, latent_dim, network, hidden
        As for `encoder`; there must be two factors at least.
    num_transforms : int
        Couplings.
    flow_hidden : int
        Units of a coupling's hidden layer.

    Raises
    ------
    ValueError
        For one factor, which has no halves, or as `encoder`.
    """
    if latent_dim < 2:
        raise ValueError(f"flow_encoder: a coupling needs latent_dim of 2 or more, got {latent_dim}")
    h = features(x, network, hidden)
    loc, scale = loc_scale(h, latent_dim)
    fixed = latent_dim // 2
    flip = Permute(torch.arange(latent_dim, device=x.device).flip(0))
    transforms: list[Any] = []
    for index in range(num_transforms):
        context = layer(f"flow.{index}.context", (flow_hidden, h.shape[-1]), h)
        net = _coupling(index, context, fixed, latent_dim - fixed)
        transforms += [AffineCoupling(fixed, net), flip]
    if num_transforms % 2:
        transforms.append(flip)
    with pyro.plate("rows", len(x), dim=-1):
        pyro.sample("z", dist.TransformedDistribution(dist.Normal(loc, scale).to_event(1), transforms))


def _coupling(index: int, context: Tensor, fixed: int, moved: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The network of a coupling: shift and log scale of the moved factors, from the fixed ones and the context."""
    units = context.shape[-1]
    inwards = pyro.param(f"encoder.flow.{index}.weight", partial(glorot, (units, fixed), context))
    outwards = pyro.param(f"encoder.flow.{index}.out.weight", lambda: context.new_zeros(2 * moved, units))
    bias = pyro.param(f"encoder.flow.{index}.out.bias", lambda: context.new_zeros(2 * moved))

    def net(z: Tensor) -> tuple[Tensor, Tensor]:
        out = functional.linear(torch.tanh(functional.linear(z, inwards) + context), outwards, bias)
        shift, log_scale = out.split(moved, -1)
        return shift, log_scale

    return net
