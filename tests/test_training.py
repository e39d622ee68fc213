"""A training life: warm starts, callbacks, optimisers with arguments, chains that go on, guides at new rows."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoDiagonalNormal, AutoIAFNormal
from torch import Tensor
from zoo import linear

from guidebook.guides import flow, full_rank, laplace, low_rank, map_point, mean_field
from guidebook.inference import Posterior, apply_guide, gibbs, hmc, mcem, metropolis, nuts, pathfinder, svi
from guidebook.inference.diagnostics import mcse, r_hat
from guidebook.models import GibbsSteps

DATA = linear.data()
EXACT = linear.posterior(*DATA)
MEAN, COVARIANCE = EXACT.mean, EXACT.covariance_matrix
SDS = COVARIANCE.diagonal().sqrt()
X = 50 + torch.randn(20, generator=torch.Generator().manual_seed(0)).double()
pytestmark = pytest.mark.filterwarnings("ignore:.*(have not mixed|never moved)")  # chains are short here
fit = partial(svi, engine="eager", progress=False)
stay: dict[str, Any] = {"num_steps": 1, "lr": 1e-9, "optim": torch.optim.Adam}  # where it starts, it ends


def exact_posterior() -> Posterior:
    """Draws of the linear model's exact posterior, as if by a sampler."""
    draws = EXACT.sample(torch.Size([4000]))
    made_by = pathfinder(linear.model, *DATA, num_paths=1, num_draws=4, progress=False)
    return Posterior(draws={"w": draws[None]}, info=made_by.info)


# Warm start


@pytest.mark.parametrize("family", [mean_field, low_rank, full_rank, flow, AutoDiagonalNormal])
def test_a_family_starts_with_the_mean_and_the_spread_of_draws(family: Any) -> None:
    torch.manual_seed(0)
    started = fit(linear.model, family, *DATA, init=exact_posterior(), num_draws=4000, **stay).draws["w"]
    assert ((started.mean((0, 1)) - MEAN).abs() < 0.1 * SDS).all()
    assert ((started.std((0, 1)) / SDS).log().abs() < 0.07).all()
    if family in (full_rank, flow):
        assert torch.allclose(started[0].T.cov(), COVARIANCE, atol=0.08 * float(COVARIANCE.diagonal().max()))


@pytest.mark.parametrize("family", [laplace, map_point])
def test_points_start_at_the_mean_of_draws(family: Any) -> None:
    torch.manual_seed(0)
    started = fit(linear.model, family, *DATA, init=exact_posterior(), num_draws=2000, **stay).draws["w"]
    assert ((started.mean((0, 1)) - MEAN).abs() < 0.1 * SDS).all()


