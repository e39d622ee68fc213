"""Stochastic variational inference against a posterior in closed form, and what it promises of any model and guide."""

import math
import random
import sys
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints
from zoo import linear

from guidebook import guides
from guidebook.inference import svi
from guidebook.inference.optim import minibatch

DATA = linear.data()
EXACT = linear.posterior(*DATA)
fit = partial(svi, linear.model, progress=False)


def by_hand(x: torch.Tensor, y: torch.Tensor | None = None) -> None:
    mean = pyro.param("mean", lambda: x.new_zeros(3))
    factor = pyro.param("factor", lambda: 0.1 * torch.eye(3, dtype=x.dtype), constraint=constraints.lower_cholesky)
    pyro.sample("w", dist.MultivariateNormal(mean, scale_tril=factor))


@pytest.mark.parametrize("guide", [guides.full_rank, guides.laplace, by_hand])
def test_a_guide_that_holds_the_posterior_finds_it(guide) -> None:
    """Moments to the accuracy of 4000 steps (of 20,000 draws it is .01); the ELBO is the evidence."""
    posterior = fit(guide, *DATA, num_steps=4000, num_draws=20_000)
    w = posterior.draws["w"][0]
    sd = EXACT.stddev
    assert ((w.mean(0) - EXACT.mean) / sd).abs().max() < 0.10
    assert (w.std(0) / sd - 1).abs().max() < 0.06
    correlation = torch.corrcoef(w.mT)[0, 1]
    exact = EXACT.covariance_matrix[0, 1] / (sd[0] * sd[1])
    assert abs(float(correlation - exact)) < 0.03
    evidence = linear.log_evidence(*DATA)
    assert evidence - 0.05 < posterior.info.elbo < evidence + 4 * posterior.info.elbo_se + 1e-6
    assert posterior.info.k_hat < 0.5
    assert torch.allclose(posterior.draws["total"][0], w.sum(-1))


def test_what_the_model_itself_has_learned_is_on_record() -> None:
    """Its parameters, from statements and modules, and none of the guide's."""
    layer = torch.nn.Linear(1, 1)

    def model(x: torch.Tensor) -> None:
        pyro.module("layer", layer)
        z = pyro.sample("z", dist.Normal(pyro.param("centre", torch.tensor(0.0)), 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(layer(z.reshape(1)), 1.0), obs=x)

    for guide in (guides.mean_field, guides.flow):
        info = svi(model, guide, torch.ones(5), num_steps=20, num_draws=10, progress=False).info
        assert info.learned == ["centre", "layer$$$bias", "layer$$$weight"]
    assert fit(by_hand, *DATA, num_steps=20, num_draws=10).info.learned == []


def test_mean_field_has_the_conditional_standard_deviations() -> None:
    """The best factorised normal has precision Λ_ii (Bishop 2006, section 10.1.2), and its ELBO misses the KL."""
    posterior = fit(guides.mean_field, *DATA, num_steps=4000, num_draws=20_000)
    w = posterior.draws["w"][0]
    expected = EXACT.precision_matrix.diagonal().rsqrt()
    assert (w.std(0) / expected - 1).abs().max() < 0.05
    assert ((w.mean(0) - EXACT.mean) / EXACT.stddev).abs().max() < 0.06
    gap = 0.5 * (torch.logdet(EXACT.covariance_matrix) + EXACT.precision_matrix.diagonal().log().sum())
    assert posterior.info.elbo == pytest.approx(linear.log_evidence(*DATA) - float(gap), abs=0.05)


@pytest.mark.slow
def test_low_rank_lies_between_mean_field_and_full_rank() -> None:
    narrow, low = (fit(guide, *DATA, num_steps=6000, num_draws=4000) for guide in (guides.mean_field, guides.low_rank))
    assert narrow.info.elbo + 0.2 < low.info.elbo < linear.log_evidence(*DATA)
    correlation = torch.corrcoef(low.draws["w"][0].mT)[0, 1]
    assert float(correlation) < -0.5  # exactly -.80; mean-field has none


def test_points() -> None:
    posterior = fit(guides.map_point, *DATA, num_steps=3000)
    assert posterior.draws["w"].shape == (1, 1, 3)
    assert (posterior.draws["w"][0, 0] - EXACT.mean).abs().max() < 1e-3
    assert posterior.info.is_point
    assert posterior.info.elbo is None
    assert posterior.info.k_hat is None


def test_a_point_for_every_row_is_a_point() -> None:
    """The plate over the rows is no latent variable: the mode of Normal(0, 1) given x of variance 1 is x / 2."""

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64)
    posterior = svi(model, guides.map_point, x, progress=False)
    assert posterior.info.is_point
    assert posterior.info.engine == "Newton"
    torch.testing.assert_close(posterior.draws["z"][0, 0], x / 2, rtol=1e-5, atol=1e-5)


