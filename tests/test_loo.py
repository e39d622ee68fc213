"""Leave-one-out of fits against arviz-stats on NumPyro's own log likelihoods, closed forms, and other methods' fits."""

import math
import warnings
from dataclasses import replace

import numpy as np
import numpyro
import numpyro.distributions as nd
import pyro
import pyro.distributions as dist
import pytest
import torch
from arviz_base import from_dict
from arviz_stats import loo as arviz_loo
from arviz_stats import loo_approximate_posterior
from numpyro.infer.util import log_likelihood as numpyro_log_likelihood
from torch import Tensor
from zoo import linear
from zoo.made import posterior_of

from guidebook.guides import full_rank
from guidebook.inference import check, dadvi, loo, nuts, psis_loo, svi
from guidebook.inference.choice import Score

GENERATOR = torch.Generator().manual_seed(0)
GROUP = torch.arange(80) % 8
X = torch.randn(80, generator=GENERATOR)
LEVEL = 0.6 * torch.randn(8, generator=GENERATOR)
COUNTS = torch.poisson((0.5 + 0.4 * X + LEVEL[GROUP]).exp(), generator=GENERATOR)
TWO = torch.where(torch.rand(80, generator=GENERATOR) < 0.3, -1.0, 1.5) + 0.7 * torch.randn(80, generator=GENERATOR)
LINE = 1 + 2 * X + 0.8 * torch.randn(80, generator=GENERATOR)