def test_positive_sites_start_on_the_unconstrained_scale() -> None:
    def model(x: Tensor) -> None:
        sd = pyro.sample("sd", dist.LogNormal(x.new_tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(50.0, sd).expand([len(x)]).to_event(1), obs=x)

    first = pathfinder(model, X, progress=False)
    logs = first.draws["sd"].log()
    for family in (mean_field, full_rank):
        started = fit(model, family, X, init=first, num_draws=4000, **stay).draws["sd"].log()
        assert float(started.mean()) == pytest.approx(float(logs.mean()), abs=0.02)
        assert float(started.std()) == pytest.approx(float(logs.std()), rel=0.07)
    assert float(fit(model, map_point, X, init=first, **stay).draws["sd"].log()) == pytest.approx(float(logs.mean()))


@pytest.mark.parametrize("family", [full_rank, flow, AutoIAFNormal])
def test_the_same_guide_starts_where_it_ended(family: Any) -> None:
    first = fit(linear.model, family, *DATA, num_steps=30, num_draws=50)
    for init in (first, first.params):
        again = fit(linear.model, family, *DATA, init=init, **stay)
        assert again.params.keys() == first.params.keys()
        for name, value in first.params.items():
            torch.testing.assert_close(again.params[name], value, atol=1e-6, rtol=1e-5)


def learns(x: Tensor) -> None:
    scale = pyro.param("scale", x.new_tensor(1.0), constraint=constraints.positive)
    mu = pyro.sample("mu", dist.Normal(x.new_tensor(0.0), 100.0))
    pyro.sample("x", dist.Normal(mu, scale).expand([len(x)]).to_event(1), obs=x)


def test_parameters_of_the_model_start_there_too() -> None:
    first = fit(learns, mean_field, X, num_steps=5, lr=0.5)
    assert float(first.params["scale"]) != 1.0
    for guide in (mean_field, full_rank):  # the same guide, and one that gets its draws
        again = fit(learns, guide, X, init=first, **stay)
        torch.testing.assert_close(again.params["scale"], first.params["scale"])


def by_hand(x: Tensor) -> None:
    loc = pyro.param("loc", x.new_tensor(0.0))
    pyro.sample("mu", dist.Normal(loc, pyro.param("sd", x.new_tensor(1.0), constraint=constraints.positive)))


@pytest.mark.parametrize(
    ("guide", "init", "words"),
    [
        (by_hand, {"loc": torch.tensor(1.0)}, r"^svi: parameter 'sd' has no value: there is loc$"),
        (by_hand, {"loc": torch.ones(2), "sd": torch.tensor(1.0)}, r"^svi: parameter 'loc' has shape \(\) here"),
        (
            by_hand,
            {"loc": torch.tensor(1.0), "sd": torch.tensor(-1.0)},
            r"^svi: the value of parameter 'sd' is not fin",
        ),
        (by_hand, "draws", "^svi: by_hand has no mean and spread that draws could give"),
        (mean_field, "others", "^svi: the posterior has no draws of site 'mu'"),
    ],
)
def test_what_cannot_be_a_start_is_said(guide: Any, init: Any, words: str) -> None:
    if init == "others":
        init = exact_posterior()
    elif init == "draws":
        init = pathfinder(learns, X, params={"scale": torch.tensor(1.0)}, progress=False)
    with pytest.raises(ValueError, match=words):
        fit(learns, guide, X, init=init, num_steps=2)


# Callback


def test_a_callback_hears_of_the_fit_and_may_end_it() -> None:
    heard: list[tuple[int, float, dict[str, Tensor]]] = []

    def until(last: int, step: int, loss: float, params: dict[str, Tensor]) -> bool:
        heard.append((step, loss, params))
        return step >= last

    ended = fit(learns, by_hand, X, num_steps=1000, callback=partial(until, 300))
    steps = [step for step, _, _ in heard]
    assert steps[-1] == len(ended.info.losses) < 1000
    assert steps == sorted(steps)
    assert ended.info.message.startswith(f"ended by the callback after {steps[-1]} steps")
    assert not ended.info.converged
    step, loss, params = heard[-1]
    begin = heard[-2][0] if len(heard) > 1 else 0
    assert loss == pytest.approx(float(ended.info.losses[begin:step].mean()))
    assert set(params) == {"scale", "loc", "sd"}
    for name, value in params.items():  # the last iterate: none had been averaged
        torch.testing.assert_close(value, ended.params[name])

    heard.clear()
    whole = fit(learns, by_hand, X, num_steps=400, callback=partial(until, 10_000))
    assert heard[-1][0] == 400
    assert not whole.info.message.startswith("ended")
    plain = fit(learns, by_hand, X, num_steps=400)
    torch.testing.assert_close(plain.params["loc"], whole.params["loc"])


@pytest.mark.slow
def test_a_callback_ends_compiled_steps() -> None:
    heard: list[dict[str, Tensor]] = []
    how: dict[str, Any] = {"num_steps": 6000, "engine": "compiled", "progress": False}
    ended = svi(learns, by_hand, X, callback=lambda step, _, params: heard.append(params) or step >= 600, **how)
    assert ended.info.engine == "compiled"
    assert len(ended.info.losses) == 600
    for name, value in heard[-1].items():
        torch.testing.assert_close(value, ended.params[name])
    assert float(heard[0]["loc"]) != float(heard[-1]["loc"])


def test_points_by_newtons_method_have_no_callback() -> None:
    with pytest.raises(ValueError, match=r"^svi: a point is fitted by Newton's method or L-BFGS, which call nothing"):
        svi(linear.model, map_point, *DATA, callback=lambda *_: None, progress=False)
    with pytest.raises(ValueError, match=r"^svi: callback must be a function \(step, loss, params\), got int$"):
        fit(linear.model, mean_field, *DATA, callback=3)


# Optimisers with arguments


def test_arguments_of_an_optimiser_are_taken() -> None:
    run = partial(fit, learns, by_hand, X, num_steps=20, lr=0.1)
    default, same, slow = (run(optim=o).info.losses for o in (None, {"betas": (0.9, 0.999)}, {"betas": (0.99, 0.999)}))
    torch.testing.assert_close(default, same)
    assert not torch.allclose(default, slow)
    bound = run(optim=partial(torch.optim.Adam, betas=(0.99, 0.999))).info.losses
    assert torch.equal(slow, bound)
    decayed = run(optim=partial(torch.optim.Adam, weight_decay=5.0)).info.losses  # for which there is no rule
    assert not torch.allclose(default, decayed)
    assert len(mcem(learns, X, optim={"eps": 1e-6}, num_steps=5, progress=False).info.losses) == 5


def test_an_optimiser_without_a_rule_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["guidebook.inference.optim.steps"], "COMPILED_FROM", 20)
    run = partial(svi, learns, by_hand, X, progress=False)
    decayed = partial(torch.optim.Adam, weight_decay=1.0)
    said = "; steps were taken one by one, since Adam(weight_decay=1.0) is none of the optimisers that are compiled"
    assert said in run(num_steps=20, optim=decayed).info.message
    assert "one by one" not in run(num_steps=19, optim=decayed).info.message
    assert "one by one" not in run(num_steps=20, optim=decayed, engine="eager").info.message


