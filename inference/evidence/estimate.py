"""Estimate the evidence by any of the methods: check the arguments, then call the method."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from ..mcmc.annealing import schedule
from ..mcmc.latent_vector import latent_vector
from ..options import at_least_one
from ..posterior import Posterior
from ..traces.guides import is_family
from ..traces.isolate import check_seed, isolated
from ..traces.sites import nodes
from .methods import Draws, annealed, bridged, from_weights, kept_weights, posterior_draws
from .record import Evidence
from .weights import fits_rows, guide_weights

METHODS = ("importance", "naive", "iwae", "ais", "reverse_ais", "bridge")
DEFAULT_DRAWS = {"importance": 10_000, "naive": 10_000, "iwae": 10_000, "ais": 100, "reverse_ais": 100}
APPROXIMATE = ("svi", "cavi")  # methods whose draws are not the posterior's own


def evidence(
    model: Callable,
    *data: Any,
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
    evidence: `Evidence.per_row`. The model's parameters are held fixed.

    Parameters
    ----------
    model : callable
        Any Pyro model with continuous latent sites.
    *data
        Arguments of the model.
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
        Values, constrained, of the ``pyro.param`` statements of model and guide, as in `Posterior.params`.
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
        If an option is out of range, the method lacks a guide or draws, a latent site is discrete, or a parameter has
        no value.
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
    by_row = False
    with isolated(seed), torch.no_grad():
        if guide is None and method in ("importance", "iwae"):
            found = from_weights(method, kept_weights(method, posterior, num_draws), num_particles)
        else:
            model = _with_params(model, params or {}, data)
            guide = None if guide is None else _with_params(guide, params or {}, data)
            latents = latent_vector("evidence", model, data)
            if guide is not None and not fits_rows(guide, latents, data):
                latents = latents.as_one_block()
            by_row, count = latents.by_row, num_draws or DEFAULT_DRAWS.get(method, 0)
            with pyro.validation_enabled(False):
                if method == "bridge":
                    found = bridged(latents, posterior_draws(method, posterior, latents), count)
                elif method in ("ais", "reverse_ais"):
                    betas = schedule(path, num_temperatures)
                    ends = posterior_draws(method, posterior, latents, count) if method == "reverse_ais" else None
                    found = annealed(latents, model, guide, data, ends, count, betas, num_leapfrogs)
                else:
                    weights = guide_weights(latents, model, guide, data, count)
                    found = from_weights(method, weights, num_particles)
    if not math.isfinite(found["estimate"]):
        raise FloatingPointError(f"{method}: a log density is not a number, or no draw has a density above zero")
    found["per_row"] = found["per_row"] if by_row else None
    return Evidence(**found, method=method, seconds=time.perf_counter() - begin, seed=seed)


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
        made_by = posterior.info.method if isinstance(posterior, Posterior) else ""
        if made_by in APPROXIMATE:
            raise ValueError(
                f"{method}: the draws must be the posterior's own, and {made_by}'s are of an approximation"
            )


def _with_params(function: Callable, params: Mapping[str, Tensor], data: tuple) -> Callable:
    """Return a model or guide with its parameters set to ``params``, which must have all that no module holds."""
    given = {}
    for name, node in nodes(poutine.trace(function).get_trace(*data)).items():
        if node["type"] != "param":
            continue
        if name in params:
            given[name] = params[name]
        elif len(node["args"]) > 1 and not isinstance(node["args"][1], torch.nn.Parameter):  # it would start anew
            raise ValueError(f"evidence: parameter {name!r} has no value: give it in params")
    return poutine.substitute(function, data=given) if given else function