def regression(x: Tensor, y: Tensor | None = None) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 5.0))
    b = pyro.sample("b", dist.Normal(0.0, 5.0))
    sd = pyro.sample("sd", dist.HalfNormal(2.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(a + b * x, sd), obs=y)


def numpyro_regression(x, y=None) -> None:
    a, b = numpyro.sample("a", nd.Normal(0.0, 5.0)), numpyro.sample("b", nd.Normal(0.0, 5.0))
    sd = numpyro.sample("sd", nd.HalfNormal(2.0))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", nd.Normal(a + b * x, sd), obs=y)


def counts(x: Tensor, group: Tensor, y: Tensor | None = None) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 2.0))
    b = pyro.sample("b", dist.Normal(0.0, 2.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("groups", 8):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Poisson((a + b * x + tau * z[group]).exp()), obs=y)


def numpyro_counts(x, group, y=None) -> None:
    a, b = numpyro.sample("a", nd.Normal(0.0, 2.0)), numpyro.sample("b", nd.Normal(0.0, 2.0))
    tau = numpyro.sample("tau", nd.HalfNormal(1.0))
    with numpyro.plate("groups", 8):
        z = numpyro.sample("z", nd.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", nd.Poisson(jnp_exp(a + b * x + tau * z[group])), obs=y)


def jnp_exp(value):
    import jax.numpy as jnp

    return jnp.exp(value)


def two(y: Tensor | None = None) -> None:
    """A mixture with an enumerated label."""
    weight = pyro.sample("weight", dist.Beta(2.0, 2.0))
    start = {"init": lambda: torch.tensor([-1.0, 1.5])}  # not in the mirrored mode
    place = pyro.sample("place", dist.Normal(torch.tensor([-2.0, 2.0]), 0.5).to_event(1), infer=start)  # pyright: ignore
    with pyro.plate("rows", 80):
        label = pyro.sample("label", dist.Bernoulli(weight)).long()
        pyro.sample("y", dist.Normal(place[label], 0.7), obs=y)


def numpyro_two(y=None) -> None:
    """The same with the label summed out by hand."""
    weight = numpyro.sample("weight", nd.Beta(2.0, 2.0))
    place = numpyro.sample("place", nd.Normal(np.array([-2.0, 2.0]), 0.5).to_event(1))
    mixing = nd.Categorical(logits=jnp_logits(weight))
    with numpyro.plate("rows", 80):
        numpyro.sample("y", nd.MixtureSameFamily(mixing, nd.Normal(place, 0.7)), obs=y)


def jnp_logits(weight):
    import jax.numpy as jnp

    return jnp.stack([jnp.log1p(-weight), jnp.log(weight)], -1)


MODELS = {
    "regression": (regression, numpyro_regression, (X, LINE)),
    "counts in groups": (counts, numpyro_counts, (X, GROUP, COUNTS)),
    "mixture": (two, numpyro_two, (TWO,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_it_is_arvizs_on_numpyros_own_log_likelihood(name: str) -> None:
    model, twin, data = MODELS[name]
    posterior = nuts(model, *data, seed=1, progress=False)
    ours = loo(model, posterior, *data)
    draws = {site: value.numpy() for site, value in posterior.draws.items()}
    theirs = numpyro_log_likelihood(twin, draws, *(value.numpy() for value in data), batch_ndims=2)
    values = np.asarray(theirs["y"], dtype=float)
    arvizs = arviz_loo(from_dict({"posterior": draws, "log_likelihood": {"y": values}}))
    assert ours.elpd == pytest.approx(float(arvizs.elpd), abs=0.1)
    assert ours.error == pytest.approx(float(arvizs.se), abs=0.1)
    assert ours.num_parameters == pytest.approx(float(arvizs.p), abs=0.1)
    fast = loo(model, dadvi(model, *data, progress=False), *data)
    assert abs(fast.elpd - ours.elpd) < 2 * ours.error
    assert abs(fast.elpd - ours.elpd) < 1  # which is far less


def exact_loo(x: Tensor, y: Tensor) -> Tensor:
    """Log density of each row of the linear model given all others, in closed form."""
    found = []
    for row in range(len(x)):
        others = torch.arange(len(x)) != row
        posterior = linear.posterior(x[others], y[others])
        variance = x[row] @ posterior.covariance_matrix @ x[row] + linear.NOISE**2
        found.append(dist.Normal(x[row] @ posterior.mean, variance.sqrt()).log_prob(y[row]))
    return torch.stack(found)


def test_draws_of_an_approximation_are_weighted() -> None:
    """Draws of a normal 1.3 times too wide and .4 sd off give the exact answer by their weights, and not without."""
    x, y = linear.data()
    exact = linear.posterior(x, y)
    wide = torch.distributions.MultivariateNormal(
        exact.mean + 0.4 * exact.stddev, scale_tril=1.3 * torch.linalg.cholesky(exact.covariance_matrix)
    )
    w = wide.sample((1, 20_000))
    rows = dist.Normal(w @ x.mT, linear.NOISE).log_prob(y)
    weights = (exact.log_prob(w) - wide.log_prob(w))[0]
    truth = exact_loo(x, y)
    corrected, naive = psis_loo(rows, weights), psis_loo(rows)
    assert corrected.elpd == pytest.approx(float(truth.sum()), abs=0.1)
    assert np.abs(corrected.pointwise - truth.numpy()).max() < 0.05
    assert abs(naive.elpd - float(truth.sum())) > 0.4
    tree = from_dict({"posterior": {"w": w.numpy()}, "log_likelihood": {"y": rows.numpy()}})
    log_p = tree["log_likelihood"]["y"][..., 0] * 0 + weights.numpy()[None]
    arvizs = loo_approximate_posterior(tree, log_p=log_p, log_q=0 * log_p, pointwise=True)
    assert corrected.elpd == pytest.approx(float(arvizs.elpd), abs=1e-6)
    assert np.abs(np.asarray(corrected.k_hat) - arvizs.pareto_k.values).max() < 1e-6
    some = weights.clone()
    some[:3] = -math.inf
    assert psis_loo(rows, some).elpd == pytest.approx(corrected.elpd, abs=0.01)


def test_weights_that_do_not_fit_are_refused() -> None:
    rows = torch.randn(1, 200, 5)
    with pytest.raises(ValueError, match="there are 200 draws and 150 log_weights"):
        psis_loo(rows, torch.zeros(150))
    with pytest.raises(ValueError, match="log_weights of 150 of 200 draws are not finite"):
        psis_loo(rows, torch.cat([torch.zeros(50), torch.full((150,), -math.inf)]))


@pytest.mark.slow
def test_svi_brings_its_weights() -> None:
    x, y = linear.data()
    posterior = svi(linear.model, full_rank, x, y, num_steps=3000, lr=0.02, progress=False)
    assert posterior.log_weights is posterior.info.log_weights
    assert loo(linear.model, posterior, x, y).elpd == pytest.approx(float(exact_loo(x, y).sum()), abs=0.3)


def draws_of_linear(size: int = 4000) -> tuple[Tensor, Tensor, Tensor]:
    x, y = linear.data()
    return x, y, linear.posterior(x, y).sample((1, size))


def test_hidden_rows_are_left_out() -> None:
    x, y, w = draws_of_linear()
    seen = torch.arange(60) % 3 > 0

    def masked(x: Tensor, y: Tensor) -> None:
        with pyro.poutine.mask(mask=seen):
            linear.model(x, y)

    found = loo(masked, posterior_of(w=w), x, y)
    assert found.pointwise.shape == (40,)
    rows = dist.Normal(w @ x.mT, linear.NOISE).log_prob(y)[..., seen]
    assert found.elpd == pytest.approx(psis_loo(rows).elpd, abs=1e-6)


def test_sites_of_the_same_rows_are_added_and_others_named() -> None:
    x, y, w = draws_of_linear()

    def double(x: Tensor, y: Tensor, total: Tensor) -> None:
        linear.model(x, y)
        with pyro.plate("rows again", len(x)):
            pyro.sample("again", dist.Normal(y.new_zeros(()), 1.0), obs=y)
        with pyro.plate("few rows", len(total)):
            pyro.sample("few", dist.Normal(y.new_zeros(()), 1.0), obs=total)

    posterior, single = posterior_of(w=w), loo(linear.model, posterior_of(w=w), x, y)
    both = loo(double, posterior, x, y, y)  # three sites of 60 rows
    constant = 2 * dist.Normal(0.0, 1.0).log_prob(y).sum()
    assert both.elpd == pytest.approx(single.elpd + float(constant), abs=1e-3)
    with pytest.raises(ValueError, match=r"different rows \(y \(60,\), again \(60,\), few \(5,\)\): say by site="):
        loo(double, posterior, x, y, y[:5])
    assert loo(double, posterior, x, y, y[:5], site="y").elpd == pytest.approx(single.elpd, abs=1e-3)
    with pytest.raises(ValueError, match="observes no site 'z': it has y, again, few"):
        loo(double, posterior, x, y, y[:5], site="z")


def test_a_loop_of_sites_is_rows_and_one_density_is_none() -> None:
    x, y, w = draws_of_linear()

    def one_by_one(x: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        for row in range(len(x)):
            pyro.sample(f"y{row}", dist.Normal((x[row] * w).sum(-1), linear.NOISE), obs=y[row])

    def whole(x: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("y", dist.Normal((x * w).sum(-1), linear.NOISE).to_event(1), obs=y)

    single = loo(linear.model, posterior_of(w=w), x, y)
    assert loo(one_by_one, posterior_of(w=w), x, y).elpd == pytest.approx(single.elpd, abs=1e-3)
    with pytest.raises(ValueError, match="loo: y has one density for all rows"):
        loo(whole, posterior_of(w=w), x, y)


def test_an_approximation_without_weights_is_said_to_be_one() -> None:
    x, y, w = draws_of_linear()
    posterior = posterior_of(w=w)
    unweighted = replace(posterior, info=replace(posterior.info, guide="advi"))
    with pytest.warns(UserWarning, match="loo: draws of made are taken as the posterior's own"):
        loo(linear.model, unweighted, x, y)


def test_draws_that_check_has_moved_are_the_posteriors_own_once_settled() -> None:
    wide = dadvi(regression, X, LINE, progress=False)
    wide = replace(wide, draws={name: v.mean() + 2 * (v - v.mean()) for name, v in wide.draws.items()})
    wide = replace(wide, draws=wide.draws | {"sd": wide.draws["sd"].abs()})
    moved = check(wide, regression, X, LINE, progress=False).improved
    assert moved is not None
    exact = loo(regression, nuts(regression, X, LINE, progress=False), X, LINE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = loo(regression, moved, X, LINE)
    assert abs(found.elpd - exact.elpd) < 0.3
    assert (found.r_hat, found.chains_disagree) == (None, False)  # short chains remember where they began
    with pytest.warns(UserWarning, match="loo: draws that check has moved .* have not settled there: moved 128 draws"):
        loo(regression, replace(moved, info=replace(moved.info, converged=False)), X, LINE)


def test_a_score_prints_as_a_sentence() -> None:
    """Not as its arrays, of a number per row."""
    rows = np.array([-1.0, -2.0, -3.0])
    error = math.sqrt(3 * rows.var(ddof=1))
    score = Score(rows, "PSIS-LOO", num_parameters=1.26, k_hat=np.array([0.1, 0.75, 0.2]))
    beginning = f"elpd −6.0 ± {error:.1f} nats over 3 rows, by PSIS-LOO; 1.3 effective parameters; k̂ "
    assert repr(score) == beginning + "above 0.70 in 1 row, whose density is not to be relied on"
    at_most = replace(score, max_k_hat=0.8, chains_disagree=True, r_hat=1.2)
    several = replace(score, k_hat=np.array([0.1, 0.75, 0.8]))
    assert repr(several) == beginning + "above 0.70 in 2 rows, whose densities are not to be relied on"
    assert str(at_most) == beginning + (
        "at most 0.75, so that every row is reliable; the chains have not mixed (R̂ 1.200)"
    )
    assert repr(Score(-rows, "5-fold cross-validation")).startswith("elpd 6.0 ± ")
