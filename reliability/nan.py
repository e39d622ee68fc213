"""Fits whose loss stops being a number on the way: name -> ``(**checkpoint) -> Posterior``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from guidebook import guides
from guidebook.inference import (
    Posterior,
    cavi,
    closed_form,
    dadvi,
    em,
    fit,
    gibbs,
    hmc,
    mcem,
    metropolis,
    nuts,
    pathfinder,
    svi,
)
from guidebook.models import gmm

from .fits import CLUSTERS, QUIET

EDGE = 0.5  # beyond it the density is not a number; a third of the posterior without it lies there
ROWS = torch.full((4,), 0.5, dtype=torch.float64)
CHAIN: dict[str, Any] = {"num_draws": 50, "num_warmup": 100, "num_chains": 1, **QUIET}


def model(x: Tensor) -> None:
    """A normal mean whose density is NaN beyond an edge, as that of a log or a root of a negative number is."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.factor("edge", torch.where(w > EDGE, torch.nan, 0.0))
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("x", dist.Normal(w.unsqueeze(-1), 1.0), obs=x)


def _with_params(x: Tensor) -> None:
    scale = pyro.param("scale", torch.tensor(1.0, dtype=torch.float64), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(torch.where(scale < 0.999, torch.nan, z), scale), obs=x)


def _after(calls: int, work: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """Return a function that returns NaN after so many calls."""
    made = 0

    def broken(*args: Any) -> dict[str, Tensor]:
        nonlocal made
        made += 1
        found = work(*args)
        broken_ones = {name: v * torch.nan for name, v in found.items() if v.is_floating_point()}
        return found | broken_ones if made > calls else found

    return broken


def _em(method: Callable[..., Posterior], steps: Any) -> Posterior:
    return method(steps._replace(m_step=_after(1, steps.m_step)), CLUSTERS, num_restarts=2)


def _gibbs() -> Posterior:
    steps = gmm.gibbs_steps(num_components=2)
    broken = tuple(_after(3, conditional) for conditional in steps.conditionals)
    return gibbs(steps._replace(conditionals=broken), CLUSTERS, num_draws=60, **QUIET)


CASES: dict[str, Callable[[], Posterior]] = {
    "svi": partial(svi, model, guides.mean_field, ROWS, num_steps=400, lr=0.05, engine="eager", **QUIET),
    "dadvi": partial(dadvi, model, ROWS, **QUIET),
    "pathfinder": partial(pathfinder, model, ROWS, **QUIET),
    "nuts": partial(nuts, model, ROWS, engine="pyro", **CHAIN),
    "nuts compiled": partial(nuts, model, ROWS, engine="xla", num_draws=200, num_warmup=100, num_chains=1, **QUIET),
    "hmc": partial(hmc, model, ROWS, trajectory_length=0.5, target_accept=0.5, **CHAIN | {"num_warmup": 20}),
    "metropolis": partial(metropolis, model, ROWS, num_warmup=2000, num_draws=100, num_chains=1, **QUIET),
    "mcem": partial(mcem, _with_params, ROWS, num_steps=200, **QUIET),
    "em": partial(_em, em, gmm.em_steps(num_components=2)),
    "cavi": partial(_em, cavi, gmm.cavi_steps(num_components=2)),
    "gibbs": _gibbs,
    "closed_form": partial(closed_form, lambda x: {"loc": x.mean() * torch.nan}, ROWS),
    "fit": partial(fit, model, ROWS, **QUIET),
}
