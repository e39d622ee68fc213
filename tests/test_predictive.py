"""Predictions against distributions known in closed form, on the rows that were fitted and on others."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.autoname import scope
from pyro.nn import PyroModule, PyroSample
from torch import Tensor
from zoo import linear, schools
from zoo.made import posterior_of

from guidebook.inference import posterior_predictive, prior_predictive

X, Y = linear.data()
SIZE = 20_000


def exact_draws(size: int = SIZE) -> Tensor:
    """Draws of the exact posterior, in two chains."""
    return linear.posterior(X, Y).sample((2, size // 2))


def assert_normal(draws: Tensor, mean: Tensor, sd: Tensor) -> None:
    """Means and sds of draws (draw, n) are those given, within 4.5 standard errors."""
    count = len(draws)
    assert ((draws.mean(0) - mean).abs() < 4.5 * sd / math.sqrt(count)).all()
    assert ((draws.std(0) / sd - 1).abs() < 4.5 / math.sqrt(2 * count)).all()


@pytest.mark.parametrize("rows", ["the same", "the same, None", "new"])
def test_predictions_of_a_linear_model_are_normal_with_the_exact_moments(rows: str) -> None:
    x, y = {"the same": (X, Y), "the same, None": (X, None), "new": (linear.data(7, seed=5)[0], None)}[rows]
    posterior = posterior_of(w=exact_draws())
    found = posterior_predictive(linear.model, posterior, x, y)
    assert found.keys() == {"y", "total"}
    exact = linear.posterior(X, Y)
    variance = (x @ exact.covariance_matrix * x).sum(1) + linear.NOISE**2
    assert_normal(found["y"], x @ exact.mean, variance.sqrt())
    assert torch.allclose(found["total"], posterior.samples["w"].sum(1))


def test_rows_of_predictions_are_in_the_order_of_samples() -> None:
    def exact(x: Tensor, y: Tensor | None = None) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.deterministic("mean", w * x)
            pyro.sample("y", dist.Normal(w * x, 1e-6), obs=y)

    posterior = posterior_of(w=torch.arange(6.0).reshape(2, 3))
    x = torch.ones(4)
    for num_draws, expected in ((None, range(6)), (3, (0, 2, 4)), (12, (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5))):
        found = posterior_predictive(exact, posterior, x, None, num_draws=num_draws)
        assert found["mean"].shape == (len(expected), 4)
        assert found["y"][:, 0] == pytest.approx(torch.tensor(expected, dtype=torch.float32), abs=1e-4)
        assert torch.equal(found["mean"][:, 0], torch.tensor(expected, dtype=torch.float32))


def test_the_seed_decides() -> None:
    posterior = posterior_of(w=exact_draws(100))
    one, same, other = (posterior_predictive(linear.model, posterior, X, None, seed=s)["y"] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def eight_schools(size: int = 8_000) -> dict[str, Tensor]:
    """Draws that no fit would give, so that it shows where a prediction comes from."""
    theta = 100 + torch.arange(8.0) + torch.randn(1, size, 8)
    return {"mu": torch.full((1, size), 3.0), "tau": torch.full((1, size), 2.0), "theta": theta}


@pytest.mark.parametrize("effect", [schools.EFFECT, None])
def test_effects_of_the_groups_that_were_fitted_keep_their_draws(effect: Tensor | None) -> None:
    found = posterior_predictive(schools.centred, posterior_of(**eight_schools()), schools.ERROR, effect)
    assert found.keys() == {"effect"}
    assert_normal(found["effect"], 100 + torch.arange(8.0), (1 + schools.ERROR**2).sqrt())


def test_effects_of_new_groups_are_drawn_from_the_model_and_that_is_said() -> None:
    posterior, error = posterior_of(**eight_schools()), torch.tensor([1.0, 2.0, 3.0])
    with pytest.warns(UserWarning, match="'theta' is drawn from the model.*give the model their number"):
        found = posterior_predictive(schools.centred, posterior, error, None)
    assert_normal(found["theta"], torch.full((3,), 3.0), torch.full((3,), 2.0))
    assert_normal(found["effect"], torch.full((3,), 3.0), (4 + error**2).sqrt())


def test_new_groups_as_many_as_the_old_are_asked_for() -> None:
    posterior = posterior_of(**eight_schools())
    found = posterior_predictive(schools.centred, posterior, schools.ERROR, None, redraw=["theta"])
    assert_normal(found["theta"], torch.full((8,), 3.0), torch.full((8,), 2.0))
    with pytest.raises(ValueError, match="no latent site 'thetas' to draw: it has 'mu', 'tau', 'theta'"):
        posterior_predictive(schools.centred, posterior, schools.ERROR, None, redraw=["thetas"])


def test_the_computed_site_of_a_reparameterised_group_follows_its_draws() -> None:
    draws = eight_schools()
    posterior = posterior_of(mu=draws["mu"], tau=draws["tau"], z=draws["theta"] * 0 + 5)
    found = posterior_predictive(schools.non_centred, posterior, schools.ERROR, None)
    assert torch.equal(found["theta"], torch.full((8_000, 8), 13.0))
    reparameterised = poutine.reparam(schools.centred, config={"theta": pyro.infer.reparam.LocScaleReparam(0.0)})
    posterior = posterior_of(mu=draws["mu"], tau=draws["tau"], theta_decentered=draws["theta"] * 0 + 5)
    found = posterior_predictive(reparameterised, posterior, schools.ERROR, None)
    assert torch.equal(found["theta"], torch.full((8_000, 8), 13.0))


WEIGHTS, PLACES = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 1.0])


def mixture(x: Tensor | None = None, other: Tensor | None = None, rows: int | None = None) -> None:
    """Two components at -1 and 1, of which each row has two measurements with sds 1 and 2."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("rows", rows or len(x)):  # pyright: ignore[reportArgumentType]
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(PLACES[z], 1.0), obs=x)
        pyro.sample("other", dist.Normal(PLACES[z], 2.0), obs=other)


