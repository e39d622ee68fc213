"""Laplace's normal against the curvature in closed form."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

from guidebook import datasets, guides
from guidebook.inference import svi
from guidebook.inference.optim import laplace
from guidebook.inference.traces import isolate
from guidebook.inference.traces.prepare import prepare
from guidebook.models import logistic

DATA = datasets.load("breast_cancer", supervised=True, standardize=True)
X, Y = DATA.x.double(), DATA.y.double()


class Squared(torch.autograd.Function):
    """x², which torch cannot batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        return Doubled.apply(*ctx.saved_tensors, *upstream)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, upstream: Tensor) -> Tensor:
        ctx.save_for_backward(x, upstream)
        return 2 * x * upstream

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        x, first = ctx.saved_tensors
        return 2 * first * upstream[0], 2 * x * upstream[0]


def test_the_hessian_of_a_logistic_regression() -> None:
    """Xᵀ diag(p (1 - p)) X, Bishop (2006), equation 4.97: more rows than go into one pass, too."""
    x = torch.cat([X, X.square(), X.exp().log1p()], 1)
    w = torch.linspace(-0.1, 0.1, x.shape[1], dtype=torch.float64, requires_grad=True)
    logits = x @ w
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, Y, reduction="sum")
    p = torch.sigmoid(logits.detach())
    assert len(w) > laplace.HESSIAN_ROWS
    torch.testing.assert_close(laplace.hessian(loss, w), (x.mT * (p * (1 - p))) @ x, rtol=1e-9, atol=1e-9)


def test_the_hessian_of_what_cannot_be_batched() -> None:
    x = torch.arange(3.0, dtype=torch.float64, requires_grad=True)
    found = laplace.hessian((Squared.apply(x) * torch.tensor([1.0, 2.0, 3.0])).sum(), x)
    torch.testing.assert_close(found, torch.diag(torch.tensor([2.0, 4.0, 6.0], dtype=torch.float64)))


def test_the_normal_has_that_curvature() -> None:
    """With the prior's share, at the point where the guide is."""
    with isolate.isolated(0):
        guide = guides.laplace(logistic.model)
        guide(X, Y)
        normal = laplace.laplace_normal(guide, prepare("svi", logistic.model, (X, Y)).log_joint())
    assert isinstance(normal, AutoMultivariateNormal)
    w, design = guide.loc.detach(), torch.cat([torch.ones(len(X), 1, dtype=X.dtype), X], 1)
    p = torch.sigmoid(design @ w)
    root = normal.scale.unsqueeze(-1) * normal.scale_tril
    precision = (design.mT * (p * (1 - p))) @ design + torch.eye(len(w), dtype=X.dtype)
    torch.testing.assert_close(root @ root.mT, precision.inverse(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(normal.loc, w)


def regression(x: Tensor, y: Tensor) -> None:
    """Flat priors on the coefficients, and σ on the scale of its unit."""
    flat = constraints.independent(constraints.real, 1)
    beta = pyro.sample("beta", dist.ImproperUniform(flat, (), (x.shape[1],)))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


@pytest.mark.parametrize("unit", [1.0, 1e5, 1e-5])
def test_units_do_not_move_the_mode(unit: float) -> None:
    """The coefficients' mode is least squares; σ² is RSS / n on the constrained scale, RSS / (n - 1) on the other."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=generator).double() * torch.tensor([1.0, unit, 1.0]) + torch.tensor(
        [0, 3 * unit, 9]
    )
    y = 1e3 * (x @ torch.tensor([1.0, 2 / unit, -1.0], dtype=x.dtype) + torch.randn(50, generator=generator).double())
    least = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    squares = float((y - x @ least).square().sum())
    sd = (squares / 49 * torch.linalg.inv(x.mT @ x).diagonal()).sqrt()
    point = svi(regression, guides.map_point, x, y, progress=False)
    assert ((point.draws["beta"][0, 0] - least) / sd).abs().max() < 1e-3
    assert float(point.draws["sigma"]) == pytest.approx((squares / 50) ** 0.5, rel=1e-4)
    normal = svi(regression, guides.laplace, x, y, num_draws=10_000, progress=False)
    beta, sigma = normal.draws["beta"][0], normal.draws["sigma"][0]
    assert ((beta.mean(0) - least) / sd).abs().max() < 4 / 10_000**0.5
    assert (beta.std(0) / sd - 1).abs().max() < 4 / 20_000**0.5
    assert float(sigma.log().mean()) == pytest.approx(math.log(squares / 49) / 2, abs=4 / (2 * 49 * 10_000) ** 0.5)
    for posterior in (point, normal):
        assert posterior.info.converged
        assert posterior.info.engine == "Newton"
        assert "found the mode in" in posterior.info.message


def test_where_there_is_no_mode_none_is_claimed() -> None:
    """The density of a scale and what it scales grows without bound as both shrink."""

    def model() -> None:
        tau = pyro.sample("tau", dist.HalfNormal(1.0))
        pyro.sample("z", dist.Normal(torch.zeros(5), tau).to_event(1))

    with pytest.warns(UserWarning, match="svi: "):
        posterior = svi(model, guides.map_point, num_steps=100, progress=False)
    assert not posterior.info.converged
    assert "found the mode" not in posterior.info.message
