"""Log likelihoods by row against densities written by hand, and sums over every assignment of discrete sites."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.autoname import scope
from torch import Tensor
from zoo import linear, schools
from zoo.made import posterior_of

from guidebook.inference import log_likelihood
from guidebook.inference.log_likelihood import densities

ROWS = torch.tensor([[0.3, -1.2, 2.0], [1.1, 0.4, -0.7], [0.2, 0.9, 1.5], [-2.0, 0.1, 0.6]], dtype=torch.float64)


def places(chains: int = 2, draws: int = 30) -> Tensor:
    """Draws of two components' places."""
    return torch.randn(chains, draws, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def assert_same(found: Tensor, expected: Tensor, error: float = 1e-10) -> None:
    assert found.shape == expected.shape
    assert found.dtype == torch.float64
    assert (found - expected).abs().max() < error


def test_rows_of_a_linear_model() -> None:
    x, y = linear.data()
    w = linear.posterior(x, y).sample((2, 30))
    found = log_likelihood(linear.model, posterior_of(w=w), x, y)
    assert found.keys() == {"y"}
    assert_same(found["y"], dist.Normal(w @ x.mT, linear.NOISE).log_prob(y))


def test_with_the_priors_they_sum_to_the_log_joint() -> None:
    draws = {
        "mu": torch.tensor([[1.0, -2.0]]),
        "tau": torch.tensor([[0.5, 3.0]]),
        "theta": torch.randn(1, 2, 8),
    }
    found = densities("test", schools.centred, posterior_of(**draws), (schools.ERROR, schools.EFFECT))
    assert {name: value.shape for name, value in found.prior.items()} == dict.fromkeys(draws, (1, 2))
    assert found.likelihood["effect"].shape == (1, 2, 8)
    for draw in range(2):
        values = {name: value[0, draw].double() for name, value in draws.items()}
        conditioned = poutine.condition(schools.centred, data=values)
        joint = poutine.trace(conditioned).get_trace(schools.ERROR.double(), schools.EFFECT.double()).log_prob_sum()
        sums = [value[0, draw].sum() for part in found for value in part.values()]
        assert float(sum(sums)) == pytest.approx(float(joint), abs=1e-6)  # float32's constants


def mixture(x: Tensor) -> None:
    place = pyro.sample("place", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.25, 0.75])))
        pyro.sample("x", dist.Normal(place[z], 0.5), obs=x)


def test_components_are_summed_out_row_by_row() -> None:
    found, place = log_likelihood(mixture, posterior_of(place=places()), ROWS[:, 0])["x"], places()
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    both = dist.Normal(place[:, :, None], 0.5).log_prob(ROWS[:, :1]) + weights.log()
    assert_same(found, both.logsumexp(-1))


def nested(y: Tensor) -> None:
    """A component per group, four measurements of each group, and one more site of the group."""
    place = pyro.sample("place", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    rows = pyro.plate("rows", 4, dim=-2)
    with pyro.plate("groups", 3, dim=-1):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.25, 0.75])))
        with rows:
            pyro.sample("y", dist.Normal(place[z], 1.0), obs=y)
        pyro.sample("first", dist.Normal(2 * place[z], 1.0), obs=y[0])
    with rows:
        pyro.sample("apart", dist.Normal(place[0], 1.0), obs=y[:, :1])


def test_rows_that_share_a_component_have_one_density() -> None:
    found, place = log_likelihood(nested, posterior_of(place=places()), ROWS), places()[:, :, None, :, None]
    assert found.keys() == {"y + first", "apart"}
    of_group = dist.Normal(place, 1.0).log_prob(ROWS.mT[:, None]).sum(-1)  # (chain, draw, group, component)
    of_group = of_group + dist.Normal(2 * place[..., 0], 1.0).log_prob(ROWS[0][:, None])
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    assert_same(found["y + first"], (of_group + weights.log()).logsumexp(-1))
    assert_same(found["apart"], dist.Normal(place[:, :, 0, :1], 1.0).log_prob(ROWS[:, :1]))


def hidden_markov(y: Tensor) -> None:
    """One chain of states a column of y."""
    place = pyro.sample("place", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    transition, state = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), None
    with pyro.plate("sequences", y.shape[1]):
        for t in pyro.markov(range(len(y))):
            weights = torch.tensor([0.5, 0.5]) if state is None else transition[state]
            state = pyro.sample(f"state{t}", dist.Categorical(weights))
            pyro.sample(f"y{t}", dist.Normal(place[state], 1.0), obs=y[t])