@pytest.mark.parametrize("seen", ["both", "one", "none"])
def test_components_are_drawn_given_what_is_observed_of_a_row(seen: str) -> None:
    x, other = torch.tensor([-0.5, 0.0, 0.8]), torch.tensor([2.0, -1.0, 0.5])
    posterior = posterior_of(weights=WEIGHTS.expand(1, SIZE, 2))
    data = {"both": (x, other), "one": (x, None), "none": (None, None, 3)}[seen]
    found = posterior_predictive(mixture, posterior, *data)
    log_odds = (WEIGHTS[1] / WEIGHTS[0]).log() + torch.zeros(3)
    log_odds = log_odds + 2 * x if seen != "none" else log_odds  # of N(x; 1, 1) over N(x; -1, 1)
    log_odds = log_odds + 2 * other / 4 if seen == "both" else log_odds
    probability = log_odds.sigmoid()
    z = found["z"].double()
    assert ((z.mean(0) - probability).abs() < 4.5 * (probability * (1 - probability) / SIZE).sqrt()).all()
    mean = 2 * probability - 1
    for site, noise in (("x", 1.0), ("other", 2.0)):
        sd = (1 - mean**2 + noise**2).sqrt()
        assert ((found[site].mean(0) - mean).abs() < 4.5 * sd / math.sqrt(SIZE)).all()


def test_components_come_from_the_model_where_what_they_depend_on_does() -> None:
    """Without draws of the shifts, data tell nothing of the components: both are drawn from their priors."""

    def shifted(x: Tensor) -> None:
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("rows", len(x)):
            shift = pyro.sample("shift", dist.Normal(0.0, 0.1))
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(PLACES[z] + shift, 0.1), obs=x)

    posterior = posterior_of(weights=WEIGHTS.expand(1, SIZE, 2))
    with pytest.warns(UserWarning, match="'shift', 'z' are drawn from the model"):
        found = posterior_predictive(shifted, posterior, torch.tensor([-1.0, 1.0]))
    assert ((found["z"].double().mean(0) - 0.7).abs() < 4.5 * math.sqrt(0.21 / SIZE)).all()


def test_a_discrete_site_that_all_rows_share_has_no_prediction_without_data() -> None:
    def switch(y: Tensor | None = None) -> None:
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        side = pyro.sample("side", dist.Bernoulli(0.5))
        with pyro.plate("rows", 20):
            pyro.sample("y", dist.Normal(10 * side, scale), obs=y)

    posterior = posterior_of(scale=torch.ones(1, 50))
    found = posterior_predictive(switch, posterior, torch.full((20,), 10.0))
    assert (found["side"] == 1).all()
    with pytest.raises(ValueError, match=r"no draws of site 'side', which all rows share.*discrete_draws"):
        posterior_predictive(switch, posterior, None)


