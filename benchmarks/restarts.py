"""Restarts in one batch against one after another: processor time per restart of dadvi and EM."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from guidebook.inference import em
from guidebook.inference.optim.many_starts import fit_best, fit_each
from guidebook.inference.traces.isolate import isolated
from guidebook.inference.traces.prepare import prepare
from guidebook.inference.traces.target import VectorTarget
from guidebook.models import gmm

from .measure import Record, in_turn, record

SINGLE = 20  # restarts that are taken one after another
ASKED = 10.0  # at a thousand restarts


def logistic(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def mixture(x: Tensor) -> None:
    """Three components, so that each optimum is there six times."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    means = pyro.sample("means", dist.Normal(torch.zeros(3), 5.0).to_event(1))
    sds = pyro.sample("sds", dist.LogNormal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means, sds)), obs=x)


def schools(y: Tensor, sds: Tensor) -> None:
    """Centred, a funnel: most starts lead to no mode."""
    mu, tau = pyro.sample("mu", dist.Normal(0.0, 5.0)), pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        pyro.sample("y", dist.Normal(pyro.sample("theta", dist.Normal(mu, tau)), sds), obs=y)


def problems() -> dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]:
    """Models and data, by what they are called."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 5, generator=generator)
    y = (torch.rand(100, generator=generator) < torch.sigmoid(x @ torch.randn(5, generator=generator))).float()
    clusters = torch.tensor([-2.0, 1.0, 3.0])[torch.arange(100) % 3] + 0.5 * torch.randn(100, generator=generator)
    effects = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12]), torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18])
    return {
        "logistic, 100 × 5": (logistic, (x, y)),
        "mixture, 100 rows, K=3": (mixture, (clusters,)),
        "eight schools, centred": (schools, effects),
    }


def rows(quick: bool) -> Iterator[Record]:
    repeats, counts = (1, (10, 100)) if quick else (3, (10, 100, 1000))
    for name, (model, data) in list(problems().items())[: 1 if quick else None]:
        for count in counts:
            batch, alone = in_turn(
                repeats,
                partial(by_dadvi, fit_best, model, data, count),
                partial(by_dadvi, fit_each, model, data, SINGLE),
            )
            yield _row(f"dadvi, {count} restarts, {name}", batch, alone, count)
    x = torch.randn(272, 2, generator=torch.Generator().manual_seed(0)).double()
    for count in counts:
        batch, alone = in_turn(repeats, partial(by_em, x, count, 1), partial(by_em, x, 1, SINGLE))
        yield _row(f"EM, {count} restarts, 272 × 2, K=2", batch, alone, count)


def by_em(x: Tensor, count: int, fits: int) -> float:
    """Milliseconds of processor time per restart of so many fits."""
    return _per(count * fits, lambda: [em(gmm.em_steps(2), x, num_restarts=count, seed=seed) for seed in range(fits)])


def by_dadvi(fit: Callable[..., Any], model: Callable[..., Any], data: tuple[Tensor, ...], count: int) -> float:
    """Milliseconds of processor time per restart, once the model is recorded."""
    with isolated(0, torch.float64):
        target = VectorTarget("benchmarks", prepare("benchmarks", model, data, least_dtype=torch.float64))
        how: dict[str, Any] = {"response": True, "seed": 0, "once": lambda _, make: make()}

        def restarts(number: int) -> None:
            starts = torch.stack([target.batched.start, *(target.new_start() for _ in range(number - 1))])
            fit(target.batched, starts, None, **how)

        restarts(2)
        return _per(count, lambda: restarts(count))


def _per(count: int, action: Callable[[], Any]) -> float:
    begin = time.process_time()
    action()
    return 1e3 * (time.process_time() - begin) / count


def _row(name: str, batch: list[float], alone: list[float], count: int) -> Record:
    asked = ASKED if count == 1000 else None
    what = f"processor time per restart; one after another by {SINGLE} of them"
    return record("restarts", name, "one after another", batch, alone, "ms", asked=asked, what=what)
