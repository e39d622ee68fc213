"""Gradients of the ELBO as Pyro's losses estimate them: how noisy is a loss, and is it right on average?

Mohamed, Rosca, Figurnov and Mnih (2020), Monte Carlo gradient estimation in machine learning, JMLR 21.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.distributions import constraints, transform_to

from .optim.losses import loss_and_grads
from .options import at_least_one, options_by_name
from .traces.guides import as_guide
from .traces.isolate import isolated
from .traces.params import trace_pair

Params = dict[str, Tensor]


@options_by_name
def elbo_gradients(
    model: Callable,
    guide: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    loss: Any = None,
    params: Params | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> Params:
    """Estimate the gradient of the ELBO many times from the same parameters.

    Parameters
    ----------
    model, guide, *data, model_kwargs
        As in `svi`.
    loss : pyro.infer.ELBO or callable, optional
        One of Pyro's losses, or a function ``(model, guide, *data) -> Tensor``; default: ``Trace_ELBO()``. A loss with
        a running baseline starts without one; its estimates are unbiased and uncorrelated from the first.
    params : dict of Tensor, optional
        Constrained values of parameters by name, such as a `Posterior`'s ``params``; default: the guide's initial ones.
    num_draws : int
        Estimates, each of one call of the loss.
    seed : int

    Returns
    -------
    dict of Tensor
        By parameter, shape (draw, *param): gradients of the ELBO, minus the loss, with respect to the parameter's
        **unconstrained** value, in nats.

    Raises
    ------
    ValueError
        If ``num_draws`` is not positive, there are no parameters, or ``params`` names one that does not exist.
    """
    at_least_one("elbo_gradients", num_draws=num_draws)
    with isolated(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered (NaN|inf)")  # they are returned
        fitted = as_guide(guide, model)
        leaves = _leaves(model, fitted, data)
        _set_params(leaves, params or {})
        estimates: dict[str, list[Tensor]] = {name: [] for name in leaves}
        with pyro.validation_enabled(False):
            for _ in range(num_draws):
                for leaf in leaves.values():
                    leaf.grad = torch.zeros_like(leaf)
                loss_and_grads(loss or Trace_ELBO(), model, fitted, data)
                for name, leaf in leaves.items():
                    estimates[name].append(-leaf.grad)  # pyright: ignore[reportOptionalOperand]
    return {name: torch.stack(draws) for name, draws in estimates.items()}


def _leaves(model: Callable, guide: Callable, data: tuple) -> Params:
    """Return unconstrained leaves by name: those of Pyro's (scoped) store, then others of the two's modules."""
    used = {name for trace in trace_pair(model, guide, data) for name in trace.param_nodes}
    leaves = {n: p for n, p in pyro.get_param_store().named_parameters() if n in used and p.requires_grad}
    known = {id(p) for p in leaves.values()}
    for function in (guide, model):
        if isinstance(function, torch.nn.Module):
            leaves |= {n: p for n, p in function.named_parameters() if p.requires_grad and id(p) not in known}
    if not leaves:
        raise ValueError("elbo_gradients: the guide and the model have no parameters")
    return leaves


@torch.no_grad()
def _set_params(leaves: Params, params: Params) -> None:
    limits = pyro.get_param_store().get_state()["constraints"]
    for name, value in params.items():
        if name not in leaves:
            raise ValueError(f"elbo_gradients: there is no parameter {name!r}; there is {', '.join(leaves)}")
        leaves[name].copy_(transform_to(limits.get(name, constraints.real)).inv(value))
