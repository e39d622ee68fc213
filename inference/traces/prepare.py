"""Before a fit begins: the model is run, put in a form that every method can take, or refused in a sentence.

A method that took any Pyro model as it is would be silently wrong on some: each handler that is put around the model,
and each refusal, stands for one kind of them.
"""

import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import biject_to

from ..options import to_device
from .errors import explained, user_line, words
from .handlers import FullPlates, OwnSupport, Promote, StartFlat, Unmask, is_flat, masked_entries
from .init import InitToUniform
from .isolate import isolated
from .log_joint import LogJoint, Sites
from .params import statement_params
from .sites import is_latent, is_plate, nodes
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
    shown: Callable[[tuple], tuple] = lambda data: data,
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
    shown : callable, optional
        ``data -> data``: those rows of large data on which the model is run here.

    Raises
    ------
    ValueError
        If the model cannot be run on the data, or is none that the method can be right on; in one sentence.
    """
    if not callable(model):
        raise ValueError(f"{method}: model must be a function or a PyroModule, got {type(model).__name__}")
    data = to_device(method, data, device)
    model = StartFlat()(model)
    data, dtype, notes = _in_one_dtype(method, model, guide, data, shown)
    model, rows, subsampling = Promote(dtype)(model), shown(data), None
    with isolated(0, dtype):
        model = _substituted(method, model, rows, params or {})
        trace = _run(method, model, rows)
        guided = set()
        if guide is not None and any(site["fn"].support.is_discrete for site in _latent(trace).values()):
            guided = set(_latent(_run(method, guide, rows, "guide")))
        if name := _subsampled(trace):
            subsampling, model = model, FullPlates(model)
            notes.append(f"plate {name!r} takes all its rows")
            trace = _run(method, model, rows)
        for name, site in _latent(trace).items():
            if name not in guided:
                _check_site(method, name, site)
        if names := _varying_supports(trace, _run(method, model, rows)):
            model = poutine.reparam(model, config={name: OwnSupport() for name in names})
            trace = _run(method, model, rows)
        masked = {name for name, site in _latent(trace).items() if bool(masked_entries(site).any())}
        if idle := {name for name in masked if _is_idle(model, rows, trace, name)}:
            model = Unmask(idle)(model)
            trace = _run(method, model, rows)
        if exact:
            _check_repeatable(method, model, rows, trace)
        summed = frozenset(
            name for name, site in _latent(trace).items() if name not in guided and site["fn"].support.is_discrete
        )
        if summed:
            _check_below(method, _summed_out(method, model, rows, trace, summed), trace)
        flat = tuple(name for name, site in _latent(trace).items() if is_flat(site["fn"]) or name in masked - idle)
        found = statement_params(trace)
    held = tuple(sorted(found.keys() - (params or {}).keys()))
    return Prepared(model, data, rows, dtype, trace, found, summed, flat, held, tuple(notes), subsampling)


def _in_one_dtype(
    method: str, model: Callable, guide: Callable | None, data: tuple, shown: Callable[[tuple], tuple]
) -> tuple[tuple, torch.dtype, list[str]]:
    """Return the data in the widest floating-point dtype among them, the model's values and torch's default.

    If model and guide run only on data in the dtypes given, because they mix them by design, those are kept.
    """
    default = torch.get_default_dtype()
    given = {value.dtype for value in data if isinstance(value, Tensor) and value.is_floating_point()}
    found, failed = _dtypes(model, None, shown(data), default)
    dtype = default
    for other in given | found:
        dtype = torch.promote_types(dtype, other)
    note = [f"computed in {str(dtype).removeprefix('torch.')}"] if dtype != default else []
    if not failed and given <= {dtype} and dtype == default:
        return data, dtype, note
    wide = tuple(v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for v in data)
    _, wrong = _dtypes(Promote(dtype)(model), guide, shown(wide), dtype)
    if not wrong:
        return wide, dtype, note
    if not failed:
        mixed = sorted(str(other).removeprefix("torch.") for other in given | found)
        return data, default, [f"computed in {' and '.join(mixed)}, since it does not run in {mixed[-1]} alone"]
    raise ValueError(f"{explained(method, wrong)}; convert data and parameters to one dtype") from None


def _dtypes(
    model: Callable, guide: Callable | None, data: tuple, dtype: torch.dtype
) -> tuple[set[torch.dtype], RuntimeError | None]:
    """Return the floating-point dtypes of a model's values, and the error if it or the guide refuse those of the data.

    Any other error is explained when the model is run next.
    """
    with isolated(0, dtype), torch.no_grad():
        try:
            values = [
                s["value"] for s in nodes(poutine.trace(model).get_trace(*data)).values() if s["type"] == "sample"
            ]
            if guide is not None:
                with poutine.block():
                    guide(*data)
        except RuntimeError as error:
            if "dtype" in str(error) or "scalar type" in str(error):
                return set(), error
        except Exception:
            pass
        else:
            return {v.dtype for v in values if isinstance(v, Tensor) and v.is_floating_point()}, None
    return set(), None


def _latent(trace: Trace) -> dict[str, Any]:
    return {name: site for name, site in nodes(trace).items() if is_latent(site)}


def _run(method: str, function: Callable, data: tuple, what: str = "model") -> Trace:
    """Return a trace of the model at a draw from its prior, or of the guide; if that fails, a ValueError says why.

    Where draws give a distribution parameters that are out of range, others are tried, and in the end taken as they
    are: the search for a start will name the site.
    """
    failed: Exception | None = None
    for messenger in (None, None, None, *map(InitToUniform, (2.0, 1.0, 0.1, 0.0))):
        try:
            with torch.no_grad():
                trace = poutine.trace(messenger(function) if messenger else function).get_trace(*data)
                trace.compute_log_prob()
            return trace
        except Exception as error:
            failed = failed or error
            if "satisfy the constraint" not in str(error):
                break
    assert failed is not None
    with suppress(Exception), torch.no_grad(), unvalidated():
        if "satisfy the constraint" in str(failed):
            return poutine.trace(function).get_trace(*data)
    raise ValueError(explained(method, failed, what)) from None


def _substituted(method: str, model: Callable, data: tuple, params: Mapping[str, Tensor]) -> Callable:
    if not params:
        return model
    known = {name for name, site in nodes(_run(method, model, data)).items() if site["type"] == "param"}
    if unknown := sorted(params.keys() - known):
        there = f"it has {', '.join(sorted(known))}" if known else "it has none"
        raise ValueError(f"{method}: the model has no parameter {unknown[0]!r}: {there}")
    return poutine.substitute(model, data=dict(params))


def _subsampled(trace: Trace) -> str | None:
    """Return the name of a plate that takes some of its rows only."""
    for name, site in nodes(trace).items():
        if is_plate(site) and (site["fn"].subsample_size or site["fn"].size) < site["fn"].size:
            return name
    return None


def _check_site(method: str, name: str, site: Any) -> None:
    """Raise ValueError for a latent site that has no transform, or cannot be summed out."""
    fn = site["fn"]
    if fn.support.is_discrete:
        if not fn.has_enumerate_support:
            raise ValueError(
                f"{method}: site {name!r} ({_kind(fn)}) is discrete with values without end, which cannot be summed "
                "out: write the model without it"
            )
        return
    try:
        biject_to(fn.support)
    except NotImplementedError:
        raise ValueError(
            f"{method}: site {name!r} ({_kind(fn)}) has a support that has no transform to unconstrained numbers"
        ) from None


def _kind(fn: Any) -> str:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return type(fn).__name__


def _varying_supports(trace: Trace, other: Trace) -> list[str]:
    """Return continuous latent sites whose support is another one at another draw."""
    found = []
    for name, site in _latent(trace).items():
        if site["fn"].support.is_discrete or name not in other.nodes:
            continue
        first, second = (biject_to(nodes(t)[name]["fn"].support) for t in (trace, other))
        at = first.inv(site["value"])
        if at.shape == second.inv(nodes(other)[name]["value"]).shape and not torch.equal(first(at), second(at)):
            found.append(name)
    return found


def _is_idle(model: Callable, data: tuple, trace: Trace, name: str) -> bool:
    """Whether the entries of a site that its mask leaves out have no influence on the joint density."""
    site = nodes(trace)[name]
    given = {n: s["value"] for n, s in _latent(trace).items()}
    fn, value = site["fn"], site["value"]
    again = value.clone() if is_flat(fn) else fn.sample()
    moved = given | {name: torch.where(masked_entries(site), again, value)}
    with torch.no_grad(), unvalidated():
        before, after = (
            poutine.trace(poutine.condition(model, data=values)).get_trace(*data).log_prob_sum()
            for values in (given, moved)
        )
    return not torch.equal(value, moved[name]) and bool(torch.isclose(torch.as_tensor(before), torch.as_tensor(after)))


def _check_repeatable(method: str, model: Callable, data: tuple, trace: Trace) -> None:
    """Raise ValueError if the density at given values is another one at every call."""
    given = {name: site["value"] for name, site in _latent(trace).items()}
    with torch.no_grad(), unvalidated():
        first, second = (poutine.trace(poutine.condition(model, data=given)).get_trace(*data) for _ in range(2))
    for name, site in nodes(first).items():
        if site["type"] != "sample" or is_plate(site) or name not in second.nodes:
            continue
        with torch.no_grad(), unvalidated():
            a, b = (torch.as_tensor(s["fn"].log_prob(s["value"])) for s in (site, nodes(second)[name]))
        if a.shape != b.shape or not torch.equal(a.nan_to_num(), b.nan_to_num()):
            raise ValueError(
                f"{method}: the density of site {name!r} changes from call to call: the model draws random numbers "
                "outside pyro.sample (torch.randn, or dropout in training mode, which model.eval() ends)"
            )


def _summed_out(method: str, model: Callable, data: tuple, trace: Trace, summed: frozenset[str]) -> LogJoint:
    """Return the log joint; a ValueError says if the model does not allow a dimension for values of discrete sites."""
    try:
        with torch.no_grad():
            joint = LogJoint(model, data, trace, summed)
            joint({name: nodes(trace)[name]["value"] for name in joint.latent})
        return joint
    except Exception as error:
        where = user_line([frame for frame, _ in traceback.walk_tb(error.__traceback__)])
        raise ValueError(
            f"{method}: the discrete sites {', '.join(sorted(summed))} cannot be summed out: {words(error)}{where}; "
            "all their values are tried at once, in a dimension to the left of the plates', so index by Vindex and let "
            "shapes broadcast"
        ) from None


def _check_below(method: str, joint: LogJoint, trace: Trace) -> None:
    """Raise ValueError for continuous latent sites whose prior depends on a site that is summed out."""
    for name, site in nodes(joint.example).items():
        plain = nodes(trace).get(name)
        if site["type"] != "sample" or is_plate(site) or plain is None or not is_latent(plain):
            continue
        if name not in joint.summed and len(site["fn"].batch_shape) > -1 - joint.first_dim:
            raise ValueError(
                f"{method}: the prior of site {name!r} depends on a discrete site, which is summed out: give "
                f"{name!r} a value per discrete one (as mixtures do), or sum out the discrete site by hand"
            )