def test_a_sequence_of_hidden_states_is_one_row() -> None:
    found, place = log_likelihood(hidden_markov, posterior_of(place=places()), ROWS), places()
    transition = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    paths = []
    for states in itertools.product(range(2), repeat=4):
        prior = 0.5 * torch.stack([transition[a, b] for a, b in itertools.pairwise(states)]).prod()
        measured = [dist.Normal(place[:, :, s, None], 1.0).log_prob(row) for s, row in zip(states, ROWS, strict=True)]
        paths.append(prior.log() + sum(measured))
    assert list(found) == ["y0 + … + y3"]
    assert_same(found["y0 + … + y3"], torch.stack(paths).logsumexp(0))


def test_masks_scales_factors_and_dimensions_without_plates() -> None:
    def model(y: Tensor, weight: Tensor, seen: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 4), poutine.scale(scale=weight), poutine.mask(mask=seen):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        pyro.sample("undeclared", dist.Normal(mu, 2.0), obs=y)
        with pyro.plate("others", 4):
            pyro.factor("by hand", -mu * y)
        pyro.factor("constraint", -mu)
        pyro.deterministic("computed", 2 * mu)

    y, mu = ROWS[:, 0], places()[..., 0]
    weight, seen = torch.tensor([1.0, 2.0, 3.0, 0.5]).double(), torch.tensor([True, True, False, True])
    found = log_likelihood(model, posterior_of(mu=mu), y, weight, seen)
    assert found.keys() == {"y", "undeclared", "by hand"}
    assert_same(found["y"], weight * seen * dist.Normal(mu[..., None], 1.0).log_prob(y))
    assert_same(found["undeclared"], dist.Normal(mu[..., None], 2.0).log_prob(y))
    assert_same(found["by hand"], -mu[..., None] * y)


def test_vectors_and_two_plates() -> None:
    def model(y: Tensor, grid: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 4, dim=-2):
            pyro.sample("y", dist.Normal(mu, 1.0).expand([4, 1, 3]).to_event(1), obs=y[:, None])
            with pyro.plate("columns", 3, dim=-1):
                pyro.sample("grid", dist.Normal(mu, 1.0), obs=grid)

    mu = places()[..., 0]
    found = log_likelihood(model, posterior_of(mu=mu), ROWS, ROWS)
    each = dist.Normal(mu[:, :, None, None], 1.0).log_prob(ROWS)
    assert_same(found["grid"], each)
    assert_same(found["y"], each.sum(-1, keepdim=True))


def test_names_with_a_slash_and_parameters() -> None:
    @scope(prefix="part")
    def model(y: Tensor) -> None:
        sd = pyro.param("sd", torch.tensor(1.0), constraint=dist.constraints.positive)
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, sd), obs=y)

    y, mu = ROWS[:, 0], places()[..., 0]
    found = log_likelihood(model, posterior_of({"sd": torch.tensor(2.0)}, **{"part/mu": mu}), y)
    assert_same(found["part/y"], dist.Normal(mu[..., None], 2.0).log_prob(y), 1e-6)  # sd is in float32


def test_the_computed_site_of_a_reparameterisation_follows_its_draws() -> None:
    model = poutine.reparam(schools.centred, config={"theta": pyro.infer.reparam.LocScaleReparam(0.0)})
    draws = {"mu": torch.ones(1, 2), "tau": torch.full((1, 2), 2.0), "theta_decentered": torch.ones(1, 2, 8)}
    found = log_likelihood(model, posterior_of(**draws), schools.ERROR, schools.EFFECT)["effect"]
    expected = dist.Normal(3.0, schools.ERROR.double()).log_prob(schools.EFFECT).expand(1, 2, 8)
    assert_same(found, expected, 1e-6)


def test_a_model_without_latent_sites_has_one_draw() -> None:
    def model(y: Tensor) -> None:
        mu = pyro.param("mu", torch.tensor(0.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    found = log_likelihood(model, posterior_of({"mu": torch.tensor(2.0)}), ROWS[:, 0])
    assert_same(found["y"], dist.Normal(2.0, 1.0).log_prob(ROWS[:, 0])[None, None])


def test_mistakes_are_said_in_a_sentence() -> None:
    x, y = linear.data()
    w = linear.posterior(x, y).sample((1, 5))
    with pytest.raises(ValueError, match="log_likelihood: the posterior has no draws of site 'w'"):
        log_likelihood(linear.model, posterior_of(v=w), x, y)
    with pytest.raises(ValueError, match=r"draws of site 'w' have shape \(3,\), and in the model \(2,\)"):
        log_likelihood(linear.model, posterior_of(w=w), x[:, :2], y)
    with pytest.raises(ValueError, match="the model observes nothing: give the data"):
        log_likelihood(linear.model, posterior_of(w=w, y=torch.zeros(1, 5, 60)), x)
