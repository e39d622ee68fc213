"""Gibbs sampling with Pólya-Gamma variables, Polson, Scott and Windle (2013)."""

from functools import partial

import torch
from torch import Tensor

from .._shared.polya_gamma import polya_gamma
from .._shared.scores import design
from .._shared.steps import GibbsSteps, Params
from .model import check_prior_scale, checked


def gibbs_steps(prior_scale: float = 1.0) -> GibbsSteps:
    """Exact Gibbs sampler: one Pólya-Gamma variable per row, given which the weights are normal.

    ω[n] | w ~ PG(1, score[n]);  w | ω, y ~ Normal(V Xᵀ(y - ½), V), V⁻¹ = Xᵀ diag(ω) X + 1/prior_scale², X with a
    column of ones. Polson, Scott and Windle (2013), section 3.1.

    Parameters
    ----------
    prior_scale : float
        As for `model`.

    Returns
    -------
    GibbsSteps
        The state has ``w`` (chain, d + 1) and ``omega`` (chain, n); ``w`` is kept. Chains start at prior draws.

    Raises
    ------
    ValueError
        If ``prior_scale`` is not positive; when run, if the data are no finite rows with a label, 0 or 1, each.
    """
    check_prior_scale(prior_scale)

    def init(num_chains: int, x: Tensor, y: Tensor) -> Params:
        w = prior_scale * torch.randn(num_chains, x.shape[1] + 1, dtype=x.dtype, device=x.device)
        return {"w": w} | draw_omega({"w": w}, x, y)

    def draw_omega(state: Params, x: Tensor, y: Tensor) -> Params:
        return {"omega": polya_gamma(state["w"] @ design(x).mT)}

    def draw_weights(state: Params, x: Tensor, y: Tensor) -> Params:
        columns, omega = design(x), state["omega"]
        identity = torch.eye(columns.shape[1], dtype=x.dtype, device=x.device)
        precision = (columns.mT * omega.unsqueeze(1)) @ columns + identity / prior_scale**2
        factor = torch.linalg.cholesky(precision)
        linear = (columns.mT @ (y - 0.5)).expand(len(omega), -1).unsqueeze(-1)
        half = torch.linalg.solve_triangular(factor, linear, upper=False)
        w = torch.linalg.solve_triangular(factor.mT, half + torch.randn_like(half), upper=True)
        return {"w": w.squeeze(-1)}

    return GibbsSteps(init, (draw_omega, draw_weights), ("w",), partial(checked, prior_scale=prior_scale))