def test_map_and_laplace_differ_by_the_jacobian() -> None:
    """Gamma(2, 1): the density's mode is 1, that of the logarithm's density is 2."""

    def model() -> None:
        pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))

    at_mode = svi(model, guides.map_point, num_steps=2000, progress=False)
    assert float(at_mode.draws["rate"]) == pytest.approx(1.0, abs=1e-3)
    around = svi(model, guides.laplace, num_steps=2000, num_draws=20_000, progress=False)
    assert float(around.draws["rate"].median()) == pytest.approx(2.0, abs=0.05)


@pytest.mark.slow
def test_flow_reaches_a_skewed_posterior_that_no_normal_does() -> None:
    """Banana: the flow's k̂ is usable where the full-rank normal's is not."""

    def model() -> None:
        a = pyro.sample("a", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("b", dist.Normal(1.5 * a**2, 0.3))

    flow = svi(model, guides.flow, num_steps=5000, num_draws=2000, progress=False)
    normal = svi(model, guides.full_rank, num_steps=2000, num_draws=2000, progress=False)
    assert flow.info.elbo > normal.info.elbo + 0.15  # the evidence is 0
    assert flow.info.elbo < 4 * flow.info.elbo_se


@pytest.mark.parametrize("loss", [Trace_ELBO(2), TraceMeanField_ELBO(), RenyiELBO(alpha=0.5, num_particles=3)])
def test_any_pyro_loss(loss) -> None:
    posterior = fit(guides.full_rank, *DATA, num_steps=1000, lr=0.03, loss=loss)
    assert ((posterior.draws["w"][0].mean(0) - EXACT.mean) / EXACT.stddev).abs().max() < 0.25


def test_a_function_is_a_loss_and_any_optimiser_will_do() -> None:
    def loss(model, guide, *data):
        return Trace_ELBO().differentiable_loss(model, guide, *data)

    posterior = fit(guides.full_rank, *DATA, num_steps=1500, loss=loss, optim=torch.optim.RMSprop)
    assert ((posterior.draws["w"][0].mean(0) - EXACT.mean) / EXACT.stddev).abs().max() < 0.25


def test_pyros_autoguides_and_bound_families_are_families() -> None:
    autoguide = fit(AutoNormal, *DATA, num_steps=300)
    family = fit(partial(guides.mean_field, init_scale=0.1), *DATA, num_steps=300)
    assert torch.equal(autoguide.draws["w"], family.draws["w"])
    assert autoguide.info.guide == "AutoNormal"
    assert family.info.guide == "mean_field"


def test_minibatches_reach_the_same_posterior() -> None:
    x, y = linear.data(rows=500)
    exact = linear.posterior(x, y)
    posterior = svi(linear.model, guides.full_rank, x, y, batch_size=50, num_steps=8000, progress=False)
    w = posterior.draws["w"][0]
    assert ((w.mean(0) - exact.mean) / exact.stddev).abs().max() < 0.25
    assert (w.std(0) / exact.stddev - 1).abs().max() < 0.35  # ten times the rows' weight would give 2.2 or -.68


def test_scaled_batches_average_to_the_whole() -> None:
    """A batch's N/B-scaled log density, averaged over all batches, is that of all rows; the prior is not scaled."""
    from pyro import poutine

    from guidebook.inference.optim.minibatch import row_scale

    x, y = DATA
    scale = row_scale(linear.model, DATA, 20, autoguide=True)
    w = {"w": torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)}

    def log_joint(model, *data):
        return poutine.trace(poutine.condition(model, w)).get_trace(*data).log_prob_sum()

    parts = [log_joint(scale(linear.model), x[i : i + 20], y[i : i + 20]) for i in (0, 20, 40)]
    assert float(sum(parts)) / 3 == pytest.approx(float(log_joint(linear.model, x, y)), rel=1e-12)


