"""Draws of new data from a fitted model, on the same rows or on new ones, and from its prior.

Gelman, Carlin, Stern, Dunson, Vehtari and Rubin (2013), Bayesian Data Analysis, third edition, sections 1.3 and 6.3.
"""

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from .options import at_least_one, options_by_name
from .posterior import Posterior
from .traces.generate import Generative, above, flat_sites, forward, generative
from .traces.isolate import check_seed
from .traces.sites import latent_sites

MAX_PROBED = 50  # sites without draws of which it is tried what depends on them


@options_by_name
def posterior_predictive(
    model: Callable,
    posterior: Posterior,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_draws: int | None = None,
    redraw: Collection[str] = (),
    keep: Collection[str] = (),
    seed: int = 0,
) -> dict[str, Tensor]:
    """Draw new data from a model at the draws of its posterior, on the rows that were fitted or on new ones.

    What the model observes is drawn, whether the data are given or None: ``posterior_predictive(model, posterior, x,
    y)`` and ``posterior_predictive(model, posterior, x_new, None)`` both give draws of y. Latent sites keep the values
    of the posterior's draw. Those in a plate whose rows are others now (the effects of new groups) are drawn from the
    model, given all other sites, with a warning.

    Discrete sites that the fit has summed out are drawn from their exact posterior, given the draw and those data that
    are given; for rows of which nothing is observed, that is their prior.

    Parameters
    ----------
    model : callable
        The model that was fitted; parameters are those in ``posterior.params``.
    posterior : Posterior
        Of any method.
    *data
        Arguments of the model, with as many rows as are wanted; observed ones may be None.
    model_kwargs : mapping, optional
        Further arguments of the model, by name: data or options.
    num_draws : int, optional
        Draws of the posterior to use, evenly spaced; each several times, if there are fewer. Default: each once.
    redraw : collection of str
        Latent sites to draw from the model all the same: new rows that are as many as the old ones are taken for them.
    keep : collection of str
        Observed sites whose data are taken as given instead of drawn: features that have a distribution of their own,
        since some of them are missing (``obs_mask``, by the name of the statement).
    seed : int

    Returns
    -------
    dict of Tensor
        By site, shape (draw, *site), the draws of all chains in a row as in `Posterior.samples`: the observed sites,
        latent ones that were drawn here, and the deterministic ones.

    Raises
    ------
    ValueError
        If the model cannot be run on the data, a site outside plates has no draws or draws of another shape, a site to
        be drawn has a flat prior, or an option is out of range.

    Warns
    -----
    UserWarning
        If latent sites are drawn from the model because their draws are those of other rows, or missing.
    """
    method = "posterior_predictive"
    at_least_one(method, num_draws=num_draws)
    check_seed(seed)
    run = generative(method, model, data, posterior.params)
    kept = {name for name in run.observed if name in keep or name.removesuffix("_observed") in keep}
    if unknown := [name for name in keep if name not in kept and f"{name}_observed" not in kept]:
        raise ValueError(f"{method}: the model observes no site {unknown[0]!r} to keep: it has {_listed(run.observed)}")
    given, exact = _given(run, posterior, redraw)
    size = len(next(iter(posterior.samples.values()))) if posterior.draws else 1
    used = torch.arange(num_draws or size) * size // (num_draws or size)
    return forward(run, {name: value[used] for name, value in given.items()}, len(used), seed, exact=exact, keep=kept)


