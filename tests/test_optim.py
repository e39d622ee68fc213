"""Parts of a fit of parameters: batches, schedule and average, and when L-BFGS gives up."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from zoo import latent, linear

from guidebook import guides
from guidebook.inference import kl_warm_up, svi
from guidebook.inference.optim import lbfgs, minibatch
from guidebook.inference.optim.lbfgs import fit_lbfgs
from guidebook.inference.optim.minibatch import Batches, example_rows, is_large, row_scale
from guidebook.inference.optim.sgd import Average, schedule
from guidebook.inference.options import at_least_one, positive
from guidebook.inference.progress import Progress

ROWS = torch.arange(10)


@pytest.mark.parametrize(("batch_size", "seen"), [(5, 10), (3, 9), (10, 10), (1, 10)])
def test_an_epoch_has_every_row_once_but_for_an_incomplete_batch(batch_size: int, seen: int) -> None:
    torch.manual_seed(0)
    batches = Batches((ROWS, 2.0, torch.arange(3)), batch_size)
    epochs = []
    for _ in range(20):
        parts = [next(batches) for _ in range(10 // batch_size)]
        assert all(len(rows) == batch_size and scale == 2.0 and len(other) == 3 for rows, scale, other in parts)
        epochs.append(torch.cat([rows for rows, _, _ in parts]))
        assert len(epochs[-1].unique()) == seen
    assert len(torch.stack(epochs).unique(dim=0)) > 15  # shuffled afresh
    assert len(torch.cat(epochs).unique()) == 10  # other rows are dropped every time


def test_batches_taken_together_are_those_taken_one_by_one() -> None:
    torch.manual_seed(0)
    (together,) = Batches((ROWS,), 3).take(7)
    torch.manual_seed(0)
    one_by_one = Batches((ROWS,), 3)
    assert torch.equal(minibatch.gather(together), torch.stack([next(one_by_one)[0] for _ in range(7)]))


def test_data_are_large_from_the_limit_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, large in ((10, False), (9, True)):
        monkeypatch.setattr(minibatch, "MAX_ROWS", limit)
        assert is_large((ROWS,), 5) == large
        assert not is_large((ROWS,), None)


def test_the_example_is_evenly_spaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minibatch, "MAX_ROWS", 200)
    x, other = torch.arange(400), torch.arange(3)
    rows, same = example_rows((x, other))
    assert torch.equal(rows, x[::200])
    assert same is other


def test_batch_size_lies_between_one_and_all_rows() -> None:
    data = linear.data(20)
    for size in (1, 20):
        assert row_scale(linear.model, data, size, autoguide=True).scale == 20 / size
    for size in (0, 21):
        with pytest.raises(ValueError, match=f"batch_size must lie between 1 and the number of rows, 20; got {size}"):
            row_scale(linear.model, data, size, autoguide=True)


def test_step_size_decays_and_late_iterates_weigh_the_same() -> None:
    rates, weights = schedule(0.5, 1000)
    assert torch.equal(rates[:301], torch.full((301,), 0.5, dtype=torch.float64))
    assert (rates[300:].diff() < 0).all()
    assert float(rates[-1]) == pytest.approx(0.005, rel=0.01)
    path = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    param = torch.zeros((), dtype=torch.float64)
    average = Average([param])
    for value, weight in zip(path, weights.tolist(), strict=True):
        param.copy_(value)
        average.update(weight)
    average.write()
    assert float(param) == pytest.approx(float(path[-300:].mean()), rel=1e-9)
    assert schedule(0.5, 1)[1].tolist() == [1.0]


def quadratic(p: Tensor, noise: float = 0.0):
    def loss_and_grads() -> float:
        loss = (p - 3).square().sum() + noise * torch.rand(())
        loss.backward()
        return float(loss.detach())

    return loss_and_grads


def test_lbfgs_finds_the_minimum_and_restores_the_start_of_a_noisy_loss() -> None:
    p = torch.zeros(2, 3, requires_grad=True)
    bar = Progress("", 1, False)
    found = fit_lbfgs(quadratic(p), [p], num_steps=50, bar=bar)
    assert found is not None
    assert (found.engine, found.converged) == ("L-BFGS", True)
    torch.testing.assert_close(p.detach(), torch.full((2, 3), 3.0))
    with torch.no_grad():
        p.fill_(1.0)
    assert fit_lbfgs(quadratic(p, noise=1.0), [p], num_steps=50, bar=bar) is None
    assert torch.equal(p.detach(), torch.ones(2, 3))


@pytest.mark.parametrize(("factor", "stationary"), [(0.99, False), (1.01, True)])
def test_lbfgs_converges_by_the_largest_gradient(
    factor: float, stationary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One iteration on a loss of large fourth order leaves a gradient, relative to 1 + |loss|."""

    def fit():
        p = torch.full((1,), 2.0, dtype=torch.float64, requires_grad=True)

        def loss_and_grads() -> float:
            loss = p.pow(4).sum()
            loss.backward()
            return float(loss.detach())

        found = fit_lbfgs(loss_and_grads, [p], num_steps=1, bar=Progress("", 1, False))
        assert found is not None
        return float(p.detach()), found.converged

    p, _ = fit()
    monkeypatch.setattr(lbfgs, "MAX_DECREMENT", math.inf)
    monkeypatch.setattr(lbfgs, "MAX_GRADIENT", factor * abs(4 * p**3) / (1 + p**4))
    assert fit()[1] == stationary