FAMILIES = {
    "normal": lambda p: dist.Normal(p, 1 + p),
    "student": lambda p: dist.StudentT(9.0, p, 1.0),
    "laplace": lambda p: dist.Laplace(p, 1.0),
    "exponential": lambda p: dist.Exponential(p),
    "gamma": lambda p: dist.Gamma(2 * p, p),
    "beta": lambda p: dist.Beta(p, 2.0),
    "log normal": lambda p: dist.LogNormal(p, 0.3),
    "weibull": lambda p: dist.Weibull(p, 2.0),
    "uniform": lambda p: dist.Uniform(-p, p),
    "bernoulli": lambda p: dist.Bernoulli(p / 2),
    "binomial": lambda p: dist.Binomial(torch.tensor(12.0), p / 2),
    "negative binomial": lambda p: dist.NegativeBinomial(3.0, logits=p),
    "poisson": lambda p: dist.Poisson(3 * p),
    "zero-inflated": lambda p: dist.ZeroInflatedPoisson(3 * p, gate=p / 2),
    "geometric": lambda p: dist.Geometric(p / 2),
    "beta binomial": lambda p: dist.BetaBinomial(2 * p, 2.0, 9),
    "ordered": lambda p: dist.OrderedLogistic(p, torch.tensor([0.0, 1.0])),
    "mixture": lambda p: dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.2, 0.8])), dist.Normal(torch.stack([p, -p], -1), 0.5)
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_are_from_the_distribution_at_each_draw(family: str) -> None:
    """Whether vmap runs a family or a loop does: half of the draws have one parameter, half another."""

    def model(y: Tensor | None = None) -> None:
        p = pyro.sample("p", dist.Gamma(2.0, 1.0))
        with pyro.plate("rows", 400):
            pyro.sample("y", FAMILIES[family](p.expand(400)), obs=y)

    torch.manual_seed(1)
    posterior = posterior_of(p=torch.tensor([0.5, 1.5]).repeat_interleave(60)[None])
    y = posterior_predictive(model, posterior, None)["y"].double()
    for half, p in zip(y.split(60), (0.5, 1.5), strict=True):
        fn = FAMILIES[family](torch.tensor(p, dtype=torch.float64))
        if family == "ordered":  # states no moments
            mean = (fn.probs * torch.arange(3)).sum()
            variance = (fn.probs * (torch.arange(3) - mean) ** 2).sum()
        else:
            mean, variance = fn.mean, fn.variance
        assert float(half.mean()) == pytest.approx(float(mean), abs=4.5 * math.sqrt(variance / half.numel()))
        assert float(half.var()) == pytest.approx(float(variance), rel=0.15)
        assert len(half[:, 0].unique()) > 1  # rows and draws have numbers of their own
        assert not torch.equal(half[0], half[1])


def test_categories_and_vectors_have_their_shapes() -> None:
    def model(y: Tensor | None = None, counts: Tensor | None = None) -> None:
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("rows", 5):
            pyro.sample("y", dist.MultivariateNormal(p, torch.eye(3)), obs=y)
            pyro.sample("counts", dist.Multinomial(10, p), obs=counts)

    posterior = posterior_of(p=torch.tensor([0.1, 0.2, 0.7]).expand(2, 500, 3))
    found = posterior_predictive(model, posterior)
    assert found["y"].shape == found["counts"].shape == (1000, 5, 3)
    assert (found["counts"].sum(-1) == 10).all()
    probabilities = found["counts"].double().mean((0, 1)) / 10
    assert probabilities == pytest.approx(torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64), abs=4.5 * 0.5 / 224)


def test_a_loop_over_time_is_forecast() -> None:
    """Steps beyond those that were fitted come from the model, given the last of them."""

    def walk(y: list[Tensor | None]) -> None:
        drift = pyro.sample("drift", dist.Normal(0.0, 1.0))
        level = torch.zeros(())
        for step, value in enumerate(y):
            level = pyro.sample(f"y{step}", dist.Normal(level + drift, 1.0), obs=value)

    posterior = posterior_of(drift=torch.full((1, SIZE), 2.0))
    found = posterior_predictive(walk, posterior, [None] * 4)
    steps = torch.stack([found[f"y{step}"] for step in range(4)], 1)
    assert_normal(steps, 2 * torch.arange(1.0, 5.0), torch.arange(1.0, 5.0).sqrt())


def test_entries_that_were_not_seen_are_drawn_too() -> None:
    """With ``obs_mask`` the missing entries are latent: those of the fit are kept."""

    def model(y: Tensor, seen: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=seen)

    posterior = posterior_of(mu=torch.full((1, 4000), 7.0), y_unobserved=torch.full((1, 4000, 3), -5.0))
    seen = torch.tensor([True, False, True])
    y = posterior_predictive(model, posterior, torch.zeros(3), seen)["y"]
    assert_normal(y[:, seen], torch.full((2,), 7.0), torch.ones(2))
    assert (y[:, 1] == -5).all()


def test_parameters_are_those_of_the_posterior() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        offset = pyro.param("offset", torch.tensor(0.0))
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(offset + w * x, 1.0), obs=y)

    x, draws = torch.ones(3), torch.zeros(1, 4000)
    y = posterior_predictive(model, posterior_of({"offset": torch.tensor(9.0)}, w=draws), x, None)["y"]
    assert_normal(y, torch.full((3,), 9.0), torch.ones(3))
    with pytest.warns(UserWarning, match="parameters offset are at their initial values"):
        y = posterior_predictive(model, posterior_of(w=draws), x, None)["y"]
    assert_normal(y, torch.zeros(3), torch.ones(3))


