"""The loss "sticking": the ELBO's gradient on average, without noise where the guide is exact."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor
from zoo import linear

from guidebook import guides
from guidebook.inference import elbo_gradients, svi
from guidebook.inference.optim.landing import MAX_RELATIVE, StickingElbo, _clipped
from guidebook.inference.optim.losses import named_loss

DATA = linear.data()
EXACT = linear.posterior(*DATA)


def exact_guide(x: Tensor, y: Tensor | None = None) -> None:
    mean = pyro.param("mean", EXACT.mean.clone())
    factor = pyro.param("factor", torch.linalg.cholesky(EXACT.covariance_matrix))
    pyro.sample("w", dist.MultivariateNormal(mean, scale_tril=factor.tril()))


def test_there_is_no_noise_at_the_exact_posterior() -> None:
    """log p - log q is constant there, so each estimate is zero; the ordinary one is not."""
    sticking, plain = (
        elbo_gradients(linear.model, exact_guide, *DATA, loss=named_loss(name, 4), num_draws=5)["mean"]
        for name in ("sticking", "trace")
    )
    assert sticking.abs().max() < 1e-8
    assert plain.abs().max() > 1


@pytest.mark.parametrize("guide", [guides.mean_field, guides.full_rank])
def test_its_mean_is_that_of_the_ordinary_gradient(guide) -> None:
    sticking, plain = (
        elbo_gradients(linear.model, guide, *DATA, loss=named_loss(name, 8), num_draws=150)
        for name in ("sticking", "trace")
    )
    assert set(sticking) == set(plain)
    for name, draws in plain.items():
        error = torch.sqrt((draws.var(0) + sticking[name].var(0)) / 150)
        assert ((draws.mean(0) - sticking[name].mean(0)).abs() <= 5 * error + 1e-9).all()


def test_parameters_of_the_model_get_their_gradient() -> None:
    """Of a mean m with x | m: the sum of (x - z) over the rows, at the guide's draws."""

    def model(x: torch.Tensor) -> None:
        shift = pyro.param("shift", torch.tensor(0.5, dtype=torch.float64))
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(z + shift, 1.0), obs=x)

    def guide(x: torch.Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(2.0, dtype=torch.float64))
        pyro.sample("z", dist.Normal(loc, 1e-6))

    x = torch.tensor([1.0, 4.0, 6.0], dtype=torch.float64)
    found = elbo_gradients(model, guide, x, loss=named_loss("sticking", 3), num_draws=2)
    assert float(found["shift"][0]) == pytest.approx(11 - 3 * 2.5, abs=1e-3)


def test_a_draw_in_a_tail_is_cut_off() -> None:
    usual = torch.ones(16, 2, dtype=torch.float64)
    assert torch.allclose(_clipped([usual])[0], usual)
    usual[0] *= 1e9
    (found,) = _clipped([usual])
    assert torch.allclose(found[1:], usual[1:])
    typical = 1e9 ** (1 / 16)
    assert float(found[0, 0]) == pytest.approx(MAX_RELATIVE * typical)


def test_a_point_has_nothing_to_stick_to() -> None:
    with pytest.raises(ValueError, match="needs a guide that draws"):
        svi(linear.model, guides.map_point, *DATA, loss="sticking", engine="eager", num_steps=3, progress=False)


def test_a_flow_is_fitted_by_it_and_compiled() -> None:
    """A banana, whose evidence is 0 and whose b is skewed; and a single latent variable, whose log is skewed."""

    def banana() -> None:
        a = pyro.sample("a", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("b", dist.Normal(a**2, 0.3))

    def single() -> None:
        pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))

    bent = svi(banana, guides.flow, num_draws=2000, progress=False).info
    assert (bent.engine, bent.loss) == ("compiled", "StickingElbo")
    assert -0.15 < bent.elbo < 4 * bent.elbo_se  # a full-rank normal has -1.2, as 2,000 draws of it tell
    one = svi(single, guides.flow, num_draws=2000, progress=False).info
    assert one.engine == "compiled"
    assert -0.01 < one.elbo < 4 * one.elbo_se


def test_what_a_guide_computes_from_its_draws_enters_both_terms() -> None:
    """A point of the simplex and its log determinant share a graph; the posterior is a Dirichlet, (6, 4, 2)."""

    def model() -> None:
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3, dtype=torch.float64)))
        pyro.sample("counts", dist.Multinomial(9, weights), obs=torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64))

    how = {"loss": "sticking", "num_particles": 8, "num_steps": 200, "lr": 0.05, "num_draws": 4000}
    posterior = svi(model, guides.full_rank, **how, engine="eager", progress=False)
    mean = posterior.draws["weights"][0].double().mean(0)
    torch.testing.assert_close(mean, torch.tensor([6.0, 4.0, 2.0]).double() / 12, rtol=0, atol=0.02)


def test_one_draw_and_many_have_the_same_gradient_on_average() -> None:
    """A model with a plate, whose sites have a log density per entry."""

    def model(y: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", len(y)):
            theta = pyro.sample("theta", dist.StudentT(5.0, mu, 1.0))
            pyro.sample("y", dist.Normal(theta, 0.5), obs=y)

    y = torch.tensor([0.3, -1.0, 2.0])
    guide = AutoNormal(model)
    guide(y)
    found = []
    for particles, repeats in ((1, 4000), (20, 200)):
        loss, values = StickingElbo(num_particles=particles), []
        for _ in range(repeats):
            guide.zero_grad()
            loss.loss_and_grads(model, guide, y)
            values.append(torch.cat([p.grad.reshape(-1) for p in guide.parameters()]))
        drawn = torch.stack(values)
        found.append((drawn.mean(0), drawn.std(0) / repeats**0.5))
    (one, error), (many, other) = found
    assert ((one - many).abs() < 5 * torch.hypot(error, other)).all()