@pytest.mark.parametrize(
    ("optim", "words"),
    [
        ({"beta": 0.9}, r"^svi: optim Adam\(beta=0.9\): got an unexpected keyword argument 'beta'$"),
        (partial(torch.optim.SGD, lr=0.1), r"^svi: the step size is an argument of its own: lr=0.1, not in optim$"),
        ({"betas": (1.0, 0.9)}, r"^svi: betas in optim must lie in \[0, 1\), got 1.0$"),
        ("adam", r"^svi: optim must be a class such as torch.optim.Adam, got str$"),
    ],
)
def test_what_is_no_optimiser_is_said(optim: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit(learns, by_hand, X, optim=optim)


# Chains that go on

SAMPLERS: dict[str, Any] = {
    "nuts": (partial(nuts, engine="pyro", num_chains=2, progress=False), 150),
    "hmc": (partial(hmc, num_chains=2, progress=False), 150),
    "metropolis": (partial(metropolis, num_chains=2, thin=10, progress=False), 3000),
}


@pytest.mark.parametrize("name", [*SAMPLERS, pytest.param("xla", marks=pytest.mark.slow)])
def test_chains_go_on_without_warm_up(name: str, tmp_path: Path) -> None:
    if name == "xla":
        pytest.importorskip("numpyro")
    run, warmup = SAMPLERS["nuts" if name == "xla" else name]
    run = partial(run, engine="xla") if name == "xla" else run
    first = run(linear.model, *DATA, num_draws=200, num_warmup=warmup)
    first.save(tmp_path / "first")
    first = Posterior.load(tmp_path / "first")
    more = run(linear.model, *DATA, num_draws=200, num_warmup=0, init=first)
    torch.testing.assert_close(more.info.step_size, first.info.step_size)
    record = "proposal" if name == "metropolis" else "inverse_mass"
    torch.testing.assert_close(getattr(more.info, record), getattr(first.info, record))
    torch.testing.assert_close(first.info.ends, first.draws["w"][:, -1])
    assert more.info.num_warmup == 0
    assert not torch.equal(more.draws["w"], run(linear.model, *DATA, num_draws=200, num_warmup=0, init=more).draws["w"])

    joined = first.append(more)
    w = joined.draws["w"]
    assert torch.equal(w, torch.cat([first.draws["w"], more.draws["w"]], 1))
    assert ((w.mean((0, 1)) - MEAN).abs() < 4 * mcse(w)).all()
    torch.testing.assert_close(joined.info.r_hat["w"], r_hat(w))
    assert (joined.info.ess["w"] > first.info.ess["w"]).all()
    assert joined.info.num_warmup == warmup
    assert joined.info.message.startswith("drew 400 in each of 2 chains, in parts")
    torch.testing.assert_close(joined.info.accept_rate, (first.info.accept_rate + more.info.accept_rate) / 2)
    torch.testing.assert_close(joined.info.ends, more.info.ends)
    if name != "metropolis":
        assert torch.equal(joined.info.divergences, first.info.divergences + more.info.divergences)


def test_a_chain_that_goes_on_is_the_chain() -> None:
    """With draws that do not leave their place, the first draw shows where a chain stood."""
    run = partial(metropolis, linear.model, *DATA, num_chains=1, thin=1, progress=False)
    first = run(num_draws=3, num_warmup=200)
    state = {"w": first.draws["w"][:, -1:]}
    step = run(num_draws=1, num_warmup=0, init=first).draws["w"] - state["w"]
    scale = first.info.step_size[0] * first.info.proposal[0].square().sum(-1).sqrt()
    assert (step.abs() < 5 * scale).all()


@pytest.mark.parametrize(
    ("method", "init", "words"),
    [
        (
            nuts,
            "pathfinder",
            r"^nuts: num_warmup=0 goes on with chains of nuts, and init is by pathfinder: give num_wa",
        ),
        (hmc, "metropolis", r"^hmc: num_warmup=0 goes on with chains of hmc, and init is by metropolis"),
        (metropolis, "three", r"^metropolis: init has 1 chains, and num_chains is 3$"),
        (metropolis, "other", r"^metropolis: init has chains in 3 dimensions, and the model has 1$"),
        (nuts, None, r"^nuts: num_warmup must be at least 1, got 0$"),
    ],
)
def test_chains_that_cannot_go_on_say_so(method: Any, init: str | None, words: str) -> None:
    quiet: dict[str, Any] = {"progress": False}
    start = (
        metropolis(linear.model, *DATA, num_draws=20, num_warmup=50, thin=1, num_chains=1, **quiet) if init else None
    )
    if init == "pathfinder":
        start = exact_posterior()
    model, data = (only_mu, (X,)) if init == "other" else (linear.model, DATA)
    with pytest.raises(ValueError, match=words):
        method(model, *data, num_draws=5, num_warmup=0, num_chains=3 if init == "three" else 1, init=start, **quiet)


def only_mu(x: Tensor) -> None:
    pyro.sample("mu", dist.Normal(x.new_tensor(0.0), 1.0))


def test_draws_of_different_runs_are_not_joined() -> None:
    run = partial(metropolis, num_warmup=100, thin=1, progress=False)
    one = run(linear.model, *DATA, num_draws=20, num_chains=1)
    with pytest.raises(ValueError, match=r"^append: .* are by metropolis and pathfinder$"):
        one.append(exact_posterior())
    with pytest.raises(
        ValueError, match=r"^append: the two runs have not the same sites, shapes and number of chains$"
    ):
        one.append(run(only_mu, X, num_draws=20, num_chains=1))


def test_gibbs_goes_on_with_its_hidden_state(tmp_path: Path) -> None:
    def conditional(state: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        return {"hidden": state["hidden"] + 1, "count": state["hidden"] + torch.randn(len(state["hidden"]))}

    steps = GibbsSteps(lambda n, x: {"count": torch.zeros(n), "hidden": torch.zeros(n)}, (conditional,), ("count",))
    run = partial(gibbs, steps, torch.zeros(1), num_chains=2, progress=False)
    first = run(num_draws=40, num_warmup=10)
    first.save(tmp_path / "first")
    more = run(num_draws=40, num_warmup=0, init=Posterior.load(tmp_path / "first"))
    assert more.info.state["hidden"].tolist() == [90.0, 90.0]
    assert not torch.equal(more.draws["count"] - 40, first.draws["count"])
    assert first.append(more).draws["count"].shape == (2, 80)
    with pytest.raises(ValueError, match=r"^gibbs: init has 2 chains, and num_chains is 4$"):
        run(num_chains=4, num_warmup=0, init=first)
    with pytest.raises(ValueError, match=r"^gibbs: init must be a posterior by gibbs, of this version; it is by path"):
        run(num_warmup=0, init=exact_posterior())


# New rows


def codes(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def encoder(x: Tensor) -> None:
    """The posterior is Normal(.8 x, .2), a variance of .2."""
    slope = pyro.param("slope", x.new_tensor(0.1))
    scale = pyro.param("spread", x.new_tensor(0.2).sqrt(), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(slope * x, scale))


def test_an_encoder_is_applied_to_new_rows() -> None:
    x = torch.randn(40, generator=torch.Generator().manual_seed(1)).double()
    fitted = {"slope": torch.tensor(0.8), "spread": torch.tensor(0.2).sqrt()}
    new = torch.tensor([-3.0, 0.5, 2.0]).double()
    found = apply_guide(fitted, codes, encoder, new, num_draws=4000)
    assert found.draws["z"].shape == (1, 4000, 3)
    assert ((found.draws["z"].mean((0, 1)) - 0.8 * new).abs() < 4 * mcse(found.draws["z"])).all()
    exact = dist.Normal(0.0, 1.25**0.5).log_prob(new).sum()  # the guide is exact, so that the bound is the evidence
    assert found.info.elbo == pytest.approx(float(exact), abs=1e-4)
    trained = fit(codes, encoder, x, num_steps=200, lr=0.05)
    again = apply_guide(trained, codes, encoder, new)
    assert again.draws["z"].shape == (1, 1000, 3)
    torch.testing.assert_close(again.params["slope"], trained.params["slope"])


def test_a_guide_with_a_value_per_row_is_not_for_new_rows() -> None:
    trained = fit(codes, mean_field, X[:5], num_steps=2)
    with pytest.raises(ValueError, match=r"^apply_guide: parameter 'AutoNormal.locs.z' has shape \(3,\) here, and is"):
        apply_guide(trained, codes, mean_field, X[:3])
    point = svi(learns, laplace, X, progress=False)
    with pytest.raises(ValueError, match=r"^apply_guide: Laplace's approximation has no parameters"):
        apply_guide(point, learns, laplace, X)
    other = fit(learns, mean_field, X, num_steps=2)
    same = apply_guide(other, learns, mean_field, X[:3], num_draws=50)
    torch.testing.assert_close(same.params["scale"], other.params["scale"])
