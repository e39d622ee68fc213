"""Whether rows have latent values each by itself, so that those of new rows can be drawn without the fitted ones."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Independent

from .generate import Generative, is_data
from .isolate import isolated
from .sites import is_deterministic, latent_sites, nodes
from .validation import unvalidated


def check_rows_apart(method: str, run: Generative, along: Mapping[str, int], names: Collection[str]) -> None:
    """Raise ValueError if what is drawn for one row has a part in others, as in Gaussian processes and time series.

    Parameters
    ----------
    method : str
        With which the error begins.
    run : Generative
        The model on new rows, the last of them twice, since nothing is nearer to a row than itself.
    along : dict of int
        By site, the dimension of its value that runs over rows.
    names : collection of str
        Latent sites to be drawn for new rows.
    """
    sites = latent_sites(run.trace)
    for name in (name for name in names if name in sites and name in along):
        if not _is_independent(sites[name], along[name]):
            _refuse(method, name, "draws its values for all rows at once")
        if _reaches_others(run, name, along):
            _refuse(method, name, "has values that other rows depend on")


def _refuse(method: str, name: str, what: str) -> None:
    raise ValueError(
        f"{method}: site {name!r} {what}, as in a Gaussian process or a time series, so that new rows depend on those "
        "fitted: only the model can say how, by their conditional distribution"
    )


def _is_independent(site: Mapping[str, Any], dim: int) -> bool:
    """Whether a site's values are independent along a dimension: that of a plate, or of ``to_event``."""
    fn, at = site["fn"], dim - site["value"].dim()
    event = fn.event_dim
    if any(frame.vectorized and frame.dim - event == at for frame in site["cond_indep_stack"]):
        return True
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return at < -len(fn.event_shape)


def _reaches_others(run: Generative, name: str, along: Mapping[str, int]) -> bool:
    """Whether other rows change with the value of a latent site in the first row, or in one of the last two."""
    found = nodes(run.trace)
    values = {n: s["value"] for n, s in found.items() if n in latent_sites(run.trace) or is_data(s)}
    size, dim = values[name].shape[along[name]], along[name]

    def per_row(**changed: Tensor) -> dict[str, Tensor]:
        """Return log densities and computed values, with the rows first."""
        trace = nodes(poutine.trace(poutine.condition(run.model, data=values | changed)).get_trace(*run.data))
        rows = {}
        for site, at in along.items():
            value = trace[site]["value"] if is_deterministic(trace[site]) else _log_prob(trace[site])
            if at < value.dim() and value.shape[at] == size:
                rows[site] = value.movedim(at, 0)
        return rows

    with isolated(0, run.dtype), torch.no_grad(), unvalidated():
        before, other = per_row(), found[name]["fn"].sample()
        for row in {0, max(size - 2, 0), size - 1}:
            others = torch.arange(size) != row
            place = (slice(None),) * dim + (row,)
            changed = values[name].clone()
            changed[place] = other[place]
            after = per_row(**{name: changed})
            if any(not torch.allclose(after[n][others], before[n][others], equal_nan=True) for n in before):
                return True
    return False


def _log_prob(site: Mapping[str, Any]) -> Tensor:
    """Return a site's log density, entry by entry where it can be told."""
    return torch.as_tensor(site["fn"].log_prob(site["value"]))
