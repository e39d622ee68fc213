"""Functions recorded as graphs: with writes in place, and kept for the method that goes on with the model."""

import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guidebook.inference import check, dadvi
from guidebook.inference.engines import batched
from guidebook.inference.engines.graph import recorded
from guidebook.inference.engines.record import WritesInPlace, record

X = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.1, -0.4]], dtype=torch.float64)


def on_a_temporary(x: Tensor) -> Tensor:
    y = x * 2
    y.add_(x.exp()).mul_(3)
    y[0].neg()  # a view that nobody keeps
    return y.clamp_(max=20.0)


def through_a_view(x: Tensor) -> Tensor:
    y = x * 2
    row = y[0]
    row.mul_(5)
    return y


def under_a_view(x: Tensor) -> Tensor:
    y = x * 2
    row = y[0]
    y.mul_(5)
    return row


def to_another_dtype(x: Tensor) -> Tensor:
    y = x.float()
    y.mul_(x)
    return y


def test_writes_that_nobody_else_sees_are_recorded_as_new_tensors() -> None:
    graph = record(on_a_temporary, (X,)).module()
    assert not any(
        node.target.name().rpartition(".")[0].endswith("_") for node in graph.graph.nodes if node.op == "call_function"
    )
    for at in (X, X - 1):
        torch.testing.assert_close(graph(at), ((at * 2 + at.exp()) * 3).clamp(max=20.0))


def through_a_diagonal(x: Tensor) -> Tensor:
    y = x.T @ x
    y.view(9)[::4].add_(1)
    y.t().select(0, 1).mul_(y[2].clone())
    return y


@pytest.mark.parametrize("function", [through_a_view, under_a_view, through_a_diagonal], ids=lambda f: f.__name__)
def test_writes_through_views_change_what_is_viewed(function) -> None:
    graph = record(function, (X,)).module()
    for at in (X, X - 1):
        torch.testing.assert_close(graph(at), function(at))


def to_a_part(x: Tensor) -> Tensor:
    y = x * 2
    top, bottom = y.split(1)
    top.mul_(bottom)
    return y


@pytest.mark.parametrize("function", [to_another_dtype, to_a_part], ids=lambda f: f.__name__)
def test_other_writes_are_recorded_in_another_way(function) -> None:
    with pytest.raises(WritesInPlace):
        record(function, (X,))
    graph = recorded(function, (X,))
    for at in (X, X - 1):
        torch.testing.assert_close(graph(at), function(at))


SCALE = 1.0


def regression(x: Tensor, y: Tensor) -> None:
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ weights, SCALE), obs=y)


def test_check_goes_on_with_the_graphs_of_the_fit_where_model_and_data_are_the_same(monkeypatch) -> None:
    count = []
    original = batched.recorded
    monkeypatch.setattr(batched, "recorded", lambda *given, **options: count.append(1) or original(*given, **options))
    x, y = torch.randn(20, 2, dtype=torch.float64), torch.randn(20, dtype=torch.float64)
    fit = dadvi(regression, x, y, progress=False)
    recordings = len(count)
    assert recordings == 2
    found = check(fit, regression, x.clone(), y.clone(), progress=False)
    assert (len(count), found.judgement) == (recordings, "good")
    other = check(fit, regression, x, y + 1, progress=False)
    assert len(count) == recordings + 1
    assert other.judgement == "bad"
    check(fit, regression, x, y, progress=False)
    recordings = len(count)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 0.1)  # the model has changed, unseen
    changed = check(fit, regression, x, y, progress=False)
    assert len(count) == recordings + 1
    assert changed.judgement == "bad"


@pytest.mark.parametrize("logits", ["x @ w", "x @ w.abs().log()"])
def test_a_fit_by_dadvi_does_not_import_a_compiler_or_sympy(logits: str) -> None:
    program = (
        "import sys, torch, pyro, pyro.distributions as dist\n"
        "from guidebook.inference import dadvi\n"
        "def model(x, y):\n"
        "    w = pyro.sample('w', dist.Normal(torch.zeros(2), 1.0).to_event(1))\n"
        f"    pyro.sample('y', dist.Bernoulli(logits={logits}).to_event(1), obs=y)\n"
        "dadvi(model, torch.randn(30, 2), (torch.rand(30) < 0.5).float(), progress=False)\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'sympy', 'jax'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