def test_lbfgs_is_judged_by_what_a_step_would_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small gradient in large units is no stationary point: here every gradient counts as small."""
    monkeypatch.setattr(lbfgs, "MAX_GRADIENT", math.inf)

    def fit(num_steps: int):
        p = torch.full((1,), 2.0, dtype=torch.float64, requires_grad=True)

        def loss_and_grads() -> float:
            loss = p.pow(4).sum()
            loss.backward()
            return float(loss.detach())

        return fit_lbfgs(loss_and_grads, [p], num_steps=num_steps, bar=Progress("", 1, False))

    early, late = fit(1), fit(100)
    assert early is not None
    assert late is not None
    assert not early.converged
    assert "would still gain" in early.message
    assert late.converged


def test_warm_up_rises_from_its_start_to_one() -> None:
    """Four rows whose log prior density is -2 each, and no data: the loss is 8 β."""
    x = torch.zeros(4)

    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Delta(torch.zeros(4), log_density=torch.full((4,), -2.0)))

    def guide(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Delta(torch.zeros(4)))

    loss = kl_warm_up(4, start=0.2)
    assert [float(loss(model, guide, x)) for _ in range(6)] == pytest.approx(
        [8 * b for b in (0.2, 0.4, 0.6, 0.8, 1, 1)]
    )
    for options, words in (
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"num_steps": 1, "num_particles": 0}, "num_particles must be at least 1"),
        ({"num_steps": 1, "start": 1.01}, "start must lie between 0 and 1"),
        ({"num_steps": 1, "start": -0.01}, "start must lie between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=words):
            kl_warm_up(**options)


def test_warm_up_draws_as_many_particles_as_asked() -> None:
    calls = []

    def counted(x: Tensor) -> None:
        calls.append(1)
        latent.encoder(x)

    with pyro.get_param_store().scope():
        kl_warm_up(1, num_particles=3)(latent.model, counted, latent.data(5))
    assert len(calls) == 3


def test_a_loss_that_changes_is_never_compiled() -> None:
    with pytest.raises(ValueError, match="kl_warm_up changes from step to step"):
        svi(linear.model, guides.mean_field, *linear.data(), loss=kl_warm_up(5), engine="compiled", progress=False)


def test_option_checks_name_the_method_and_the_option() -> None:
    at_least_one("svi", num_steps=1, alternate=None)
    positive("svi", lr=1e-9)
    for check, words in (
        (lambda: at_least_one("svi", num_steps=1, num_draws=0), "svi: num_draws must be at least 1, got 0"),
        (lambda: positive("svi", lr=0.0), "svi: lr must be positive, got 0.0"),
        (lambda: positive("svi", lr=float("nan")), "svi: lr must be positive, got nan"),
    ):
        with pytest.raises(ValueError, match=words):
            check()


def test_a_bar_is_shown_only_if_asked_for(capsys: pytest.CaptureFixture) -> None:
    for shown in (False, True):
        with Progress("a task", 10, shown) as bar:
            bar.update(10, "ELBO -1.00")
        assert ("a task" in capsys.readouterr().err) == shown
