"""Python loops in models: rolled graphs against eager potentials, what is rolled, and posteriors against exact ones."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from zoo import loops

from guidebook.inference import nuts
from guidebook.inference.engines.graph import functional, traced
from guidebook.inference.engines.record import Recorded
from guidebook.inference.mcmc.chains import make_target
from guidebook.inference.traces.prepare import prepare
from guidebook.inference.traces.vectors import as_sites, as_vector

jax = pytest.importorskip("jax")
pytest.importorskip("numpyro")
from guidebook.inference.engines.xla import chains, program, translate  # noqa: E402
from guidebook.inference.engines.xla.roll import InTurn, Together, Total, roll, size  # noqa: E402

F8 = torch.float64


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(F8)
    yield
    torch.set_default_dtype(torch.float32)


def series(steps: int, seed: int = 0) -> Tensor:
    noise = torch.randn(steps, generator=torch.Generator().manual_seed(seed), dtype=F8)
    values = [noise[0]]
    for value in noise[1:]:
        values.append(0.6 * values[-1] + value)
    return torch.stack(values)


def recorded(model: Callable, data: Tensor) -> tuple[Callable[[Tensor], Tensor], Recorded, Tensor]:
    """The potential over vectors, its graph, and a start."""
    pyro.set_rng_seed(0)
    with pyro.validation_enabled(False):
        start, potential = make_target("nuts", prepare("nuts", model, (data,)))
    shapes = {name: value.shape for name, value in start.items()}

    def eager(at: Tensor) -> Tensor:
        with pyro.validation_enabled(False):
            return potential(as_sites(at, shapes))

    at = as_vector(start)
    return eager, functional(eager, at, translate.knows), at


def assert_equals_eager(eager: Callable[[Tensor], Tensor], run: Callable, constants: list, at: Tensor) -> None:
    with jax.enable_x64(True):
        evaluate = jax.jit(jax.value_and_grad(run))
        for step in range(3):
            place = at + 0.1 * step * torch.randn_like(at)
            value, gradient = evaluate(place.numpy(), *constants)
            leaf = place.clone().requires_grad_()
            wanted = eager(leaf)
            (slope,) = torch.autograd.grad(wanted, leaf)
            assert float(value) == pytest.approx(float(wanted.detach()), rel=1e-11)
            np.testing.assert_allclose(gradient, slope.numpy(), rtol=1e-8, atol=1e-9 * float(slope.abs().max()))


def primitives(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


# model, length of the series, and the numbers of steps of the loops that must go in turn
ROLLED: dict[str, tuple[Callable, int, list[int]]] = {
    "autoregressive": (loops.autoregressive, 60, []),
    "moving_average": (loops.moving_average, 60, [59]),
    "garch": (loops.garch, 60, [58]),
    "walk": (loops.walk, 40, []),
    "gamma_walk": (loops.gamma_walk, 30, []),
    "hidden_markov": (loops.hidden_markov, 60, [59]),
    "enumerated": (loops.enumerated, 80, [19, 19]),
    "predator_and_prey": (loops.predator_and_prey, 4, [40]),
    "trend": (loops.trend, 40, []),
    "filtered": (loops.filtered, 20, [19, 19]),
    "interrupted": (loops.interrupted, 70, [70]),
}


@pytest.mark.parametrize("name", ROLLED)
def test_a_rolled_loop_equals_the_steps(name: str) -> None:
    model, steps, in_turn = ROLLED[name]
    data = series(steps).abs() if name == "predator_and_prey" else series(steps)
    data = data[:, None] + torch.ones(2, dtype=F8) if name == "predator_and_prey" else data
    eager, graph, at = recorded(model, data)
    parts = roll(graph.graph)
    assert [len(part.statements[0].nodes) for part in parts if isinstance(part, InTurn)] == in_turn
    run, constants = program.as_jax(graph, parts)
    assert_equals_eager(eager, run, constants, at)
    with jax.enable_x64(True):
        made = Counter(primitives(jax.make_jaxpr(run)(at.numpy(), *constants).jaxpr))
    assert made["scan"] == len(in_turn)


@pytest.mark.parametrize("model", [loops.irregular, loops.phylogeny])
def test_steps_that_differ_stay_apart(model: Callable) -> None:
    """The recursion is not rolled, the log densities of its results are."""
    eager, graph, at = recorded(model, series(40))
    parts = roll(graph.graph)
    assert not any(isinstance(part, InTurn) for part in parts)
    assert sum(isinstance(part, Total) for part in parts) == 1
    apart = [part.target for part in parts if not isinstance(part, Together | Total)]
    assert apart.count(torch.ops.aten.tanh.default) == (40 if model is loops.irregular else 39)
    run, constants = program.as_jax(graph, parts)
    assert_equals_eager(eager, run, constants, at)


def test_a_step_in_the_middle_that_depends_on_something_else() -> None:
    """Of 60 steps, the 21st takes up the first one again: those before and those after it are rolled."""

    def potential(w: Tensor) -> Tensor:
        x = [w[0]]
        for t in range(60):
            x.append(torch.sin(x[0 if t == 20 else t]) * w[1] + 0.1 * t)
        return torch.stack(x).square().sum()

    at = torch.tensor([0.3, 0.8], dtype=F8)
    graph = functional(potential, at, translate.knows)
    parts = roll(graph.graph)
    assert [len(part.statements[0].nodes) for part in parts if isinstance(part, InTurn)] == [20, 39]
    assert_equals_eager(potential, *program.as_jax(graph, parts), at)


def test_indices_that_advance_and_results_in_several_orders() -> None:
    def potential(w: Tensor) -> Tensor:
        rows, state, found = w.reshape(20, 3), w[:3], []
        for t in range(20):
            state = torch.tanh(state + rows[-1 - t] * rows[t][1:2] + w[2 * t : 2 * t + 3])
            found.append(state)
        backwards = torch.cat([value[:1] for value in found[::-1]])
        return (backwards * torch.arange(20.0, dtype=F8)).sum() + found[7].sum() + torch.stack(found, 1)[2].prod()

    at = 0.5 * torch.randn(60, dtype=F8, generator=torch.Generator().manual_seed(1))
    graph = functional(potential, at, translate.knows)
    parts = roll(graph.graph)
    assert [len(part.statements[0].nodes) for part in parts if isinstance(part, InTurn)] == [20]
    assert size(parts) < 60
    assert_equals_eager(potential, *program.as_jax(graph, parts), at)


def test_short_loops_are_left_alone() -> None:
    def potential(w: Tensor, steps: int) -> Tensor:
        for _ in range(steps):
            w = torch.sin(w) + torch.cos(w) * 2 + torch.exp(-w * w) * w
        return w

    for steps, rolled in ((7, False), (8, True)):
        graph = functional(lambda w, steps=steps: potential(w, steps), torch.tensor(0.3, dtype=F8), translate.knows)
        assert any(isinstance(part, InTurn) for part in roll(graph.graph)) == rolled


def test_two_totals_in_one_loop() -> None:
    """A total of which every value is used, and one of which only the end is."""

    def potential(w: Tensor) -> Tensor:
        total, path = w.sum(), []
        for t in range(60):
            total = total + w[t] * 2 - w[59 - t].exp()
            path.append(total)
        return torch.stack(path).sin().sum()

    at = torch.randn(60, dtype=F8, generator=torch.Generator().manual_seed(2))
    graph = functional(potential, at, translate.knows)
    parts = roll(graph.graph)
    assert [len(part.statements) for part in parts if isinstance(part, Total)] == [2]
    assert_equals_eager(potential, *program.as_jax(graph, parts), at)


def test_constants_written_in_place_do_not_leak_into_the_graph() -> None:
    def potential(w: Tensor) -> Tensor:
        scale = torch.ones(2, dtype=F8)
        before = (w + scale).exp().sum()
        scale[0] = 5.0
        return before + (w + scale).exp().sum() ** 2

    at = torch.tensor([0.3, 0.8], dtype=F8)
    graph = functional(potential, at, translate.knows)
    assert_equals_eager(potential, *program.as_jax(graph), at)


def test_recorded_gradients_serve_pyros_samplers() -> None:
    pyro.set_rng_seed(0)
    start, potential = make_target("nuts", prepare("nuts", loops.irregular, (series(20),)))
    graph = traced(potential, start)
    assert graph is not None
    leaf = {"phi": start["phi"].clone().requires_grad_()}
    ours, eager = graph(leaf), potential(leaf)
    assert float(ours.detach()) == pytest.approx(float(eager.detach()), rel=1e-12)
    slopes = [torch.autograd.grad(value, leaf["phi"])[0] for value in (ours, eager)]
    assert float(slopes[0]) == pytest.approx(float(slopes[1]), rel=1e-10)


@pytest.mark.filterwarnings("ignore:nuts. drew 10")
def test_too_many_operations_are_left_to_pyro(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[nuts.__module__], "WORTH_COMPILING", 10)
    run: dict[str, Any] = {"num_draws": 10, "num_warmup": 10, "num_chains": 1, "progress": False}
    _, graph, _ = recorded(loops.irregular, series(40))
    number = size(roll(graph.graph))
    for limit, engine in ((number, "xla"), (number - 1, "pyro")):
        monkeypatch.setattr(chains, "MAX_OPERATIONS", limit)
        if engine == "xla":
            assert nuts(loops.irregular, series(40), **run).info.engine == "xla"
            continue
        with pytest.warns(UserWarning, match=rf"compile the {number} operations .* \(loops.py, line \d+: x = "):
            assert nuts(loops.irregular, series(40), **run).info.engine == "pyro"
        assert nuts(loops.irregular, series(40), engine="xla", **run).info.engine == "xla"


def test_posterior_of_an_autoregression_is_that_of_a_regression() -> None:
    y = series(400)
    found = nuts(loops.autoregressive, y, progress=False)
    x = torch.stack([torch.ones_like(y[1:]), y[:-1]], 1)
    covariance = torch.linalg.inv(torch.eye(2, dtype=F8) + x.mT @ x / 0.25)
    mean = covariance @ x.mT @ y[1:] / 0.25
    for place, name in enumerate("ab"):
        draws, sd = found.draws[name], float(covariance[place, place]) ** 0.5
        size = float(found.info.ess[name])
        assert float(draws.mean()) == pytest.approx(float(mean[place]), abs=4 * sd / size**0.5)
        assert float(draws.std()) == pytest.approx(sd, rel=0.08)
    assert found.info.engine == "xla"


def test_posterior_of_a_random_walk_is_normal() -> None:
    """A latent site for each of 60 steps: precision of the walk, and of the observations."""
    y = series(60)
    found = nuts(loops.walk, y, num_draws=500, num_warmup=500, progress=False)
    step = torch.eye(60, dtype=F8) - torch.diag(torch.ones(59, dtype=F8), -1)
    covariance = torch.linalg.inv(step.mT @ step / 0.09 + torch.eye(60, dtype=F8) / 0.25)
    mean, sd = covariance @ y / 0.25, covariance.diagonal().sqrt()
    x = torch.stack([found.draws[f"x_{t}"] for t in range(60)], -1).flatten(0, 1)
    sizes = torch.stack([found.info.ess[f"x_{t}"].reshape(()) for t in range(60)])
    assert ((x.mean(0) - mean).abs() < 4.5 * sd / sizes.sqrt()).all()
    assert ((x.std(0) / sd - 1).abs() < 0.15).all()
    assert found.info.engine == "xla"


@pytest.mark.slow
def test_posterior_of_an_enumerated_chain_by_quadrature() -> None:
    y = series(200) + torch.sign(torch.sin(torch.arange(200, dtype=F8) / 8))
    found = nuts(loops.enumerated, y, num_draws=500, num_warmup=500, progress=False)
    grid = torch.linspace(0.001, 0.999, 999, dtype=F8)
    density = dist.Beta(2.0, 2.0).log_prob(grid) + loops.enumerated_log_likelihood(grid, y)
    weights = torch.softmax(density, 0)
    mean = float(weights @ grid)
    sd = float(weights @ (grid - mean) ** 2) ** 0.5
    size = float(found.info.ess["stay"])
    assert float(found.draws["stay"].mean()) == pytest.approx(mean, abs=4 * sd / size**0.5)
    assert float(found.draws["stay"].std()) == pytest.approx(sd, rel=0.12)
    assert found.info.engine == "xla"
