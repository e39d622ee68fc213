"""Estimate the evidence by any of the methods: check the arguments, then call the method."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from ..mcmc.annealing import schedule
from ..mcmc.latent_vector import latent_vector
from ..options import at_least_one, options_by_name
from ..posterior import Posterior
from ..traces.draws import Sites
from ..traces.guides import is_family
from ..traces.isolate import check_seed, isolated
from ..traces.log_joint import LogJoint
from ..traces.prepare import prepare
from ..traces.sites import nodes
from ..traces.supports import UNCONSTRAINED
from ..traces.validation import unvalidated
from ..traces.vmap import map_rows
from .methods import (
    Draws,
    annealed,
    bridged,
    exact,
    from_weights,
    kept_weights,
    posterior_chains,
    thinned,
    unconstrained_chains,
)
from .params import with_params
from .record import Evidence
from .summed import SummedOut
from .symmetry import exchangeable
from .tails import beyond, columns_of
from .weights import fits_rows, guide_weights, prior_weights, unconstrained

METHODS = ("importance", "naive", "iwae", "ais", "reverse_ais", "bridge")
DEFAULT_DRAWS = {"importance": 10_000, "naive": 10_000, "iwae": 10_000, "ais": 100, "reverse_ais": 100}
WEIGHTED = ("importance", "iwae")  # by weights of a guide


@options_by_name
def evidence(
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    method: str = "importance",
    posterior: Draws | None = None,
    guide: Callable | None = None,
    params: Mapping[str, Tensor] | None = None,
    num_draws: int | None = None,
    num_particles: int = 50,
    num_temperatures: int = 500,
    num_leapfrogs: int = 10,
    path: str = "sigmoid",
    seed: int = 0,
) -> Evidence:
    """Estimate log p(x), the latent variables integrated out.

    If every latent variable belongs to a row (a factor, a code), each row has its own estimate, and their sum is the
    evidence: `Evidence.per_row`. The model's parameters are held fixed. Without a latent site the evidence is the
    likelihood, exactly.

    The error of a mean of weights allows for a tail that the draws have hardly reached, by a generalised Pareto fit to
    the largest weights (Johansson 2003, Extremes 6), and for a posterior that reaches further than the guide; that of a
    bridge is its relative mean squared error (Frühwirth-Schnatter 2004, Econometrics Journal 7).

    Parameters
    ----------
    model : callable
        Any Pyro model; discrete latent sites are summed out.
    *data
        Arguments of the model.
    model_kwargs : mapping, optional
        Further arguments of the model and the guide, by name: data or options.
    method : {"importance", "naive", "iwae", "ais", "reverse_ais", "bridge"}
        "importance": log of the mean weight p(x, z) / q(z) over draws of a guide q. "iwae": the mean over groups of
        ``num_particles`` weights of the log of their mean (Burda et al. 2016, equation 8). "naive": the prior as the
        guide; the number of draws needed grows exponentially with the number of parameters the data inform. "ais":
        annealed importance sampling from the prior, or from the guide if there is one, by Hamiltonian transitions
        (Neal 2001). "reverse_ais": the same path from draws of the posterior, an upper bound in expectation (Grosse et
        al. 2015). "bridge": bridge sampling between draws of the posterior and a normal (Meng and Wong 1996).
    posterior : Posterior or dict of Tensor, optional
        For "importance" and "iwae", the result of `svi`, whose weights are used as they are. For "reverse_ais" and
        "bridge", draws from the posterior itself, shape (chain, draw, *site): from `nuts`, `hmc`, `metropolis`,
        `gibbs` or a closed form.
    guide : callable, optional
        A fitted guide with the model's signature, for "importance", "iwae", "ais" and "reverse_ais".
    params : dict of Tensor, optional
        Constrained values of the parameters of model and guide by name, as in `Posterior.params`: of ``pyro.param``
        statements and of modules' weights ("decoder$$$fc1.weight" by ``pyro.module``, "fc1.weight" in a
        ``PyroModule``). Modules have their own weights back afterwards.
    num_draws : int, optional
        Number of draws. Default: 10,000 weights, or all that the posterior has; 100 annealed particles; for a bridge,
        as many draws of the normal as of the posterior.
    num_particles : int
        k, weights per group, for "iwae".
    num_temperatures, num_leapfrogs : int
        Steps of an annealing path, and leapfrog steps at each.
    path : {"sigmoid", "linear"}
        Spacing of the temperatures.
    seed : int

    Returns
    -------
    Evidence
        ``print`` shows the estimate and any warnings.

    Raises
    ------
    ValueError
        If an option is out of range, the method lacks a guide or draws, a latent site has a flat prior, or a parameter
        has no value, a wrong shape, or a name that nothing uses.
    FloatingPointError
        If the estimate is not a finite number.
    """
    if method not in METHODS:
        raise ValueError(f"evidence: unknown method {method!r}: there is {', '.join(METHODS)}")
    if path not in ("sigmoid", "linear"):
        raise ValueError(f"{method}: unknown path {path!r}: there is sigmoid, linear")
    if num_draws is not None and num_draws < 2:
        raise ValueError(f"{method}: num_draws must be at least 2, got {num_draws}")
    at_least_one(method, num_particles=num_particles, num_temperatures=num_temperatures, num_leapfrogs=num_leapfrogs)
    if method == "iwae" and num_draws is not None and num_draws < 2 * num_particles:
        raise ValueError(f"iwae: num_draws must be at least twice num_particles, {num_particles}, got {num_draws}")
    check_seed(seed)
    _check_given(method, posterior, guide)
    begin = time.perf_counter()
    how = _How(method, num_draws, num_particles, schedule(path, num_temperatures), num_leapfrogs)
    if guide is None and method in WEIGHTED and isinstance(posterior, Posterior):
        params = {**posterior.params, **(params or {})}
    kept = guide is None and method in WEIGHTED
    prepared = prepare("evidence", model, data, guide=guide, exact=not kept)
    if prepared.flat:
        raise ValueError(f"evidence: site {prepared.flat[0]!r} has a flat prior, so that the model has no evidence")
    model, data, joint = prepared.model, prepared.data, prepared.log_joint()
    if posterior is not None:
        posterior = _completed(posterior, joint)
    with (
        isolated(seed, prepared.dtype),
        torch.no_grad(),
        with_params(model, guide, params or {}, data) as (model, guide),
    ):
        trace = poutine.trace(model).get_trace(*data)
        latent = {name: nodes(trace)[name]["value"] for name in joint.latent}
        here = LogJoint(model, data, trace, joint.summed)
        if latent:
            with unvalidated():
                summed = SummedOut(here) if joint.summed else None
                model, prior = summed or model, summed.prior if summed else model
                found, draws = _estimate(how, model, prior, guide, data, posterior, latent)
                found["diagnostics"] |= exchangeable(model, draws, latent, data)
        else:
            found = exact(float(here({})))
    if not math.isfinite(found["estimate"]):
        raise FloatingPointError(f"{method}: a log density is not a number, or no draw has a density above zero")
    return Evidence(**found, method=method, seconds=time.perf_counter() - begin, seed=seed)


class _How(NamedTuple):
    method: str
    num_draws: int | None
    num_particles: int
    betas: Tensor
    num_leapfrogs: int


def _estimate(
    how: _How,
    model: Callable,
    prior: Callable,
    guide: Callable | None,
    data: tuple,
    posterior: Draws | None,
    latent: Sites,
) -> tuple[dict[str, Any], Sites]:
    """Return the fields of an `Evidence`, and the draws that stand for the posterior, (draw, *site), if any.

    ``prior`` draws the model's latent sites, of which ``latent`` are values.
    """
    method, count = how.method, how.num_draws or DEFAULT_DRAWS.get(how.method, 0)
    if guide is None and method in WEIGHTED:
        weights, draws = kept_weights(method, posterior, how.num_draws, list(latent))
        edge = beyond(weights, *columns_of(draws)) if draws else None
        return from_weights(method, weights, how.num_particles, edge) | {"per_row": None}, draws
    latents = latent_vector("evidence", model, data)
    if guide is not None and not fits_rows(guide, latents, data):
        latents = latents.as_one_block()
    if method == "naive":
        found, draws = from_weights(method, prior_weights(latents, model, prior, data, count), how.num_particles), {}
    elif guide is not None and method in WEIGHTED:
        weights, draws = guide_weights(latents, model, guide, data, count)
        edge = beyond(weights, unconstrained(latents, draws), latents.columns)
        found = from_weights(method, weights, how.num_particles, edge)
    elif method == "ais":
        found, draws = annealed(latents, prior, guide, data, None, count, how.betas, how.num_leapfrogs), {}
    else:
        chains = posterior_chains(method, posterior, latent)
        draws = {name: value.flatten(0, 1) for name, value in chains.items()}
        if method == "bridge":
            found = bridged(latents, unconstrained_chains(method, latents, chains), count)
        else:
            ends = unconstrained_chains(method, latents, thinned(method, chains, count))
            found = annealed(latents, prior, guide, data, ends, count, how.betas, how.num_leapfrogs)
    if not latents.by_row:
        found["per_row"] = None
    return found, draws


def _completed(posterior: Draws, joint: LogJoint) -> Draws:
    """Return a posterior that has draws of sites, too, that only stand for others: those with a varying support."""
    draws = posterior.draws if isinstance(posterior, Posterior) else posterior
    missing = [name for name in joint.latent if name.endswith(UNCONSTRAINED) and name not in draws]
    if not missing or not all(name.removesuffix(UNCONSTRAINED) in draws for name in joint.latent):
        return posterior
    shape = next(iter(draws.values())).shape[:2]
    found = map_rows(joint.completed, {name: value.flatten(0, 1) for name, value in draws.items()}, chunk_size=1000)
    found = dict(draws) | {name: value.unflatten(0, shape) for name, value in found.items()}
    return replace(posterior, draws=found) if isinstance(posterior, Posterior) else found


def _check_given(method: str, posterior: Draws | None, guide: Callable | None) -> None:
    if guide is not None and method in ("naive", "bridge"):
        raise ValueError(f"{method}: it takes no guide")
    if guide is not None and (is_family(guide) or (isinstance(guide, AutoGuide) and guide.prototype_trace is None)):
        raise ValueError(f"{method}: the guide is not fitted: give what svi returned as posterior, or a fitted guide")
    if method in ("importance", "iwae") and guide is None and posterior is None:
        raise ValueError(f"{method}: give a fitted guide, or a posterior by svi, whose weights are used")
    if method in ("reverse_ais", "bridge"):
        if posterior is None:
            raise ValueError(f"{method}: give draws from the posterior, as nuts or gibbs return them")
        info = posterior.info if isinstance(posterior, Posterior) else None
        if info is not None and (info.guide is not None or info.elbo is not None):
            raise ValueError(
                f"{method}: the draws must be the posterior's own, and {info.method}'s are of an approximation"
            )
