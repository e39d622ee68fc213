"""Restarts in one batch end where they end one after another, on densities whose modes are known."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guidebook.inference import dadvi
from guidebook.inference.engines.batched import Batched
from guidebook.inference.optim import many_starts
from guidebook.inference.optim.balanced import balanced_normals
from guidebook.inference.optim.coordinates import Coordinates
from guidebook.inference.optim.many_starts import find_optima, fit_best, fit_each
from guidebook.inference.optim.mode import find_mode
from guidebook.inference.optim.modes import find_modes
from guidebook.inference.optim.normal import fit_normal
from guidebook.inference.optim.normals import fit_normals

QUIET: dict[str, Any] = {"progress": False}
WEIGHTS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
SDS = torch.tensor([0.2, 0.25, 0.3, 0.2], dtype=torch.float64)


@pytest.fixture(autouse=True)
def double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def clusters(dim: int) -> Batched:
    """Four normals, at ±2 in two coordinates and many sds apart."""
    centres = torch.zeros(4, dim)
    centres[:, :2] = torch.cartesian_prod(torch.tensor([-2.0, 2.0]), torch.tensor([-2.0, 2.0]))

    def potential(at: dict[str, Tensor]) -> Tensor:
        parts = dist.Normal(centres, SDS[:, None]).log_prob(at["z"][None]).sum(1)
        return -torch.logsumexp(WEIGHTS.log() + parts, 0)

    return Batched(potential, {"z": torch.zeros(dim)})


def funnel(at: dict[str, Tensor]) -> Tensor:
    """Neal's, whose density has a mode only where hardly any mass is."""
    v, x = at["v"], at["x"]
    return -dist.Normal(0.0, 3.0).log_prob(v) - dist.Normal(0.0, (v / 2).exp()).log_prob(x).sum()


def widening(at: dict[str, Tensor]) -> Tensor:
    """The centred eight schools with a flat prior on log tau: no mode at all."""
    y, log_tau = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12]), at["log_tau"]
    theta = dist.Normal(at["mu"], log_tau.exp()).log_prob(at["theta"]).sum()
    prior = dist.Normal(0.0, 5.0).log_prob(at["mu"]) - log_tau.exp() / 10
    return -theta - dist.Normal(at["theta"], 12.0).log_prob(y).sum() - prior


def schools() -> Batched:
    return Batched(widening, {"mu": torch.zeros(()), "log_tau": torch.zeros(()), "theta": torch.zeros(8)})


def starts(count: int, dim: int, radius: float = 3.0) -> Tensor:
    return radius * (2 * torch.rand(count, dim, generator=torch.Generator().manual_seed(0)) - 1)


@pytest.mark.parametrize("dim", [2, 5])
def test_each_search_for_a_mode_ends_as_it_would_alone(dim: int) -> None:
    batched, at = clusters(dim), starts(30, dim)
    together = find_modes(batched, at)
    for start, point, energy, is_mode in zip(at, *together[:3], strict=True):
        alone = find_mode(batched, start)
        assert alone.is_mode == bool(is_mode)
        torch.testing.assert_close(point, alone.point, rtol=0, atol=1e-6)
        assert float(energy) == pytest.approx(alone.energy, abs=1e-9)


def test_a_search_without_a_mode_says_why() -> None:
    """The first has a mode, the second rises for ever, the third has no second derivatives where it starts."""

    def potential(at: dict[str, Tensor]) -> Tensor:
        z = at["z"][0]
        rising, rough = -z, (z - 20).abs().pow(1.5)
        return torch.where(z < -5, (z + 10).square(), torch.where(z < 10, rising, rough))

    batched = Batched(potential, {"z": torch.tensor([-8.0])})
    points = torch.tensor([[-8.0], [0.0], [20.0]])
    together, alone = find_modes(batched, points), [find_mode(batched, point) for point in points]
    assert together.is_mode.tolist() == [True, False, False]
    assert together.messages[1:] == [mode.message for mode in alone[1:]]


