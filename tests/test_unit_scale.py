"""Guide families in coordinates of unit scale: the same family, the same answer in any units, a start near the end."""

from collections.abc import Callable, Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal
from torch import Tensor

from guidebook.guides import flow, full_rank, low_rank, map_point, mean_field
from guidebook.inference import dadvi, svi
from guidebook.inference.optim.coordinates import Coordinates
from guidebook.inference.optim.unit_scale import UnitScale
from guidebook.inference.traces.draws import draw_chunk

FAMILIES = {"mean_field": mean_field, "diagonal": AutoDiagonalNormal, "low_rank": low_rank, "full_rank": full_rank}
DENSE = ("full_rank", "flow")


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pair() -> None:
    pyro.sample("b", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
    pyro.sample("a", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("name", [*FAMILIES, "flow"])
def test_parameters_in_other_coordinates_are_of_the_same_guide(name: str) -> None:
    guide = (FAMILIES | {"flow": flow})[name](pair)
    guide()
    centre, root = torch.tensor([3.0, -20.0, 0.1]), torch.tensor([[2.0, 0.0, 0.0], [1.0, 30.0, 0.0], [0.1, -0.2, 0.01]])
    shapes = {"b": torch.Size([2]), "a": torch.Size([])}
    scaled = UnitScale(guide, Coordinates(centre, root if name in DENSE else root.diagonal()), shapes)
    with torch.no_grad():
        for p in guide.parameters():
            p.add_(0.3 * torch.randn_like(p))
    torch.manual_seed(1)
    before, log_q = draw_chunk(guide, (), 5)
    torch.manual_seed(1)
    with scaled.natural():
        inside, _ = draw_chunk(guide, (), 5)
    torch.manual_seed(1)
    again, _ = draw_chunk(guide, (), 5)
    scaled.fold()
    torch.manual_seed(1)
    after, same_log_q = draw_chunk(guide, (), 5)
    for site in ("a", "b"):
        assert torch.allclose(after[site], before[site])
        assert torch.equal(again[site], before[site])
        assert torch.allclose(inside[site], before[site])
    assert torch.allclose(same_log_q, log_q)


def regression(unit: float) -> tuple[Callable, tuple[Tensor, Tensor]]:
    """Return a regression of which one covariate is in another unit, and its data."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, generator=generator) @ torch.tensor([[1.0, 0.9], [0.0, 0.4]])
    y = x @ torch.tensor([2.0, -1.0]) + 0.5 * torch.randn(60, generator=generator)
    units = torch.tensor([unit, 1.0])

    def model(x: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 10 / units).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfNormal(2.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(x @ w, sigma), obs=y)

    return model, (x * units, y)


@pytest.mark.parametrize("name", FAMILIES)
def test_units_of_covariates_change_nothing_but_the_coefficient(name: str) -> None:
    found = []
    for unit in (1.0, 1e6, 1e-6):
        model, data = regression(unit)
        fit = svi(model, FAMILIES[name], *data, num_steps=300, progress=False)
        w = fit.samples["w"] * torch.tensor([unit, 1.0])
        found.append(torch.cat([w.mean(0), w.std(0), fit.samples["sigma"].mean(0, keepdim=True)]))
    assert torch.allclose(found[1], found[0], rtol=0.05)  # Adam takes rounding for a gradient where that is zero
    assert torch.allclose(found[2], found[0], rtol=0.05)


@pytest.mark.parametrize(("name", "guide"), [("mean_field", mean_field), ("full_rank", full_rank), ("flow", flow)])
def test_steps_begin_where_a_fit_at_fixed_draws_ends(name: str, guide: Callable) -> None:
    """Pyro's own start, sds of .1 at the prior's median, is hundreds of nats away."""
    model, data = regression(1e3)
    best = dadvi(model, *data, guide=mean_field if name == "mean_field" else full_rank, progress=False)
    fit = svi(model, guide, *data, num_steps=1, progress=False)
    assert fit.info.elbo == pytest.approx(best.info.elbo, abs=0.5)


def test_a_guide_given_as_it_is_starts_as_it_is() -> None:
    model, data = regression(1e3)
    guide = AutoDiagonalNormal(model)
    guide(*data)
    fit = svi(model, guide, *data, num_steps=1, progress=False)
    assert torch.allclose(fit.params["AutoDiagonalNormal.loc"], guide.loc.detach(), atol=0.02)
    assert fit.info.elbo < -1000


@pytest.mark.parametrize("name", ["mean_field", "full_rank", "low_rank"])
def test_draws_have_the_moments_of_their_guide(name: str) -> None:
    model, data = regression(1.0)
    fit = svi(model, FAMILIES[name], *data, num_steps=200, num_draws=1000, progress=False)
    w, params = fit.samples["w"], {key.split(".", 1)[1]: value for key, value in fit.params.items()}
    if name == "mean_field":
        mean, variance = params["locs.w"], params["scales.w"].square()
    elif name == "full_rank":
        triangle = params["scale"][:, None] * params["scale_tril"]
        mean, variance = params["loc"][:2], (triangle @ triangle.T).diagonal()[:2]
    else:
        factor = params["cov_factor"] * params["scale"][:, None]
        mean, variance = params["loc"][:2], (params["scale"].square() + factor.square().sum(1))[:2]
    assert torch.allclose(w.mean(0), mean, rtol=1e-6)
    assert torch.allclose(w.var(0, correction=0), variance, rtol=1e-6)


def two_wells() -> None:
    """At 4, with the weight e^-.2 of a normal, and at -4, with e^-1.7; a start may lead to either."""
    z = pyro.sample("z", dist.Normal(0.0, 10.0), infer={"init": lambda: 12 * torch.rand(()) - 6})
    wells = [weight + dist.Normal(centre, 0.5).log_prob(z) for weight, centre in ((-0.2, 4.0), (-1.7, -4.0))]
    pyro.factor("wells", torch.logsumexp(torch.stack(wells), 0) - dist.Normal(0.0, 10.0).log_prob(z))


@pytest.mark.parametrize("name", [*FAMILIES, "flow"])
def test_steps_are_taken_from_the_best_of_several_starts(name: str) -> None:
    how = {"num_steps": 10, "engine": "eager", "progress": False}
    family = (FAMILIES | {"flow": flow})[name]
    alone = [svi(two_wells, family, seed=seed, **how).info.elbo for seed in range(3)]
    assert min(alone) < -1.4
    info = svi(two_wells, family, num_restarts=12, seed=alone.index(min(alone)), **how).info
    assert info.elbo > -1
    assert "12 starts led to 2 optima, of which the best was taken" in info.message


def test_restarts_are_refused_where_nothing_is_chosen_by_them() -> None:
    def by_hand() -> None:
        pyro.sample("a", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    def with_parameter() -> None:
        pyro.sample("a", dist.Normal(pyro.param("centre", torch.tensor(0.0)), 1.0))

    def refused(words: str, model: Callable, guide: Callable, **options) -> None:
        with pytest.raises(ValueError, match=f"^svi: num_restarts {words}"):
            svi(model, guide, **({"num_restarts": 2, "progress": False} | options))

    refused("needs a guide family", two_wells, by_hand)
    refused("looks for a start, and init gives one", two_wells, mean_field, init={})
    refused("serves mean_field", two_wells, map_point)
    refused("serves mean_field", with_parameter, mean_field)
    refused("must be at least 1", two_wells, mean_field, num_restarts=0)