def test_what_minibatches_cannot_do_is_said(iris: torch.Tensor) -> None:
    from guidebook.models import gmm

    def local(x, y=None):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def no_plate(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(w * x[:, 0], 1.0).to_event(1), obs=y)

    for model, data, size, words in (
        (local, DATA, 10, "site 'z' has a value for each row"),
        (no_plate, DATA, 10, "needs a pyro.plate over the 60 rows"),
        (linear.model, DATA, 61, "batch_size must lie between 1 and the number of rows"),
        (gmm.model, (iris,), 50, "the prior of '.*' changes with the rows given"),
    ):
        with pytest.raises(ValueError, match=words):
            svi(model, guides.mean_field, *data, batch_size=size, num_steps=10, progress=False)


def test_fits_are_deterministic_and_leave_no_trace() -> None:
    pyro.clear_param_store()
    pyro.param("mine", torch.tensor(3.0))
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = fit(guides.mean_field, *DATA, num_steps=200, seed=3)
    assert list(pyro.get_param_store()) == ["mine"]
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002
    fit(guides.mean_field, *linear.data(seed=9), num_steps=200, seed=4)  # must not be seen by the next
    again = fit(guides.mean_field, *DATA, num_steps=200, seed=3)
    assert torch.equal(first.draws["w"], again.draws["w"])
    assert torch.equal(first.info.losses, again.info.losses)
    other = fit(guides.mean_field, *DATA, num_steps=200, seed=4)
    assert not torch.equal(first.draws["w"], other.draws["w"])
    pyro.clear_param_store()


def test_a_guide_given_is_copied() -> None:
    guide = AutoNormal(linear.model)
    first = fit(guide, *DATA, num_steps=200)
    assert not list(guide.parameters())
    assert torch.equal(first.draws["w"], fit(guide, *DATA, num_steps=200).draws["w"])