@pytest.mark.parametrize("dim", [2, 5])
def test_the_optima_are_those_of_one_after_another_with_the_same_restarts(dim: int) -> None:
    """Far apart, a component is an optimum by itself, and its ELBO the logarithm of its weight."""
    batched, at = clusters(dim), starts(40, dim)
    how: dict[str, Any] = {"response": False, "seed": 0, "once": lambda _, make: make()}
    fits, together = fit_best(batched, at, None, **how)
    _, alone = fit_each(batched, at, None, **how)
    assert [one["elbo"] for one in together] == pytest.approx(WEIGHTS.log().flip(0).tolist(), abs=1e-3)
    assert together == [{"elbo": pytest.approx(one["elbo"], abs=1e-3), "restarts": one["restarts"]} for one in alone]
    assert sum(one["restarts"] for one in together) == 40
    best = min(fits, key=lambda fit: fit.loss)
    torch.testing.assert_close(best.normal.sds, SDS[3].expand(dim), rtol=1e-2, atol=0)


def test_chunks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find_optima(clusters(3), starts(40, 3))
    monkeypatch.setattr(many_starts, "MAX_CHUNK", 7)
    parts = find_optima(clusters(3), starts(40, 3))
    assert [one.restarts for one in whole] == [one.restarts for one in parts]
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a.normal.centre, b.normal.centre, rtol=0, atol=1e-6)
        assert a.loss == pytest.approx(b.loss, abs=1e-6)


def test_starts_without_a_mode_lead_to_the_optimum_of_a_single_one() -> None:
    batched = schools()
    how: dict[str, Any] = {"response": False, "seed": 0, "once": lambda _, make: make()}
    (fit,), (optimum,) = fit_best(batched, starts(6, batched.dim, 1.0), None, **how)
    (alone,), _ = fit_each(batched, starts(1, batched.dim, 1.0), None, **how)
    assert optimum["restarts"] == 6
    assert fit.loss == pytest.approx(alone.loss, abs=0.1)
    assert fit.message.startswith("no mode (")


def test_many_optima_are_counted_though_few_are_fitted_again() -> None:
    """Modes at 0, 6, 12, … by a cosine, each alike but for the prior."""

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 20.0), infer={"init": lambda: 60 * torch.rand(()) - 30})
        pyro.factor("waves", 20 * torch.cos(2 * math.pi * z / 6))

    info = dadvi(model, num_restarts=60, **QUIET).info
    assert len(info.optima) > 2 * many_starts.FITTED_AGAIN
    assert sum(one["restarts"] for one in info.optima) == 60
    elbos = [one["elbo"] for one in info.optima]
    assert elbos == sorted(elbos, reverse=True)
    assert info.elbo == pytest.approx(elbos[0], abs=0.01)


def test_independent_normals_are_those_fitted_one_after_another() -> None:
    batched = Batched(funnel, {"v": torch.zeros(()), "x": torch.zeros(3)})
    noise, centres = balanced_normals(64, 4, 0), starts(5, 4, 1.0)
    roots = (0.3 * torch.ones(5, 4)).diag_embed()
    together = fit_normals(batched, centres, roots, noise)
    for centre, scale, loss, start in zip(*together, centres, strict=True):
        alone = fit_normal(batched, Coordinates(start, 0.3 * torch.ones(4)), noise, full=False)
        assert float(loss) == pytest.approx(alone.loss, abs=0.01)
        assert ((centre - alone.coordinates.centre) / alone.coordinates.sds).abs().max() < 0.1
        torch.testing.assert_close(0.3 * scale, alone.coordinates.sds, rtol=0.05, atol=0)


def test_restarts_of_a_model_that_cannot_be_recorded() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 3.0))
        sign = 1.0 if float(z.detach()) > 0 else -1.0
        pyro.factor("side", -2 * (z - 3 * sign).square())

    optima = dadvi(model, num_restarts=3, num_draws=16, **QUIET).info.optima
    assert len(optima) == 2
    assert sum(one["restarts"] for one in optima) == 3
