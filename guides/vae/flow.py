"""A normalising flow over an encoder's normals."""

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineCoupling, Permute
from torch import Tensor
from torch.nn.functional import linear

from ...models import vae
from ...models._shared.inputs import rows_of
from ...models.vae import Hidden, Network
from .encoders import encoder_params


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

    A coupling shifts and scales half of the factors, by a network of the other half and of the encoder's last hidden
    layer; the halves take turns. It starts as the identity. Its inverse is as fast, so that any value has a density.

    Parameters
    ----------
    x, latent_dim, network, hidden
        As for `encoder`; at least two factors.
    num_transforms : int
        Number of couplings.
    flow_hidden : int
        Units of a coupling's hidden layer.

    Raises
    ------
    ValueError
        If there is one factor, which has no halves, or as for `encoder`.
    """
    if latent_dim < 2:
        raise ValueError(f"flow_encoder: a coupling needs latent_dim of 2 or more, got {latent_dim}")
    x = rows_of("vae", x)
    params = encoder_params(x, latent_dim, network, hidden)
    h = vae.features(params, x)
    fixed = latent_dim // 2
    flip = Permute(torch.arange(latent_dim, device=x.device).flip(0))
    transforms: list[Any] = []
    for index in range(num_transforms):
        transforms += [_coupling(f"encoder.flow.{index}", h, flow_hidden, fixed, latent_dim - fixed), flip]
    if num_transforms % 2:
        transforms.append(flip)
    with pyro.plate("rows", len(x), dim=-1):
        pyro.sample("z", dist.TransformedDistribution(vae.normal(params, h), transforms))


def _coupling(name: str, h: Tensor, units: int, fixed: int, moved: int) -> AffineCoupling:
    """Shift and log scale of the moved factors by one hidden layer, from the fixed ones and ``h``."""
    context = pyro.param(f"{name}.context.weight", partial(vae.glorot, (units, h.shape[-1]), h))
    context = linear(h, context, pyro.param(f"{name}.context.bias", lambda: h.new_zeros(units)))
    inwards = pyro.param(f"{name}.weight", partial(vae.glorot, (units, fixed), h))
    outwards = pyro.param(f"{name}.out.weight", lambda: h.new_zeros(2 * moved, units))
    bias = pyro.param(f"{name}.out.bias", lambda: h.new_zeros(2 * moved))

    def shift_and_log_scale(z: Tensor) -> tuple[Tensor, ...]:
        return linear(torch.tanh(linear(z, inwards) + context), outwards, bias).split(moved, -1)

    return AffineCoupling(fixed, shift_and_log_scale)
