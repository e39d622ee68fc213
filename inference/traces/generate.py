"""A model run forwards: data drawn anew, at given values of its latent sites or from its prior."""

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..options import device_of
from .draws import chunk_size_for
from .dtypes import as_data, in_one_dtype
from .errors import explained
from .handlers import FullPlates, Promote, StartFlat, is_flat
from .isolate import isolated
from .params import constrained_params, statement_params
from .prepare import subsampled_plate, substituted
from .refusals import summed_out
from .run import first_run
from .sites import is_deterministic, is_latent, is_plate, latent_sites, nodes
from .validation import unvalidated
from .vectors import Sites
from .vmap import map_rows


class Generative(NamedTuple):
    """A model to draw from, on its data: floating-point tensors in ``dtype``, parameters at given values."""

    method: str  # with which errors begin
    model: Callable
    data: tuple
    dtype: torch.dtype
    trace: Trace  # of a first run

    @property
    def observed(self) -> list[str]:
        """Names of the sites that the data give, in order."""
        return [name for name, site in nodes(self.trace).items() if is_data(site)]


def is_data(site: Mapping[str, Any]) -> bool:
    """Whether a node is observed: data, not a computed value, a plate or a factor."""
    return (
        site["type"] == "sample"
        and site["is_observed"]
        and not is_plate(site)
        and not is_deterministic(site)
        and not is_factor(site)
    )


def same_values(value: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, whatever their dtypes."""
    return value.shape == other.shape and bool(torch.isclose(value.double(), other.double(), equal_nan=True).all())


def is_factor(site: Mapping[str, Any]) -> bool:
    """Whether a node is a ``pyro.factor``: a log density without a value."""
    fn = site["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, dist.Unit)


def generative(method: str, model: Callable, data: tuple, params: Mapping[str, Tensor]) -> Generative:
    """Return a model as it can be drawn from; ``params`` may have more values than it has parameters.

    Unlike `prepare`, this asks for no density: sites may have any distribution that has draws.

    A ValueError, in the method's name, says if the model cannot be run on the data.
    """
    if not callable(model):
        raise ValueError(f"{method}: model must be a function or a PyroModule, got {type(model).__name__}")
    model = StartFlat(device_of(data))(model)
    data, dtype, _ = in_one_dtype(method, model, None, data, lambda all_rows: all_rows)
    model = Promote(dtype)(model)
    with isolated(0, dtype):
        trace = first_run(method, model, data)
        own = {name: params[name] for name in constrained_params(trace) if name in params}
        if held := sorted(statement_params(trace).keys() - own.keys()):
            warnings.warn(
                f"{method}: the model's parameters {', '.join(held)} are at their initial values: the posterior has "
                "no others in its params",
                stacklevel=4,
            )
        if own:
            model = substituted(method, model, data, own)
        if subsampled_plate(trace):
            model = FullPlates(model)
        return Generative(method, model, data, dtype, first_run(method, model, data))


def forward(
    run: Generative,
    given: Sites,
    num_draws: int,
    seed: int,
    *,
    exact: Collection[str] = (),
    keep: Collection[str] = (),
) -> Sites:
    """Draw every site of the model that is not given, data included, and compute the deterministic ones.

    Parameters
    ----------
    run : Generative
    given : dict of Tensor
        Values of latent sites, shape (draw, *site).
    num_draws : int
        Length of the first dimension.
    seed : int
    exact : collection of str
        Discrete latent sites that are drawn from their exact posterior, given the data and the other values. No data
        depend on the other sites that are not given.
    keep : collection of str
        Observed sites whose data stay as they are.

    Returns
    -------
    dict of Tensor
        By site, shape (draw, *site), on the CPU.
    """
    method, model, data = run.method, run.model, run.data
    given = as_data(given, data, run.dtype)
    with isolated(seed, run.dtype), torch.no_grad():
        latent = latent_sites(run.trace)
        unseen = {name: site["value"] for name, site in latent.items() if name not in given and name not in exact}
        joint = summed_out(method, LeftOut(unseen)(model), data, run.trace, frozenset(exact)) if exact else None

        def draw(row: dict[str, Any]) -> Sites:
            values = row["given"]
            if joint:
                found = nodes(joint.with_discrete(values))
                values = values | {name: found[name]["value"] for name in exact}
            trace = poutine.trace(Regenerate(values, keep)(model)).get_trace(*data)
            return {
                name: torch.as_tensor(site["value"])
                for name, site in nodes(trace).items()
                if name not in row["given"] and (is_deterministic(site) or is_latent(site))
            }

        numbers = sum(value[0].numel() for value in given.values()) + _numbers(run.trace)
        rows = {"given": given, "draw": torch.arange(num_draws)}
        with unvalidated(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # vmap's own loops
            warnings.filterwarnings("ignore", "An output with one or more elements was resized")
            try:
                draw({"given": {name: value[0] for name, value in given.items()}})
                found = map_rows(draw, rows, chunk_size=chunk_size_for(data, numbers))
            except Exception as error:
                raise ValueError(explained(method, error)) from None
    return {name: value.cpu() for name, value in found.items()}


def _numbers(trace: Trace) -> int:
    """Return how many numbers one run of a model draws."""
    return sum(
        site["value"].numel() for site in nodes(trace).values() if site["type"] == "sample" and not is_plate(site)
    )


def above(run: Generative, names: Collection[str], targets: Collection[str]) -> list[str]:
    """Return those of the latent sites on whose values the density of ``targets`` depends, directly or through others.

    Each is tried at another value, all else being equal.
    """
    values = {name: site["value"] for name, site in latent_sites(run.trace).items()}

    def log_probs(**changed: Tensor) -> dict[str, Tensor]:
        trace = poutine.trace(poutine.condition(run.model, data=values | changed)).get_trace(*run.data)
        return {n: s["fn"].log_prob(s["value"]) for n, s in nodes(trace).items() if n in values or is_data(s)}

    with isolated(0, run.dtype), torch.no_grad(), unvalidated():
        before = log_probs()
        below = {}
        for name in names:
            after = log_probs(**{name: nodes(run.trace)[name]["fn"].sample()})
            below[name] = {n for n, v in after.items() if n != name and not torch.equal(v, before[n])}
    found: set[str] = set()
    reached = set(targets)
    while new := {name for name in names if name not in found and below[name] & reached}:
        found |= new
        reached |= new
    return [name for name in names if name in found]


class Regenerate(Messenger):
    """Sets latent sites to given values, and draws the data anew, but for those of the sites to keep."""

    def __init__(self, values: Sites, keep: Collection[str] = ()) -> None:
        super().__init__()
        self.values, self.keep = values, keep

    def _pyro_sample(self, msg: Any) -> None:
        if is_data(msg) and msg["name"] not in self.keep:
            msg.update(value=None, is_observed=False, done=False)
        if msg["is_observed"] or is_plate(msg):
            return
        if msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]].clone()
        elif msg["value"] is None:
            msg["value"] = msg["fn"].sample()  # which vmap can run for more distributions than rsample


class LeftOut(Messenger):
    """Sites on which nothing else depends, at given values and without a density: as if they were not there."""

    def __init__(self, values: Sites) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values:
            msg.update(value=self.values[msg["name"]], mask=False)


def flat_sites(trace: Trace) -> list[str]:
    """Return the latent sites with flat priors, which have no draws."""
    return [name for name, site in latent_sites(trace).items() if is_flat(site["fn"])]
