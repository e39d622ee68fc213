"""Before a fit begins: the model is run, put in a form that every method can take, or refused in a sentence.

A method that took any Pyro model as it is would be silently wrong on some: each handler that is put around the model,
and each refusal, stands for one kind of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from torch import Tensor

from ..options import device_of, to_device
from .dtypes import in_one_dtype
from .handlers import FullPlates, Promote, StartFlat, Unmask, WithWeights, is_flat, masked_entries
from .isolate import isolated
from .log_joint import LogJoint, Sites
from .params import is_weight, statement_params
from .recurring import Recurring
from .refusals import check_below, check_repeatable, check_site, summed_out
from .run import first_run
from .sites import is_deterministic, is_local, is_plate, latent_sites, nodes, row_count
from .supports import OwnSupport, beyond_stated_supports
from .validation import unvalidated


@dataclass(frozen=True)
class Prepared:
    """A model that every method can take, with the data for it.

    Attributes
    ----------
    model : callable
        The model, with handlers around it where they are needed.
    data : tuple
        Its arguments: on the device asked for, floating-point tensors in ``dtype``.
    rows : tuple
        Those of them on which it was run here: the data, or some rows of large ones.
    dtype : torch.dtype
        The default dtype during the fit.
    trace : Trace
        Of the model, at a draw from its prior.
    params : dict of Tensor
        Values of the model's ``pyro.param`` statements, constrained.
    summed : frozenset of str
        Discrete latent sites, which are to be summed out.
    flat : tuple of str
        Latent sites without a proper prior: their model has no evidence.
    held : tuple of str
        Parameters among them that were not given, so that a method that does not learn them holds them.
    notes : tuple of str
        What was done to model and data, as clauses.
    subsampling : callable or None
        The model with a plate that subsamples by itself, if it has one, for gradient steps; ``model`` takes all rows.
    given : callable
        The model as it was given.
    """

    model: Callable
    data: tuple
    rows: tuple
    dtype: torch.dtype
    trace: Trace
    params: dict[str, Tensor]
    summed: frozenset[str]
    flat: tuple[str, ...]
    held: tuple[str, ...]
    notes: tuple[str, ...]
    subsampling: Callable | None
    given: Callable

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process is sent: not the trace, which may hold a model's own functions."""
        return {name: value for name, value in vars(self).items() if name != "trace"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Run the model again for the trace."""
        vars(self).update(state)
        with isolated(0, self.dtype), torch.no_grad():
            vars(self)["trace"] = first_run("prepare", self.model, self.rows)

    @property
    def recurring(self) -> Recurring | None:
        """The model as it was given, if it is to be fitted to many data sets."""
        return self.given if isinstance(self.given, Recurring) else None

    @property
    def per_row(self) -> list[str]:
        """Deterministic sites with a value per row, of a model whose continuous latent sites have none."""
        sites = nodes(self.trace)
        latent = [sites[name] for name in latent_sites(self.trace) if name not in self.summed]
        rows = row_count(self.rows)
        sizes = {size for site in latent for size in site["value"].shape}
        if rows in (None, 1) or rows in sizes or any(is_local(site, self.rows) for site in latent):
            return []
        return [
            name
            for name, site in sites.items()
            if is_deterministic(site) and (is_local(site, self.rows) or rows in site["value"].shape)
        ]

    def held_draws(self, draws: Sites) -> Sites:
        """Return the parameters as draws that do not vary, shape (chain, draw, *site), as many as there are."""
        chains, length = next(iter(draws.values())).shape[:2]
        return {name: value.expand(chains, length, *value.shape) for name, value in self.params.items()}

    def log_joint(self) -> LogJoint:
        """Return the log density of the continuous latent sites."""
        return LogJoint(self.model, self.rows, self.trace, self.summed)


def prepare(
    method: str,
    model: Callable,
    data: tuple,
    *,
    device: str | torch.device | None = None,
    params: Mapping[str, Tensor] | None = None,
    guide: Callable | None = None,
    exact: bool = True,
    least_dtype: torch.dtype | None = None,
    shown: Callable[[tuple], tuple] = lambda data: data,
    in_blocks: bool = False,
) -> Prepared:
    """Return a model in the form in which methods take it.

    Parameters
    ----------
    method : str
        Name of the method, with which errors begin.
    model : callable
        Any Pyro model.
    data : tuple
        Its arguments.
    device : str or torch.device, optional
        Where to move the tensors.
    params : dict of Tensor, optional
        Values, constrained, of the model's ``pyro.param`` statements, which are then held there.
    guide : callable, optional
        A guide with the model's arguments: the latent sites that it draws are left to it.
    exact : bool
        Whether the density must be the same at every call.
    least_dtype : torch.dtype, optional
        Compute in this dtype, where the model allows it, or a wider one.
    shown : callable, optional
        ``data -> data``: those rows of large data on which the model is run here.
    in_blocks : bool
        Whether all rows are never there at once: a plate that stands for more rows than are given stays as it is.

    Raises
    ------
    ValueError
        If the model cannot be run on the data, or is none that the method can be right on; in one sentence.
    """
    if not callable(model):
        raise ValueError(f"{method}: model must be a function or a PyroModule, got {type(model).__name__}")
    data, given = to_device(method, data, device), model
    model = StartFlat(device_of(data))(model)
    data, dtype, notes = in_one_dtype(method, model, guide, data, shown, least_dtype)
    model, rows, subsampling = Promote(dtype)(model), shown(data), None
    with isolated(0, dtype):
        model = substituted(method, model, rows, params or {})
        trace = first_run(method, model, rows)
        guided = set()
        if guide is not None and any(site["fn"].support.is_discrete for site in latent_sites(trace).values()):
            guided = set(latent_sites(first_run(method, guide, rows, "guide")))
        if not in_blocks and (name := subsampled_plate(trace)):
            subsampling, model = model, FullPlates(model)
            notes.append(f"plate {name!r} takes all its rows")
            trace = first_run(method, model, rows)
        for name, site in latent_sites(trace).items():
            if name not in guided:
                check_site(method, name, site)
        beyond = beyond_stated_supports(trace, first_run(method, model, rows))
        if guide is not None and beyond:
            guided = set(latent_sites(first_run(method, guide, rows, "guide")))
        if isinstance(guide, AutoGuide) and (own := beyond & guided):
            raise ValueError(
                f"{method}: the support of site {min(own)!r} is not what its distribution states once and for all, so "
                f"give the guide's class, {type(guide).__name__}, instead of a guide: it is made for the site's own"
            )
        if names := beyond - guided:
            model = poutine.reparam(model, config={name: OwnSupport() for name in names})
            trace = first_run(method, model, rows)
        masked = {name for name, site in latent_sites(trace).items() if bool(masked_entries(site).any())}
        if idle := {name for name in masked if _is_idle(model, rows, trace, name)}:
            model = Unmask(idle)(model)
            trace = first_run(method, model, rows)
        if exact:
            check_repeatable(method, model, rows, trace)
        summed = frozenset(
            name for name, site in latent_sites(trace).items() if name not in guided and site["fn"].support.is_discrete
        )
        if summed:
            check_below(method, summed_out(method, model, rows, trace, summed), trace)
        flat = tuple(name for name, site in latent_sites(trace).items() if is_flat(site["fn"]) or name in masked - idle)
        found = statement_params(trace)
    held = tuple(sorted(found.keys() - (params or {}).keys()))
    return Prepared(model, data, rows, dtype, trace, found, summed, flat, held, tuple(notes), subsampling, given)


def substituted(method: str, model: Callable, data: tuple, params: Mapping[str, Tensor]) -> Callable:
    """Return the model with its parameters at given values.

    Names that it does not have may be a guide's, unless one of its own has no value: then they are a mistake.
    """
    if not params:
        return model
    sites = {n: site for n, site in nodes(first_run(method, model, data)).items() if site["type"] == "param"}
    known = set(sites)
    unknown = sorted(params.keys() - known)
    if unknown and not (known and known <= params.keys()):
        there = f"it has {', '.join(sorted(known))}" if known else "it has none"
        raise ValueError(f"{method}: the model has no parameter {unknown[0]!r}: {there}")
    given = {name: params[name] for name in sites if name in params}
    for name, value in given.items():
        if value.shape != sites[name]["value"].shape:
            shapes = f"{tuple(value.shape)} in params and {tuple(sites[name]['value'].shape)} in the model"
            raise ValueError(f"{method}: parameter {name!r} has shape {shapes}")
    weights = [(site["args"][1], given.pop(name)) for name, site in sites.items() if name in given and is_weight(site)]
    model = poutine.substitute(model, data=given) if given else model
    return WithWeights(model, weights) if weights else model


def subsampled_plate(trace: Trace) -> str | None:
    """Return the name of a plate that takes some of its rows only."""
    for name, site in nodes(trace).items():
        if is_plate(site) and (site["fn"].subsample_size or site["fn"].size) < site["fn"].size:
            return name
    return None


def _is_idle(model: Callable, data: tuple, trace: Trace, name: str) -> bool:
    """Whether the entries of a site that its mask leaves out have no influence on the joint density."""
    site = nodes(trace)[name]
    given = {n: s["value"] for n, s in latent_sites(trace).items()}
    fn, value = site["fn"], site["value"]
    again = value.clone() if is_flat(fn) else fn.sample()
    moved = given | {name: torch.where(masked_entries(site), again, value)}
    with torch.no_grad(), unvalidated():
        before, after = (
            poutine.trace(poutine.condition(model, data=values)).get_trace(*data).log_prob_sum()
            for values in (given, moved)
        )
    return not torch.equal(value, moved[name]) and bool(torch.isclose(torch.as_tensor(before), torch.as_tensor(after)))