def test_a_bad_number_is_traced_to_its_site() -> None:
    def model(x, y=None):
        scale = pyro.sample("scale", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(0.0, scale.log()), obs=y)

    with pyro.validation_enabled(False), pytest.raises(FloatingPointError, match="site 'y' in the model"):
        svi(model, AutoNormal(model), *DATA, num_steps=50, progress=False)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_steps_that_lead_out_of_range_are_taken_again_smaller(engine: str) -> None:
    def model(x: torch.Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 10.0))
        pyro.factor("range", torch.where(z.abs() > 20.0, math.nan, 0.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(50) + 2.0
    how = {"num_steps": 3000, "engine": engine, "progress": False}
    words = r"^svi: the loss is nan at step \d+.*; steps of (3|0.3) went on from the best parameters before$"
    with pytest.warns(UserWarning, match=words):
        posterior = svi(model, AutoNormal(model), x, lr=30.0, **how)
    assert float(posterior.draws["z"].mean()) == pytest.approx(float(x.mean()), abs=0.1)


def test_steps_that_no_size_saves_are_named() -> None:
    def model(x: torch.Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("hole", torch.where(z > 0.0, math.nan, 0.0))

    words = r"^svi: the loss is nan .*; steps of 0.001 and of 0.0001 .* did no better$"
    with pytest.raises(FloatingPointError, match=words):
        svi(model, AutoNormal(model), *DATA[:1], num_steps=100, progress=False)


def test_a_fit_that_stops_too_early_says_so() -> None:
    with pytest.warns(UserWarning, match="take more steps"):
        posterior = fit(AutoNormal(linear.model), *DATA, num_steps=2000, lr=0.0002)
    assert not posterior.info.converged
    assert fit(guides.mean_field, *DATA, num_steps=4000).info.converged


def test_k_hat_has_the_right_sign() -> None:
    """Weights with a Pareto tail of shape k: log weights k times an exponential."""
    from guidebook.inference.diagnostics import k_hat

    torch.manual_seed(0)
    exponential = torch.distributions.Exponential(torch.ones((), dtype=torch.float64)).sample((20_000,))
    for shape in (0.3, 0.7):
        assert k_hat(shape * exponential) == pytest.approx(shape, abs=0.15)


@pytest.mark.parametrize(("num_draws", "known"), [(99, False), (100, True)])
def test_k_hat_needs_a_hundred_draws(num_draws: int, known: bool) -> None:
    posterior = fit(guides.laplace, *DATA, num_draws=num_draws)
    assert (posterior.info.k_hat is not None) == known
    assert posterior.info.elbo is not None


def test_a_model_that_cannot_be_vectorised_is_drawn_one_by_one() -> None:
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        slope = w if w.item() > 0 else 2 * w  # a branch on a drawn value
        pyro.deterministic("slope", slope)
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(slope * x[:, 0], 1.0), obs=y)

    posterior = svi(model, guides.mean_field, *DATA, num_steps=200, num_draws=50, progress=False)
    w, slope = posterior.draws["w"], posterior.draws["slope"]
    assert torch.allclose(slope, torch.where(w > 0, w, 2 * w))


def test_latent_sites_left_out_of_the_guide_leave_k_hat_out() -> None:
    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("loc", dist.Normal(pyro.param("mean", torch.tensor(0.0)), 0.1))

    with pytest.warns(UserWarning, match="model but not guide"):
        posterior = svi(model, guide, torch.randn(20), num_steps=50, progress=False)
    assert posterior.info.k_hat is None
    assert set(posterior.draws) == {"loc"}


def test_options_out_of_range() -> None:
    for options, words in (
        ({"num_steps": 0}, "num_steps"),
        ({"lr": 0.0}, "lr"),
        ({"num_particles": 0}, "num_particles"),
        ({"num_draws": 0}, "num_draws"),
        ({"seed": 2**32}, "seed"),
        ({"loss": Trace_ELBO(), "num_particles": 2}, "num_particles belongs"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(guides.mean_field, *DATA, **options)


def test_options_do_what_they_say() -> None:
    """Each beside the default, at the same seed."""
    options = {"num_steps": 40, "num_draws": 20}
    calls = []

    def guide(x, y=None):
        calls.append(len(x))
        by_hand(x, y)

    plain = fit(guide, *DATA, **options)
    once = len(calls)
    assert plain.info.losses.shape == (40,)
    assert plain.draws["w"].shape == (1, 20, 3)
    assert set(calls) == {60}
    calls.clear()
    fit(guide, *DATA, **options, num_particles=3)
    assert len(calls) == once + 2 * 41  # two more at every step, and before the first
    calls.clear()
    fit(guide, *DATA, **options, batch_size=20)
    assert calls.count(20) == 41

    def moved(**changed) -> float:
        found = fit(guide, *DATA, **options | changed)
        return float(found.params["mean"].abs().max())

    usual = moved(lr=0.001)
    assert usual == moved(lr=0.001, loss="trace") == moved(lr=0.001, optim=torch.optim.Adam)
    assert 5 < moved(lr=0.01) / usual < 15  # Adam's steps are proportional to lr
    assert moved(lr=0.001, num_steps=80) > 1.5 * usual
    for changed in ({"seed": 1}, {"optim": torch.optim.SGD}, {"loss": "renyi", "num_particles": 2}):
        assert moved(lr=0.001, **changed) != usual


def test_data_and_guide_go_to_the_device() -> None:
    """The device "meta" holds shapes only: enough for a model that computes nothing with the data."""
    places = []

    def model(x, number):
        assert number == 2.5
        places.append(x.device.type)
        pyro.sample("z", dist.Normal(0.0, 1.0))

    svi(model, AutoNormal(model), torch.ones(3), 2.5, num_steps=1, num_draws=2, device="meta", progress=False)
    assert set(places) == {"meta"}


@pytest.mark.parametrize(("num_steps", "compiled"), [(7, False), (8, True)])
def test_long_fits_are_compiled(num_steps: int, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """From `COMPILED_FROM` steps, if the loss is Pyro's, the optimiser has a compiled twin, and "auto" may choose."""
    assert sys.modules["guidebook.inference.optim.steps"].COMPILED_FROM == 5000  # counted in draws of the guide
    monkeypatch.setattr(sys.modules["guidebook.inference.optim.steps"], "COMPILED_FROM", 8)
    monkeypatch.setattr("guidebook.inference.engines.compiled.fit_compiled", lambda *args, **how: torch.zeros(1))
    options = {"num_steps": num_steps, "num_draws": 2}
    assert fit(guides.mean_field, *DATA, **options).info.engine == ("compiled" if compiled else "eager")
    for changed in (
        {"engine": "eager"},
        {"optim": torch.optim.Adagrad},
        {"loss": Trace_ELBO().differentiable_loss},
    ):
        assert fit(guides.mean_field, *DATA, **options | changed).info.engine == "eager"
    assert fit(guides.mean_field, *DATA, **options, engine="compiled").info.engine == "compiled"


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_of_many_rows_only_batches_are_read(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor that a model sees, and the posterior of all rows."""
    monkeypatch.setattr(minibatch, "MAX_ROWS", 200)
    x, y = linear.data(rows=400)
    sizes = set()

    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        sizes.add(len(x))
        linear.model(x, y)

    posterior = svi(
        model, guides.full_rank, x, y, batch_size=100, num_steps=8000, engine=engine, progress=False
    )  # fmt: skip
    assert max(sizes) == 200
    exact = linear.posterior(x, y)
    w = posterior.draws["w"][0]
    assert ((w.mean(0) - exact.mean) / exact.stddev).abs().max() < 0.3
    assert (w.std(0) / exact.stddev - 1).abs().max() < 0.35  # without the scale of 4 they would be twice as wide
    assert posterior.info.k_hat is None
    assert abs(posterior.info.elbo - linear.log_evidence(x, y)) < 4 * posterior.info.elbo_se + 5


def test_points_take_newton_steps() -> None:
    """The mode of a normal posterior, exactly; where an optimiser is named, that one is taken."""
    posterior = fit(guides.map_point, *DATA)
    assert posterior.info.engine == "Newton"
    assert posterior.info.converged
    assert len(posterior.info.losses) < 50
    assert torch.allclose(posterior.draws["w"][0, 0], EXACT.mean, rtol=1e-5)
    assert fit(guides.map_point, *DATA, num_steps=20, optim=torch.optim.Adam, lr=0.1).info.engine == "eager"
    with pytest.warns(UserWarning, match=r"svi: took all 1 iterations with a gradient of .* take more steps"):
        assert not fit(guides.map_point, *DATA, num_steps=1).info.converged


@pytest.mark.filterwarnings("ignore:Found vars in model but not guide")
def test_a_point_whose_loss_is_noise_takes_gradient_steps() -> None:
    """A site that the guide leaves to the prior changes the loss from call to call."""

    def model(x: torch.Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        left = pyro.sample("left", dist.Normal(0.0, 0.1))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(z + left, 1.0), obs=x)

    def guide(x: torch.Tensor) -> None:
        pyro.sample("z", dist.Delta(pyro.param("point", torch.tensor(0.0))))

    posterior = svi(model, guide, torch.ones(20), num_steps=30, lr=0.1, progress=False)
    assert posterior.info.engine == "eager"
