"""A fitted guide at other data: what an encoder says of rows that it was not trained on, without fitting again."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.autoguide import AutoLaplaceApproximation
from torch import Tensor

from .info import SviInfo
from .optim.bound import bound_by_weights
from .options import at_least_one, options_by_name
from .posterior import Posterior
from .traces.draws import draw_guide
from .traces.guides import check_guide, clone_guide, display_name, family_guide, is_family, is_point
from .traces.isolate import isolated
from .traces.params import constrained_params, leaves_by_name, set_leaves, statement_params, trace_pair
from .traces.prepare import prepare


@options_by_name
def apply_guide(
    fit: Posterior | Mapping[str, Tensor],
    model: Callable,
    guide: Callable,
    *data: Any,
    num_draws: int = 1000,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> Posterior[SviInfo]:
    """Draw from a fitted guide at other data than it was fitted to.

    It serves guides that compute what they draw from the data, such as encoders, and those of latent variables that
    belong to no row; nothing is fitted.

    Parameters
    ----------
    fit : Posterior or dict of Tensor
        A posterior by `svi` or `dadvi`, or its ``params``.
    model, guide : callable
        Those that were fitted.
    *data
        Their arguments, such as new rows.
    num_draws : int
        Draws from the guide.
    seed : int
    device : str or torch.device, optional
        Where to run both. Default: the device of the data.

    Returns
    -------
    Posterior
        As `svi` returns it, with ELBO and k̂ at these data, and no losses.

    Raises
    ------
    ValueError
        If a parameter of the guide or the model has no value, or one of another shape, as where a guide has parameters
        for every row that it was fitted to.
    """
    at_least_one("apply_guide", num_draws=num_draws)
    check_guide(guide, model, "apply_guide")
    params = fit.params if isinstance(fit, Posterior) else fit
    begin = time.perf_counter()
    by_hand = None if is_family(guide) else clone_guide(guide)
    prepared = prepare("apply_guide", model, data, device=device, guide=by_hand and clone_guide(by_hand), exact=False)
    joint = prepared.log_joint()
    with isolated(seed, prepared.dtype), torch.no_grad():
        fitted: Any = family_guide(guide, prepared.model, joint) if by_hand is None else by_hand
        if isinstance(fitted, torch.nn.Module):
            fitted = fitted.to(device)
        traces = trace_pair(prepared.model, fitted, joint.data)  # creates the parameters
        if isinstance(fitted, AutoLaplaceApproximation):
            raise ValueError("apply_guide: Laplace's approximation has no parameters for its covariance: fit it again")
        set_leaves("apply_guide", params, leaves_by_name(*traces))
        traces = trace_pair(prepared.model, fitted, joint.data)
        point = is_point(fitted, joint.data)
        drawn = draw_guide(joint, fitted, 1 if point else num_draws, None)
    weights = None if point else drawn.log_weights
    draws = {name: value.cpu()[None] for name, value in drawn.sites.items()}
    length = next(iter(draws.values())).shape[1] if draws else 1
    draws |= {name: value.expand(1, length, *value.shape) for name, value in statement_params(traces[1]).items()}
    info = SviInfo(
        guide=display_name(guide),
        is_point=point,
        per_row=prepared.per_row,
        seconds=time.perf_counter() - begin,
        seed=seed,
        losses=torch.zeros(0),
        converged=True,
        message="; ".join(["drawn from a guide that was fitted to other data", *prepared.notes]),
        **({} if weights is None else bound_by_weights(weights)),
    )
    return Posterior(draws=draws, params=constrained_params(*reversed(traces)), info=info)
