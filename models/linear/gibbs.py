"""Gibbs sampling: weights and noise variance in one block, and a precision per row for Student noise."""

import torch
from torch import Tensor
from torch.distributions import Gamma

from .._shared.scores import design
from .._shared.steps import GibbsSteps, Params
from .conjugate import NormalInverseGamma, draw, statistics, update
from .prior import Noise, Prior, Units, check_noise, check_normal_prior, checked, conjugate_prior, units_of


def gibbs_steps(
    noise: Noise = "normal",
    df: float = 4.0,
    prior: Prior = "normal",
    prior_scale: float = 1.0,
    units: Units | None = None,
) -> GibbsSteps:
    """Exact Gibbs sampler, blocked: with normal noise every sweep is an independent draw from the posterior.

    Student noise has a precision per row, ω[n] | w, noise_variance ~ Gamma((ν + 1)/2, (ν + r[n]² / noise_variance)/2),
    r[n] the row's residual, given which weights and noise variance are normal-inverse-gamma: Gelman et al. (2013),
    section 17.2.

    Parameters
    ----------
    noise, df, prior, prior_scale, units
        As for `model`.

    Returns
    -------
    GibbsSteps
        The state has ``w`` (chain, d + 1), ``noise_variance`` (chain), and for Student noise ``omega`` (chain, n) and
        ``df`` (chain). Chains start at the target's sd, with weights from the prior.

    Raises
    ------
    ValueError
        If the prior is not normal or an option is out of range; when run, if the target does not vary.
    """
    check_noise(noise, df)
    check_normal_prior("gibbs", prior)

    def prior_of(x: Tensor, y: Tensor) -> NormalInverseGamma:
        return conjugate_prior(units or units_of(y), x.shape[1], prior_scale)

    def prepare(x: Tensor, y: Tensor) -> tuple:
        x, y = checked(x, y, prior_scale)
        if noise == "student":
            return x, y
        before = prior_of(x, y)
        return x, y, update(before, statistics(before, x, y, y.new_ones(len(y))))

    def init(num_chains: int, x: Tensor, y: Tensor, *_: NormalInverseGamma) -> Params:
        before = prior_of(x, y)
        scale = (before.rate / before.shape).sqrt() * before.precision.diagonal().rsqrt()
        noise_variance = (before.rate / before.shape).expand(num_chains)
        w = before.mean + scale * torch.randn(num_chains, len(scale), dtype=x.dtype, device=x.device)
        state = {"w": w, "noise_variance": noise_variance}
        return state if noise == "normal" else state | {"df": torch.full_like(noise_variance, df)}

    def draw_omega(state: Params, x: Tensor, y: Tensor) -> Params:
        residual = y - state["w"] @ design(x).mT
        rate = (df + residual.square() / state["noise_variance"].unsqueeze(-1)) / 2
        return {"omega": Gamma((df + 1) / 2, rate).sample()}

    def draw_weights(state: Params, x: Tensor, y: Tensor, posterior: NormalInverseGamma | None = None) -> Params:
        if noise == "student":
            before = prior_of(x, y)
            return draw(update(before, statistics(before, x, y, state["omega"])))
        posterior = posterior or prepare(x, y)[-1]
        return draw(posterior, (len(state["w"]),))

    if noise == "normal":
        return GibbsSteps(init, (draw_weights,), ("w", "noise_variance"), prepare)
    return GibbsSteps(init, (draw_omega, draw_weights), ("w", "noise_variance", "df"), prepare)
