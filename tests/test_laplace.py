"""Laplace's normal against the curvature in closed form."""

from typing import Any

import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

from guidebook import datasets, guides
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
