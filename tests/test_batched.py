"""Energies, gradients and products with the Hessian at many points at once, against autograd at one after another."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guidebook.inference.engines.batched import Batched
from guidebook.inference.traces.isolate import isolated
from guidebook.inference.traces.prepare import prepare
from guidebook.inference.traces.recurring import Recurring
from guidebook.inference.traces.target import VectorTarget

T = torch.tensor
double = torch.float64


def regression(x: Tensor, y: Tensor) -> None:
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2, dtype=double), 1.0).to_event(1))
    sd = pyro.sample("sd", dist.HalfCauchy(T(1.0, dtype=double)))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ weights, sd), obs=y)


def walk(y: Tensor) -> None:  # a loop of more than 300 operations
    pull = pyro.sample("pull", dist.Beta(T(2.0, dtype=double), 2.0))
    level, total = y[0], 0.0
    for value in y[1:]:
        level = pull * level + 0.1 * torch.sin(level)
        total = total + dist.Normal(level, 1.0).log_prob(value)
    pyro.factor("walk", total)


def branching() -> None:
    x = pyro.sample("x", dist.Normal(torch.zeros(2, dtype=double), 1.0).to_event(1))
    if float(x[0].detach()) > 0:
        pyro.factor("right", -(x[0] ** 2))


def with_matrix() -> None:
    x = pyro.sample("x", dist.Normal(torch.zeros(1, dtype=double), 1.0).to_event(1))
    pyro.factor("matrix", torch.linalg.cholesky(torch.eye(2, dtype=double) * (2 + x)).logdet())


X = T([[1.0, 2.0], [0.5, -1.0], [2.0, 0.3]], dtype=double)
MODELS: list[tuple[Callable, tuple, bool]] = [
    (regression, (X, T([1.0, 0.0, 3.0], dtype=double)), True),
    (walk, (torch.linspace(0, 1, 80, dtype=double),), True),
    (branching, (), False),
]


def target_of(model: Callable, *data: Any, **options: Any) -> VectorTarget:
    return VectorTarget("dadvi", prepare("dadvi", model, data, **options))


@pytest.mark.parametrize(("model", "data", "recorded"), MODELS, ids=lambda v: getattr(v, "__name__", None))
@pytest.mark.parametrize("count", [1, 5, 150])
def test_batches_equal_one_point_after_another(model: Callable, data: tuple, recorded: bool, count: int) -> None:
    with isolated(0, double):
        target = target_of(model, *data)
        batched = target.batched
        points = torch.randn(count, batched.dim)
        directions = torch.randn_like(points)
        energy, gradient = batched(points)
        products = batched.products(points, directions)
        assert batched.is_recorded == recorded
        assert batched.gradients == 3 * count

        def alone(point: Tensor) -> Tensor:
            return target.potential(batched.sites(point))

        for n in {0, count // 2, count - 1}:
            leaf = points[n].clone().requires_grad_()
            value = alone(leaf)
            (slope,) = torch.autograd.grad(value, leaf, create_graph=True)
            (curve,) = torch.autograd.grad(slope @ directions[n], leaf)
            torch.testing.assert_close(energy[n], value.detach())
            torch.testing.assert_close(gradient[n], slope.detach())
            torch.testing.assert_close(products[n], curve)
        hessian = torch.autograd.functional.hessian(alone, points[0])
        torch.testing.assert_close(batched.hessian(points[0]), hessian)


def test_wide_graphs_take_the_data_of_each_set_and_give_what_each_point_alone_has() -> None:
    recurring = Recurring(regression, [1])
    points = torch.randn(600, 3, dtype=double, generator=torch.Generator().manual_seed(0))
    for y in (T([1.0, 0.0, 3.0], dtype=double), T([-2.0, 0.5, 1.0], dtype=double)):
        with isolated(0, double):
            batched = target_of(recurring, X, y).batched
            energy, gradient = batched(points)
            products = batched.products(points, points)
            alone = [target_of(regression, X, y).batched(point[None]) for point in points[::150]]
            hessians = [target_of(regression, X, y).batched.hessian(point) for point in points[::150]]
        assert batched.is_recorded
        torch.testing.assert_close(energy[::150], torch.cat([value for value, _ in alone]))
        torch.testing.assert_close(gradient[::150], torch.cat([slope for _, slope in alone]))
        torch.testing.assert_close(products[::150], torch.einsum("nij,nj->ni", torch.stack(hessians), points[::150]))
    assert {shape[0] for _, (shape, _), *_ in recurring.graphs} == {256}  # points at once


def test_points_without_a_density_have_infinite_energy_and_leave_the_others_alone() -> None:
    with isolated(0, double):
        batched = target_of(with_matrix).batched
        points = torch.linspace(-4, 4, 9)[:, None]  # below -2 the matrix has no factorisation
        energy, gradient = batched(points)
    assert batched.is_recorded
    wrong = points[:, 0] <= -2
    assert bool(torch.isinf(energy[wrong]).all())
    assert bool((gradient[wrong] == 0).all())
    x = points[~wrong, 0]
    expected = x.square() / 2 + 0.5 * torch.log(T(2 * torch.pi)) - (2 + x).log()
    torch.testing.assert_close(energy[~wrong], expected.double())
    torch.testing.assert_close(gradient[~wrong, 0], x - 1 / (2 + x))


def test_few_rows_at_once_for_large_data() -> None:
    at = {"x": torch.zeros(2, dtype=double)}
    batched = Batched(lambda sites: sites["x"].square().sum(), at, size=10_000_000)
    energy, gradient = batched(torch.ones(5, 2, dtype=double))
    assert energy.tolist() == [2.0] * 5
    assert bool((gradient == 2).all())


def triangle() -> None:
    a = pyro.sample("a", dist.Uniform(0.0, 1.0))
    pyro.sample("b", dist.Uniform(0.0, 1 - a))
    pyro.deterministic("sum", a + 1)


def test_draws_become_vectors_and_vectors_draws() -> None:
    with isolated(0, double):
        target = target_of(triangle, least_dtype=double)
        vectors = torch.randn(2, 30, 2)
        draws = target.draws(vectors)
        assert {name: tuple(value.shape) for name, value in draws.items()} == dict.fromkeys(("a", "b", "sum"), (2, 30))
        assert bool((draws["a"] + draws["b"] < 1).all())
        torch.testing.assert_close(target.vectors(draws), vectors)
        single = target.draws(vectors, torch.float32)
        assert single["a"].dtype == torch.float32
        with pytest.raises(ValueError, match=r"^dadvi: the posterior has no draws of site 'b'"):
            target.vectors({"a": draws["a"]})
        with pytest.raises(ValueError, match=r"^dadvi: draws of site 'a' have shape \(3,\), and in the model \(\)"):
            target.vectors(draws | {"a": torch.zeros(2, 30, 3)})


def test_the_least_dtype_is_kept_where_the_model_allows_it() -> None:
    x = torch.ones(3)

    def plain(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(mean, 1.0).expand([3]).to_event(1), obs=x)

    layer = torch.nn.Linear(3, 1)

    def with_weights(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(mean * layer(x), 1.0).to_event(1), obs=torch.ones(1))

    assert prepare("dadvi", plain, (x,), least_dtype=double).dtype == double
    assert prepare("dadvi", plain, (x,), least_dtype=double).data[0].dtype == double
    assert prepare("dadvi", plain, (x,), least_dtype=double).notes == ()
    assert prepare("dadvi", with_weights, (x,), least_dtype=double).dtype == torch.float32


def test_hessians_at_many_points_are_those_at_each_and_wider_graphs_change_nothing() -> None:
    with isolated(0, double):
        batched = target_of(regression, X, T([1.0, 0.0, 3.0], dtype=double)).batched
        points = torch.randn(300, batched.dim)
        torch.testing.assert_close(batched.hessians(points[:3])[2], batched.hessian(points[2]))
        narrow = batched(points)
        with batched.widened():
            wide = batched(points)
        torch.testing.assert_close(narrow, wide, rtol=1e-12, atol=1e-12)
        assert all(map(torch.equal, narrow, batched(points)))
