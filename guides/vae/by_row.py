"""Normals of the rows' own: by gradient steps from where the encoder starts them, or as parameters."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from ..families import guide_family
from .networks import Hidden, Network, features, loc_scale

MOST_POINTS = 16  # at which `semi_amortised` looks at a row's bound; exact for quadratics of fewer factors than that


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
    """`encoder`'s normals after a few gradient steps on each row's own bound: Kim et al. (2018).

    The steps follow the natural gradient, σ² ∂/∂μ and ½ ∂/∂log σ, so that one step size serves all scales, and none
    goes farther than σ, or changes σ by more than a factor √e. The bound is averaged over fixed points μ ± σ, signs
    from a Hadamard matrix, so that the guide has no noise but its draws.

    Parameters
    ----------
    model : callable
        A model of rows ``x`` with one normal site ``z`` a row, such as ``models.vae.model``.
    latent_dim, network, hidden
        As for `encoder`.
    num_steps : int
        Gradient steps; each costs a pass through the decoder and back for each point, q + 1 or a few more.
    lr : float
        Size of a step; at 1 the mean of a single factor under a normal posterior arrives in one, once σ has settled.
    differentiable : bool
        Whether the encoder's gradient is taken through the steps, as in the paper. Where not, it is taken at the point
        they reach as if they had added a constant, which is cheaper.

    Returns
    -------
    callable
        A guide of the model.
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
        start, scale = loc_scale(features(x, network, hidden), latent_dim)
        loc, log_scale = start, scale.log()
        begin = (loc, log_scale)
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


def factors(x: Tensor, *, latent_dim: int = 2) -> None:
    """Independent normals with a mean and a scale for every factor of every row, and no encoder.

    Parameters
    ----------
    x : Tensor, shape (n, d)
        All rows: a batch would need to say which.
    latent_dim : int
        q, as given to the model.

    Raises
    ------
    ValueError
        If the number of rows has changed since the first call.
    """
    loc = pyro.param("factors.loc", lambda: 0.1 * torch.randn(len(x), latent_dim).to(x))
    scale = pyro.param("factors.scale", lambda: x.new_ones(len(x), latent_dim), constraint=constraints.positive)
    if len(loc) != len(x):
        raise ValueError(
            f"factors: the guide has parameters for {len(loc)} rows and was given {len(x)}: "
            "fit all rows at once, or take an encoder"
        )
    with pyro.plate("rows", len(x), dim=-1):
        pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def _signs(size: int) -> Tensor:
    """Signs of mean zero, no two columns correlated (Hadamard); from `MOST_POINTS` factors on, columns come again."""
    matrix = torch.ones(1, 1)
    while len(matrix) <= min(size, MOST_POINTS - 1):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix[:, 1 + torch.arange(size) % (len(matrix) - 1)]