@options_by_name
def prior_predictive(
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_draws: int = 1000,
    params: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Draw latent sites from a model's prior, and data given each of them.

    Parameters
    ----------
    model : callable
        Any Pyro model.
    *data
        Its arguments; those that it observes, given or None, are drawn.
    model_kwargs : mapping, optional
        Further arguments of the model, by name: data or options.
    num_draws : int
    params : dict of Tensor, optional
        Values, constrained, of the model's ``pyro.param`` statements. Default: their initial values, with a warning.
    seed : int

    Returns
    -------
    dict of Tensor
        By site, shape (draw, *site): latent, observed and deterministic ones.

    Raises
    ------
    ValueError
        If the model cannot be run on the data, or a site has a flat prior, which has no draws.
    """
    method = "prior_predictive"
    at_least_one(method, num_draws=num_draws)
    check_seed(seed)
    run = generative(method, model, data, params or {})
    check_proper(run, flat_sites(run.trace))
    return forward(run, {}, num_draws, seed)


def _given(run: Generative, posterior: Posterior, redraw: Collection[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the draws of sites that keep them, (draw, *site), and the names of discrete sites to be drawn exactly."""
    latent, samples = latent_sites(run.trace), posterior.samples
    if unknown := [name for name in redraw if name not in latent]:
        raise ValueError(f"{run.method}: the model has no latent site {unknown[0]!r} to draw: it has {_listed(latent)}")
    given, moved, missing = {}, [], []
    for name, site in latent.items():
        if name in redraw:
            continue
        draws = samples.get(name)
        if draws is None:
            missing.append(name)
        elif draws.shape[1:] == site["value"].shape:
            given[name] = draws
        elif _differs_in_plates(site, draws.shape[1:]):
            moved.append(name)
        else:
            shapes = f"{tuple(draws.shape[1:])}, and in the model {tuple(site['value'].shape)}"
            raise ValueError(
                f"{run.method}: draws of site {name!r} have shape {shapes}, which is not for other rows of a plate"
            )
    check_proper(run, [name for name in flat_sites(run.trace) if name not in given])
    exact = [n for n in missing if run.observed and getattr(latent[n]["fn"], "has_enumerate_support", False)]
    absent = [name for name in missing if name not in exact]
    known = above(run, absent, {*run.observed, *given, *exact}) if len(absent) <= MAX_PROBED else []
    if moved or known or redraw:  # on which discrete sites may depend
        known, exact = [*known, *exact], []
    _check_missing(run, absent, known)
    if moved or known:
        names = [*moved, *known]
        as_fitted = "; if these are groups of the fit, give the model their number as an option" if moved else ""
        warnings.warn(
            f"{run.method}: {_listed(names)} {'is' if len(names) == 1 else 'are'} drawn from the model, given all "
            f"other sites, since the posterior has no draws for these rows{as_fitted}",
            stacklevel=4,
        )
    return given, exact


def _check_missing(run: Generative, absent: Collection[str], known: Collection[str]) -> None:
    """Raise ValueError for a site without draws that all rows share, and that the fit must have drawn.

    ``known`` are those on which given values depend. Others are what is to be predicted, or, where they lie beside
    sites in plates, a site that the fit lacks.
    """
    shared = [name for name in [*absent, *known] if not latent_sites(run.trace)[name]["cond_indep_stack"]]
    lacking = [name for name in shared if name in known or (not run.observed and len(shared) < len(absent))]
    if lacking:
        raise ValueError(
            f"{run.method}: the posterior has no draws of site {lacking[0]!r}, which all rows share (add those of "
            "discrete_draws to a discrete site's posterior, or name it in redraw)"
        )


def check_proper(run: Generative, flat: list[str]) -> None:
    """Raise ValueError for a site with a flat prior."""
    if flat:
        raise ValueError(f"{run.method}: site {flat[0]!r} has a flat prior, from which there are no draws")


def _differs_in_plates(site: Any, shape: torch.Size) -> bool:
    """Whether a shape is the site's but for the sizes of plates that it lies in."""
    value, event = site["value"], site["fn"].event_dim
    if len(shape) != value.dim():
        return False
    plates = {frame.dim - event for frame in site["cond_indep_stack"] if frame.vectorized}
    differing = [dim for dim in range(-value.dim(), 0) if shape[dim] != value.shape[dim]]
    return all(dim in plates for dim in differing)


def _listed(names: Collection[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
