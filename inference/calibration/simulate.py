"""Simulated parameters and data, and the model as a function of them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from ..predictive import check_proper
from ..traces.generate import Generative, flat_sites, forward, generative, is_data, same_values
from ..traces.isolate import isolated
from ..traces.keywords import parameters_of
from ..traces.params import constrained_params
from ..traces.recurring import Observing, Recurring
from ..traces.sites import latent_sites, nodes
from ..traces.validation import unvalidated
from .quantities import METHOD

Sites = dict[str, Tensor]
Simulate = Callable[[int], tuple[Mapping[str, Any], Any]]
COMPARED = 3  # simulations at which the two ways to observe data are compared
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}  # of log densities, relative to 1 + their size


@dataclass(frozen=True)
class Simulations:
    """Simulated data sets.

    Attributes
    ----------
    truth : dict of Tensor
        By site, shape (simulation, *site).
    data : sequence of tuple
        Arguments of ``model``, per simulation.
    model : callable
        As a function of them, for many fits.
    own_arguments : str or None
        Why methods that take no model, or a guide written for the model's arguments, cannot be given ``data``, as a
        clause; None if they can.
    """

    truth: Sites
    data: Sequence[tuple]
    model: Callable
    own_arguments: str | None


def simulations(
    model: Callable, data: tuple, simulate: Simulate | None, num_simulations: int, seed: int
) -> Simulations:
    """Return data sets drawn by the model from its prior, or by a user's function.

    Raises
    ------
    ValueError
        If the model cannot be run, observes nothing, has parameters without a prior or a flat prior; or if ``simulate``
        does not return parameters by site and data.
    """
    if simulate is not None:
        return _by_function(model, simulate, num_simulations, seed)
    run = generative(METHOD, model, _with_none(model, data), {})
    if learned := sorted(constrained_params(run.trace)):
        raise ValueError(f"{METHOD}: parameter {learned[0]!r} has no prior, so that no value of it can be simulated")
    check_proper(run, flat_sites(run.trace))
    arguments = _observed_arguments(run)
    names = list(dict.fromkeys([*run.observed, *arguments.values()]))
    if not names:
        raise ValueError(f"{METHOD}: the model observes none of its arguments: give data as in a fit, or simulate=")
    drawn = forward(run, {}, num_simulations, seed)
    truth = {name: value for name, value in drawn.items() if name not in names}
    observed = [tuple(drawn[name][row] for name in names) for row in range(num_simulations)]
    latent = latent_sites(run.trace).keys() & truth.keys()
    taken = [{name: truth[name][row] for name in latent} for row in range(min(COMPARED, num_simulations))]
    observing = Observing(run.model, run.data, names)
    reason = None
    if len(set(arguments.values())) < len(names):
        left = next(name for name in names if name not in arguments.values())
        reason = f"what the model observes at site {left!r} is none of its arguments"
    else:
        sets = [_replaced(run.data, arguments, dict(zip(names, values, strict=True))) for values in observed]
        if all(_agree(run, sets[row], observing, observed[row], values) for row, values in enumerate(taken)):
            return Simulations(truth, sets, Recurring(model, sorted(arguments)), None)
        reason = (
            "the model's prior depends on the data that it observes, so that each would be fitted under another one: "
            "bind it, as in functools.partial(model, prior=…)"
        )
    return Simulations(truth, observed, Recurring(observing, range(len(names))), reason)


def _by_function(model: Callable, simulate: Simulate, num_simulations: int, seed: int) -> Simulations:
    seeds = np.random.SeedSequence(seed).generate_state(num_simulations)
    truths, sets = [], []
    for each in seeds:
        found = simulate(int(each))
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Mapping)):
            raise ValueError(
                f"{METHOD}: simulate must return parameters by site, a dictionary, and the model's arguments"
            )
        truth, data = found
        truths.append({name: torch.as_tensor(value).detach() for name, value in truth.items()})
        sets.append(tuple(data) if isinstance(data, tuple | list) else (data,))
    names = truths[0].keys()
    try:
        stacked = {name: torch.stack([truth[name] for truth in truths]) for name in names}
    except (KeyError, RuntimeError):
        raise ValueError(f"{METHOD}: simulate returned different sites, or shapes, with different seeds") from None
    return Simulations(stacked, sets, Recurring(model, range(len(sets[0]))), None)


def _with_none(model: Callable, data: tuple) -> tuple:
    """Return the data with None for further arguments by position that default to it: what the model may observe."""
    rest = list(parameters_of(model).values())[len(data) :]
    more = 0
    for parameter in rest:
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD or parameter.default is not None:
            break
        more += 1
    return (*data, *[None] * more)


def _observed_arguments(run: Generative) -> dict[int, str]:
    """Return the site at which each argument is observed: it has the argument's values, whatever they are."""
    found: dict[int, str] = {}
    sites, latent = nodes(run.trace), latent_sites(run.trace)
    for place, value in enumerate(run.data):
        names: list[str] = list(latent) if value is None else []
        if isinstance(value, Tensor):
            names = [name for name in run.observed if same_values(value, sites[name]["value"])]
        taken = found.values()
        name = next((name for name in names if name not in taken and _follows(run, place, name)), None)
        if name is not None:
            found[place] = name
    return found


def _follows(run: Generative, place: int, name: str) -> bool:
    """Whether a site is observed at what is given as an argument."""
    with isolated(1, run.dtype), torch.no_grad():
        try:
            value = nodes(run.trace)[name]["fn"].sample()
            given = _replaced(run.data, {place: name}, {name: value})
            again = nodes(poutine.trace(run.model).get_trace(*given))
        except Exception:  # a value of another shape than the model expects there
            return False
    return name in again and is_data(again[name]) and same_values(value, again[name]["value"])


def _replaced(data: tuple, arguments: Mapping[int, str], values: Mapping[str, Tensor]) -> tuple:
    """Return the arguments with others at what is observed, in the dtype that they have."""
    found = list(data)
    for place, name in arguments.items():
        like = data[place]
        found[place] = values[name] if like is None else values[name].to(like)
    return tuple(found)


def _agree(run: Generative, data: tuple, observing: Callable, values: tuple, truth: Sites) -> bool:
    """Whether the model with other arguments has the density that it has if it only observes other values."""
    found = []
    with isolated(0, run.dtype), torch.no_grad(), unvalidated():
        for model, args in ((run.model, data), (observing, values)):
            conditioned = poutine.condition(model, data=truth)
            try:
                found.append(float(poutine.trace(conditioned).get_trace(*args).log_prob_sum()))
            except Exception:
                return False
    return abs(found[0] - found[1]) <= TOLERANCE.get(run.dtype, 1e-3) * (1 + abs(found[1]))
