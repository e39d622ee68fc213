"""A posterior as a DataTree, with the groups that ArviZ knows: what its functions on fits and predictions read.

Kumar, Carroll, Hartikainen and Martin (2019), ArviZ: a unified library for exploratory analysis of Bayesian models in
Python, Journal of Open Source Software 4(33).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..log_likelihood import densities
from ..posterior import Posterior
from ..predictive import posterior_predictive, prior_predictive
from ..quantities import Coords
from ..traces.generate import Generative, generative
from ..traces.keywords import argument_names, by_position
from ..traces.sites import nodes
from .names import Plates, dimensions, entries, event_dim, plates_of, safe_names

if TYPE_CHECKING:
    import xarray as xr

GROUPS = ("posterior", "sample_stats")  # that need no model
BY_MODEL = ("posterior_predictive", "log_likelihood", "log_prior", "observed_data", "constant_data")
ON_REQUEST = ("prior", "prior_predictive")
SAMPLE_STATS = {  # of a record of a run: what ArviZ calls it
    "diverging": "diverging",
    "energy": "energy",
    "tree_depth": "tree_depth",
}
Sites = Mapping[str, Any]  # tensors or arrays


def write(
    posterior: Posterior,
    model: Callable | None,
    data: tuple,
    model_kwargs: Mapping[str, Any] | None,
    groups: Collection[str] | str | None,
    coords: Coords | None,
    seed: int,
) -> xr.DataTree:
    """Return a posterior as `Posterior.to_datatree` does."""
    import xarray as xr

    wanted = _wanted(groups, model is not None)
    filled: dict[str, Sites] = {"posterior": posterior.draws}
    if "sample_stats" in wanted:
        filled["sample_stats"] = _sample_stats(posterior)
    run = None
    if model is not None:
        from ..coords import coords as names_in  # which imports this package

        given, known = (model, *data), coords
        model, data = by_position("to_datatree", model, data, model_kwargs)
        coords = names_in(*given, model_kwargs=model_kwargs) if known is None else known
        run = generative("to_datatree", model, data, posterior.params)
        filled |= _by_model(posterior, model, data, run, wanted, seed)
    filled = {group: filled[group] for group in wanted if filled.get(group)}
    names = safe_names(filled.values())
    plates = plates_of(run.trace, {*names.values(), "chain", "draw"}) if run else {}
    return xr.DataTree.from_dict(
        {group: _dataset(group, sites, names, plates, run, coords or {}, posterior) for group, sites in filled.items()}
    )


def _dataset(
    group: str,
    sites: Sites,
    names: Mapping[str, str],
    plates: Plates,
    run: Generative | None,
    coords: Coords,
    posterior: Posterior,
) -> xr.Dataset:
    """Return one group, its dimensions named."""
    from arviz_base import dict_to_dataset

    sampled = [] if group.endswith("_data") else ["chain", "draw"]
    dims = {}
    for site, value in sites.items():
        event = event_dim(nodes(run.trace)[site]) if run and site in plates and group != "log_likelihood" else 0
        shape = tuple(value.shape[len(sampled) :])
        dims[names[site]] = dimensions(names[site], shape, event, plates.get(site, []) if len(shape) else [])
    found = dict_to_dataset(
        {names[site]: np.asarray(value) for site, value in sites.items()},
        attrs=_attrs(posterior) if sampled else None,
        dims=dims,
        coords=entries(dims, {names.get(site, site): given for site, given in coords.items()}),
        sample_dims=sampled,
    )
    for site, name in names.items():
        if site != name and site in sites:
            found[name].attrs["site"] = site
    return found


def _attrs(posterior: Posterior) -> dict[str, Any]:
    info = posterior.info
    found = {"inference_library": "guidebook", "method": info.method, "sampling_time": info.seconds}
    return found if info.r_hat is not None else found | {"guide": info.guide or info.method}  # no chains


def _wanted(groups: Collection[str] | str | None, has_model: bool) -> tuple[str, ...]:
    known = (*GROUPS, *BY_MODEL, *ON_REQUEST)
    if groups is None:
        return (*GROUPS, *BY_MODEL) if has_model else GROUPS
    if groups == "all":
        groups = known
    for group in [groups] if isinstance(groups, str) else groups:
        if group not in known:
            raise ValueError(f"to_datatree: there is no group {group!r}: the groups are {', '.join(known)}")
        if group not in GROUPS and not has_model:
            raise ValueError(f"to_datatree: the group {group!r} needs model= and data=")
    return tuple(group for group in known if group in groups or group == "posterior")


def _sample_stats(posterior: Posterior) -> dict[str, Tensor]:
    """Return what the sampler recorded of each draw, or the guide's log weights, (chain, draw)."""
    found = {name: getattr(posterior.info, kept, None) for kept, name in SAMPLE_STATS.items()}
    if posterior.log_weights is not None:
        found["log_weights"] = posterior.log_weights[None]
    return {name: value for name, value in found.items() if value is not None}


def _by_model(
    posterior: Posterior, model: Callable, data: tuple, run: Generative, wanted: Collection[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Return the groups for which the model is run."""
    found: dict[str, dict[str, Any]] = {}
    observed = {name: nodes(run.trace)[name]["value"].cpu() for name in run.observed}
    if observed and {"log_likelihood", "log_prior"} & set(wanted):
        both = densities("to_datatree", model, posterior, data)
        found |= {"log_likelihood": both.likelihood, "log_prior": both.prior}
    if "posterior_predictive" in wanted:
        chains, length = next((value.shape[:2] for value in posterior.draws.values()), (1, 1))
        drawn = posterior_predictive(model, posterior, *data, seed=seed)
        found["posterior_predictive"] = {n: drawn[n].unflatten(0, (chains, length)) for n in observed}
    if {"prior", "prior_predictive"} & set(wanted):
        drawn = prior_predictive(model, *data, params=posterior.params, seed=seed)
        found["prior_predictive"] = {n: v[None] for n, v in drawn.items() if n in observed}
        found["prior"] = {n: v[None] for n, v in drawn.items() if n not in observed}
    found["observed_data"] = observed
    found["constant_data"] = _constants(model, data, observed.values())
    return found


def _constants(model: Callable, data: tuple, observed: Collection[Tensor]) -> dict[str, np.ndarray]:
    """Return the numbers among a model's arguments that it does not observe, by their names."""
    found = {}
    for name, value in zip(argument_names(model, len(data)), data, strict=True):
        if not isinstance(value, Tensor | np.ndarray | int | float):
            continue
        number = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        if not any(number.shape == tuple(y.shape) and np.array_equal(number, y, equal_nan=True) for y in observed):
            found[name] = number
    return found
