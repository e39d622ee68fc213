"""Mean-field SVI by hand in eager torch: log joint densities on the unconstrained scale, and the loop around them.

Written for speed: one vector of locations and one of scales, no distribution objects, constants worked out once, the
entropy in closed form, torch's fused Adam. Densities are those of the Pyro models, Jacobians included.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

LOG_2PI = math.log(2 * math.pi)


class Target(NamedTuple):
    """A log joint density of one vector, its length, and the sites that the vector holds, in order."""

    log_density: Callable[[Tensor], Tensor]
    size: int
    sites: tuple[str, ...]


def logistic(x: Tensor, y: Tensor) -> Target:
    """w, with the bias first."""
    design = torch.cat([x.new_ones(len(x), 1), x], 1)
    size = design.shape[1]
    constant = -0.5 * size * LOG_2PI

    def log_density(w: Tensor) -> Tensor:
        return constant - 0.5 * w.dot(w) - binary_cross_entropy_with_logits(design @ w, y, reduction="sum")

    return Target(log_density, size, ("w",))


def ppca(x: Tensor, latent_dim: int = 2) -> Target:
    """W row by row, loc, and the logarithm of the noise variance; Woodbury's identity for the rows' density."""
    rows, columns = x.shape
    size = columns * latent_dim + columns + 1
    eye = torch.eye(latent_dim, dtype=x.dtype, device=x.device)
    constant = -0.5 * (columns * latent_dim + columns + rows * columns) * LOG_2PI
    constant += math.log(0.1) - columns * math.log(10.0)

    def log_density(u: Tensor) -> Tensor:
        flat, loc, log_noise = u.split([columns * latent_dim, columns, 1])
        W, log_noise = flat.view(columns, latent_dim), log_noise[0]
        noise = log_noise.exp()
        prior = -0.5 * flat.dot(flat) - 0.005 * loc.dot(loc) - log_noise - 0.1 / noise
        root = torch.linalg.cholesky(torch.addmm(noise * eye, W.mT, W))
        gap = x - loc
        inner = torch.linalg.solve_triangular(root, (gap @ W).mT, upper=False)
        squares = (gap.square().sum() - inner.square().sum()) / noise
        log_det = 2 * root.diagonal().log().sum() + (columns - latent_dim) * log_noise
        return constant + prior - 0.5 * (squares + rows * log_det)

    return Target(log_density, size, ("W", "loc", "noise_variance"))


def gmm(x: Tensor, num_components: int = 3) -> Target:
    """Stick-breaking weights, logarithms of the Bartlett factor's squared diagonal, its upper triangle, and means.

    Distances need no solving: with L Lᵀ the prior scale and y = L⁻¹ x, worked out once, |Aᵀ (y - L⁻¹ μ)|².
    """
    rows, dim = x.shape
    many, above = num_components, dim * (dim - 1) // 2
    parts = [many - 1, many * dim, many * above, many * dim]
    centre, variance = x.mean(0), x.var(0, correction=0)
    sd = variance.sqrt() / many  # the prior scale is diagonal
    y = (x - centre) / sd
    df = 3.0 + torch.arange(dim, dtype=x.dtype, device=x.device)
    row, column = torch.triu_indices(dim, dim, 1, device=x.device)
    place = row * dim + column
    place_of_diagonal = torch.arange(dim, device=x.device) * (dim + 1)
    offset = torch.arange(many - 1, 0, -1, dtype=x.dtype, device=x.device).log()
    constant = math.lgamma(5.0 * many) - many * math.lgamma(5.0)
    constant -= many * float((0.5 * df * math.log(2) + torch.lgamma(0.5 * df)).sum())
    constant -= 0.5 * many * (above + dim) * LOG_2PI - many * dim * math.log(0.1)
    each = -0.5 * dim * LOG_2PI - float(sd.log().sum())
    constant -= many * float(sd.log().sum())

    def log_density(u: Tensor) -> Tensor:
        sticks, log_square, upper, loc = u.split(parts)
        broken, rest = logsigmoid(sticks - offset), logsigmoid(offset - sticks)
        left = rest.cumsum(0)
        log_weights = torch.cat([broken, rest.new_zeros(1)]) + torch.cat([rest.new_zeros(1), left])
        jacobian = (rest + log_weights[:-1]).sum()
        log_square = log_square.view(many, dim)
        square = log_square.exp()
        prior = 4.0 * log_weights.sum() + (0.5 * df * log_square).sum() - 0.5 * square.sum() - 0.5 * upper.dot(upper)
        factor = x.new_zeros(many, dim * dim)
        factor = factor.index_copy(1, place_of_diagonal, square.sqrt())
        factor = factor.index_copy(1, place, upper.view(many, above)).view(many, dim, dim)
        log_det = 0.5 * log_square.sum(1)
        mean = ((loc.view(many, dim) - centre) / sd).unsqueeze(1)
        prior = prior + log_det.sum() - 0.005 * (mean @ factor).square().sum()
        distance = ((y - mean) @ factor).square().sum(-1)
        joint = (log_weights + log_det).unsqueeze(1) - 0.5 * distance
        return constant + prior + jacobian + torch.logsumexp(joint, 0).sum() + rows * each

    return Target(log_density, sum(parts), ("weights", "bartlett_diagonal", "bartlett_upper", "loc"))


TARGETS: dict[str, Callable[..., Target]] = {"logistic": logistic, "gmm": gmm, "ppca": ppca}


def fit(target: Target, num_steps: int, like: Tensor, *, lr: float = 0.01, init_scale: float = 0.1) -> Tensor:
    """Take steps of Adam on minus the ELBO of independent normals; returns their means and scales, stacked."""
    start = like.new_zeros(target.size), like.new_full((target.size,), math.log(math.expm1(init_scale)))
    loc, raw = (value.requires_grad_() for value in start)
    optimiser = torch.optim.Adam([loc, raw], lr=lr, fused=True)
    for _ in range(num_steps):
        scale = softplus(raw)
        loss = -target.log_density(loc + scale * torch.randn_like(loc)) - scale.log().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.stack([loc, softplus(raw)]).detach()
