"""The family of semi-amortised guides: normals refined row by row, from where an encoder starts them."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ...models import vae
from ...models._shared.inputs import rows_of
from ...models.vae import Hidden, Network
from ..families import guide_family
from .encoders import encoder_params

MOST_POINTS = 16  # at which a row's bound is evaluated; exact for quadratics of fewer factors than that


@guide_family
def semi_amortised(
    model: Callable,
    *,
    latent_dim: int = 2,
    network: Network = "mlp",
    hidden: Hidden = None,
    num_steps: int = 4,
    lr: float = 0.5,
    differentiable: bool = False,
) -> Callable[..., None]:
    """Take a few gradient steps from `encoder`'s normals, on each row's bound: Kim et al. (2018).

    A family, unlike the other guides of this package: the bound needs the model. The steps follow the natural gradient,
    σ² ∂/∂μ and ½ ∂/∂log σ, so that one step size suits all scales; none moves farther than σ, or changes σ by more than
    a factor √e. The bound is averaged over fixed points μ ± σ, with signs from a Hadamard matrix, so that only the
    guide's draws are random.

    Parameters
    ----------
    model : callable
        A model of rows ``x`` with one normal site ``z`` per row, such as ``models.vae.model``.
    latent_dim, network, hidden
        As for `encoder`.
    num_steps : int
        Gradient steps; each costs a pass through the decoder and back per point, for q + 1 points or a few more.
    lr : float
        Step size; with 1, the mean of a single factor under a normal posterior is reached in one step once σ is right.
    differentiable : bool
        Whether to differentiate through the steps, as in the paper. Otherwise the encoder's gradient treats what the
        steps add as a constant, which is cheaper.

    Raises
    ------
    ValueError
        If ``num_steps`` or ``lr`` is not positive, or as for `encoder`.
    """
    if num_steps < 1 or not lr > 0:
        raise ValueError(f"semi_amortised: num_steps and lr must be positive, got {num_steps} and {lr}")
    signs = _signs(latent_dim)

    def bound(x: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
        z = loc + log_scale.exp() * signs.to(loc).unsqueeze(-2)
        with poutine.block(hide_fn=lambda msg: msg.get("type") != "param"):
            trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x)
        trace.compute_log_prob()
        sites: dict[str, Any] = dict(trace.nodes)
        joint = sites["z"]["log_prob"] + sites["x"]["log_prob"]
        return joint.mean(0).sum() + log_scale.sum()

    def guide(x: Tensor) -> None:
        x = rows_of("vae", x)
        q: Any = vae.encoded(encoder_params(x, latent_dim, network, hidden), x)
        loc, log_scale = begin = (q.base_dist.loc, q.base_dist.scale.log())
        with torch.enable_grad():
            if not differentiable or not loc.requires_grad:
                loc, log_scale = loc.detach().requires_grad_(), log_scale.detach().requires_grad_()
            for _ in range(num_steps):
                up = torch.autograd.grad(bound(x, loc, log_scale), (loc, log_scale), create_graph=differentiable)
                sd = log_scale.exp()
                loc = loc + sd * (lr * sd * up[0]).clamp(-1, 1)
                log_scale = log_scale + (0.5 * lr * up[1]).clamp(-0.5, 0.5)
        if not differentiable:
            loc, log_scale = (b + (e - b).detach() for b, e in zip(begin, (loc, log_scale), strict=True))
        with pyro.plate("rows", len(x), dim=-1):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return guide


def _signs(size: int) -> Tensor:
    """Columns of signs, of mean zero and uncorrelated (Hadamard); from `MOST_POINTS` factors on, columns repeat."""
    matrix = torch.ones(1, 1)
    while len(matrix) <= min(size, MOST_POINTS - 1):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix[:, 1 + torch.arange(size) % (len(matrix) - 1)]
