"""The log likelihood of each row at each draw of a posterior, discrete latent sites summed out."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .options import options_by_name
from .posterior import Posterior
from .traces.draws import chunk_size_for
from .traces.dtypes import as_data
from .traces.isolate import isolated
from .traces.log_joint import LogJoint, Sites
from .traces.rows import Densities, RowDensities
from .traces.sites import nodes
from .traces.supports import UNCONSTRAINED
from .traces.trained import prepare_at
from .traces.validation import unvalidated
from .traces.vmap import map_rows


@options_by_name
def log_likelihood(
    model: Callable, posterior: Posterior, *data: Any, model_kwargs: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Return the log likelihood of each row at each draw, given all continuous latent sites.

    Discrete latent sites are summed out: those with one value per row, such as a mixture's components, leave one number
    per row. Where rows share one, such as the states of a hidden Markov model, they are not independent given the draw,
    and there is one number for all that share it, whose observed sites have their names joined by " + ".

    Parameters
    ----------
    model : callable
        The model that was fitted; parameters are those in ``posterior.params``.
    posterior : Posterior
        Of any method, with draws of all continuous latent sites of the model.
    *data
        Its arguments, the observed ones given.
    model_kwargs : mapping, optional
        Further arguments of the model, by name: data or options.

    Returns
    -------
    dict of Tensor
        By observed site, in nats, float64, shape (chain, draw, *batch): (chain, draw, row) in one plate. Scales and
        weights multiply, entries that a mask hides are 0. With the priors they sum to the log joint.

    Raises
    ------
    ValueError
        If the model cannot be run on the data or observes nothing, or the posterior lacks draws of a latent site.
    """
    return densities("log_likelihood", model, posterior, data).likelihood


def densities(method: str, model: Callable, posterior: Posterior, data: tuple) -> Densities:
    """Return log likelihoods as `log_likelihood` does, and log priors by latent site, shape (chain, draw)."""
    prepared = prepare_at(method, model, data, posterior.params, least_dtype=torch.float64)
    with isolated(0, prepared.dtype), torch.no_grad():
        rows = RowDensities(prepared.log_joint())
        joint = rows.joint
        if not rows.plain and not rows.shared:
            raise ValueError(f"{method}: the model observes nothing: give the data that were fitted")
        given, shape = _values(method, posterior.draws, joint)
        numbers = sum(value[0].numel() for value in given.values())
        given = as_data(given, prepared.data, prepared.dtype)
        with unvalidated():
            if given:
                found = map_rows(
                    lambda values: tuple(rows(joint.completed(values))),
                    given,
                    chunk_size=chunk_size_for(prepared.data, numbers),
                )
            else:
                found = tuple({n: v[None] for n, v in part.items()} for part in rows({}))
    by_kind = ({name: value.cpu().double().unflatten(0, shape) for name, value in part.items()} for part in found)
    return Densities(*by_kind)


def _values(method: str, draws: Mapping[str, Tensor], joint: LogJoint) -> tuple[Sites, tuple[int, int]]:
    """Return the draws of the model's latent sites, (draw, *site), and how many chains and draws there are."""
    found = {}
    for latent in joint.latent:
        name = latent if latent in draws else latent.removesuffix(UNCONSTRAINED)
        if name not in draws:
            raise ValueError(f"{method}: the posterior has no draws of site {name!r}, which the model draws")
        shape = nodes(joint.prototype)[name]["value"].shape
        if draws[name].shape[2:] != shape:
            shapes = f"{tuple(draws[name].shape[2:])}, and in the model {tuple(shape)}"
            raise ValueError(f"{method}: draws of site {name!r} have shape {shapes}: these are other data")
        found[name] = draws[name].flatten(0, 1)
    chains, length = next(iter(draws.values())).shape[:2] if found else (1, 1)
    return found, (chains, length)