class Slopes(PyroModule):
    """A module with priors for its weights, and a plate that subsamples by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.w = PyroSample(dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        w = self.w
        with pyro.plate("rows", len(x), subsample_size=5) as rows:
            pyro.sample("y", dist.Normal((x[rows] * w).sum(-1), linear.NOISE), obs=None if y is None else y[rows])


def test_a_module_that_subsamples_predicts_all_rows() -> None:
    found = posterior_predictive(Slopes(), posterior_of(w=exact_draws()), X, Y)
    exact = linear.posterior(X, Y)
    variance = (X @ exact.covariance_matrix * X).sum(1) + linear.NOISE**2
    assert_normal(found["y"], X @ exact.mean, variance.sqrt())


def test_names_with_a_slash_are_names() -> None:
    @scope(prefix="regression")
    def model(x: Tensor, y: Tensor | None = None) -> None:
        linear.model(x, y)

    posterior = posterior_of(**{"regression/w": exact_draws(400)})
    found = posterior_predictive(model, posterior, X[:4], None)
    assert found.keys() == {"regression/total", "regression/y"}
    assert found["regression/y"].shape == (400, 4)


def test_the_prior_is_drawn_from_with_its_data() -> None:
    found = prior_predictive(linear.model, X, Y, num_draws=SIZE)
    assert_normal(found["w"], torch.zeros(3), torch.ones(3))
    assert_normal(found["y"], torch.zeros(60), (X.square().sum(1) + linear.NOISE**2).sqrt())
    assert torch.allclose(found["total"], found["w"].sum(1))
    assert prior_predictive(linear.model, X, None)["y"].shape == (1000, 60)


def test_flat_priors_have_no_draws() -> None:
    def model(y: Tensor | None = None) -> None:
        mu = pyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
        with pyro.plate("rows", 4):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    with pytest.raises(ValueError, match="prior_predictive: site 'mu' has a flat prior"):
        prior_predictive(model, None)
    found = posterior_predictive(model, posterior_of(mu=torch.full((1, 4000), 3.0)), None)
    assert_normal(found["y"], torch.full((4,), 3.0), torch.ones(4))


def test_mistakes_are_said_in_a_sentence() -> None:
    posterior = posterior_of(w=exact_draws(100))
    with pytest.raises(ValueError, match=r"draws of site 'w' have shape \(3,\), and in the model \(2,\), which is not"):
        posterior_predictive(linear.model, posterior, X[:, :2], None)
    with pytest.raises(ValueError, match="no draws of site 'w', which all rows share"):
        posterior_predictive(linear.model, posterior_of(v=torch.zeros(1, 9)), X, Y)
    with pytest.raises(ValueError, match="no draws of site 'w', which all rows share"):
        posterior_predictive(linear.model, posterior_of(v=torch.zeros(1, 9)), X, None)
    with pytest.raises(ValueError, match=r"posterior_predictive: the model cannot be run: .*linear.py"):
        posterior_predictive(linear.model, posterior, X[:, :, None], None)
    with pytest.raises(ValueError, match="model must be a function"):
        posterior_predictive(3, posterior, X)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="num_draws must be at least 1"):
        posterior_predictive(linear.model, posterior, X, None, num_draws=0)


def _with_gaps(x: Tensor, y: Tensor | None = None) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        x = pyro.sample("x", dist.Normal(mu, 0.5), obs=x.nan_to_num(), obs_mask=~x.isnan())
        pyro.sample("y", dist.Normal(10 * x, 0.1), obs=y)


def test_features_with_a_distribution_are_kept_where_they_are_given() -> None:
    """And drawn where they are missing: y is 10 x, and x about mu."""
    posterior = posterior_of(mu=torch.full((1, 4000), 3.0), x_unobserved=torch.zeros(1, 4000, 5))
    x = torch.tensor([0.0, 7.0, torch.nan])
    with pytest.warns(UserWarning, match="'x_unobserved' is drawn from the model"):
        kept = posterior_predictive(_with_gaps, posterior, x, None, keep=["x"])
    assert_normal(kept["y"], torch.tensor([0.0, 70.0, 30.0]), torch.tensor([0.1, 0.1, math.sqrt(25 + 0.01)]))
    with pytest.warns(UserWarning, match="is drawn"):
        drawn = posterior_predictive(_with_gaps, posterior, x, None)
    assert_normal(drawn["y"], torch.full((3,), 30.0), torch.full((3,), math.sqrt(25 + 0.01)))
    with pytest.raises(ValueError, match="the model observes no site 'z' to keep: it has 'x_observed'"):
        posterior_predictive(_with_gaps, posterior, x, None, keep=["z"])
