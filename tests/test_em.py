"""Expectation maximisation against scikit-learn, and what its loop, and coordinate ascent's, promises of any steps."""

import math
import weakref
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from guidebook.inference import cavi, em
from guidebook.inference.optim.acceleration import MEMORY, Anderson, gained_lately
from guidebook.inference.optim.restarts import State, distance_to_limit, fell
from guidebook.models import Steps, gmm, mixture

THEIRS = {"full": "full", "tied": "tied", "diagonal": "diag", "isotropic": "spherical"}


def precisions(covariance: torch.Tensor, kind: str) -> np.ndarray:
    if kind in ("full", "tied"):
        inverse = torch.linalg.inv(covariance).numpy()
        return inverse if kind == "full" else inverse[0]
    return (1 / covariance).numpy()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", THEIRS)
@pytest.mark.parametrize("restart", [0, 1])
def test_every_iterate_equals_scikit_learn(iris: torch.Tensor, kind: str, restart: int) -> None:
    torch.manual_seed(restart)
    steps = gmm.em_steps(3, kind)
    params = steps.init(restart, iris)
    theirs = GaussianMixture(
        3,
        covariance_type=THEIRS[kind],
        reg_covar=0,
        max_iter=1,
        tol=0,
        warm_start=True,
        weights_init=params["weights"].numpy(),
        means_init=params["loc"].numpy(),
        precisions_init=precisions(params["covariance"], kind),
    )
    for _ in range(40):
        expectations = steps.e_step(params, iris)
        params = steps.m_step(expectations, iris)
        theirs.fit(iris.numpy())
        ours = {name: value.numpy() for name, value in params.items()}
        np.testing.assert_allclose(ours["weights"], theirs.weights_, atol=1e-8)
        np.testing.assert_allclose(ours["loc"], theirs.means_, atol=1e-8)
        np.testing.assert_allclose(ours["covariance"].squeeze(), theirs.covariances_.squeeze(), atol=1e-8)
        np.testing.assert_allclose(float(expectations.objective) / len(iris), theirs.lower_bound_, atol=1e-8)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", THEIRS)
def test_restarts_find_an_optimum_at_least_as_good_as_scikit_learn(iris: torch.Tensor, kind: str) -> None:
    restarts = 20
    ours = em(gmm.em_steps(3, kind), iris, num_restarts=restarts)
    assert ours.info.converged
    best = -np.inf
    degenerate = gmm.em_steps(3, kind).degenerate
    for seed in range(restarts):
        theirs = GaussianMixture(
            3, covariance_type=THEIRS[kind], reg_covar=0, tol=1e-12, max_iter=5000, random_state=seed
        )
        try:
            theirs.fit(iris.numpy())
        except ValueError:  # a covariance collapsed
            continue
        covariance = torch.tensor(theirs.covariances_)
        params = {
            "weights": torch.tensor(theirs.weights_),
            "loc": torch.tensor(theirs.means_),
            "covariance": covariance[None] if kind == "tied" else covariance,
        }
        if degenerate(params, gmm.em_steps(3, kind).e_step(params, iris), iris) is None:
            best = max(best, theirs.score(iris.numpy()) * len(iris))
    assert ours.info.log_likelihood >= best - 1e-6


def test_published_optimum_of_iris(iris: torch.Tensor) -> None:
    """Three full covariances on iris: -180.185, the optimum that mclust and scikit-learn report."""
    assert em(gmm.em_steps(3), iris).info.log_likelihood == pytest.approx(-180.185, abs=1e-3)


def test_objective_never_falls_and_ends_at_a_stationary_point(iris: torch.Tensor) -> None:
    posterior = em(gmm.em_steps(3), iris)
    curve = posterior.info.objective
    assert (curve.diff() >= -1e-9 * curve[:-1].abs()).all()
    loc = posterior.params["loc"].clone().requires_grad_()
    value = gmm.log_joint({**posterior.params, "loc": loc}, iris).logsumexp(-1).sum()
    (gradient,) = torch.autograd.grad(value, loc)
    assert gradient.abs().max() < 1e-2  # hundreds at the start; limited by tol
    assert posterior.draws["loc"].shape == (1, 1, 3, 4)


def test_degenerate_restarts_are_set_aside_and_said_so() -> None:
    """Thirty rows for four full covariances in three dimensions: some components shrink onto three rows."""
    torch.manual_seed(0)
    x = torch.randn(30, 3, dtype=torch.float64)
    posterior = em(gmm.em_steps(4), x, num_restarts=30)
    flawed = [optimum for optimum in posterior.info.optima if optimum["degenerate"]]
    assert flawed
    assert "set aside as degenerate" in posterior.info.message
    assert max(optimum["objective"] for optimum in flawed) > posterior.info.log_likelihood  # higher, and still refused
    assert sum(optimum["restarts"] for optimum in posterior.info.optima) == 30


def test_nothing_but_degenerate_restarts_is_an_error() -> None:
    x = torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]], dtype=torch.float64)
    with pytest.raises(ArithmeticError, match="none of 1 restarts reached an optimum"):
        em(gmm.em_steps(2), x, num_restarts=1)


def test_a_wrong_m_step_is_caught(iris: torch.Tensor) -> None:
    steps = gmm.em_steps(3)
    wrong = steps._replace(m_step=lambda e, x: steps.m_step(e, x) | {"loc": steps.m_step(e, x)["loc"] + 0.3})
    with pytest.raises(ArithmeticError, match="the objective fell"):
        em(wrong, iris)


class Seen(NamedTuple):
    """Expectations of the scripted steps."""

    restart: torch.Tensor
    iteration: torch.Tensor


def scripted(*curves: list[float], degenerate_from: int = 10**6, drop: float = 0.0) -> Steps:
    """Steps whose objective follows a script, one curve per restart; an M-step lowers it by ``drop``."""
    table = torch.tensor(curves, dtype=torch.float64)

    def init(restart: int, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"restart": torch.tensor(restart), "iteration": torch.tensor(0)}

    def e_step(params: dict[str, torch.Tensor], x: torch.Tensor) -> Seen:
        return Seen(params["restart"], params["iteration"])

    def m_step(expectations: Seen, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"restart": expectations.restart, "iteration": expectations.iteration + 1}

    def objective(params: dict[str, torch.Tensor], expectations: Seen) -> torch.Tensor:
        value = table[params["restart"], expectations.iteration.clamp(max=table.shape[1] - 1)]
        return torch.where(params["iteration"] == expectations.iteration, value, value - drop)

    def degenerate(params: dict[str, torch.Tensor], expectations: Seen, x: torch.Tensor) -> str | None:
        is_so = int(params["restart"]) == 0 and int(params["iteration"]) >= degenerate_from
        return "a script says so" if is_so else None

    return Steps(init, e_step, m_step, objective, degenerate, batched=True, draw=lambda params, n: {"z": torch.ones(n)})


ANY = torch.zeros(1)


@pytest.mark.parametrize(("method", "where"), [(em, "iteration 3"), (cavi, "its E-step")])
def test_an_objective_may_fall_by_rounding_and_no_more(method, where: str) -> None:
    """By 1e-9 of itself: 1e-6 of a thousand."""
    rising = [-1000.0, -999.5, -999.2]
    options = {"num_restarts": 1, "num_steps": 4, "tol": 1e-12}
    assert method(scripted([*rising, -999.2 - 0.9e-6]), ANY, **options).info.objective[-1] == -999.2 - 0.9e-6
    with pytest.raises(ArithmeticError, match=f"the objective fell from -999.2 to -999.200001 in {where}"):
        method(scripted([*rising, -999.2 - 1.1e-6]), ANY, **options)
    assert not fell(-1000.0, -1000.0 - 0.99e-6)
    assert fell(-1000.0, -1000.0 - 1.02e-6)
    assert fell(0.0, -1.1e-9)


def test_coordinate_ascent_checks_the_bound_after_each_half() -> None:
    curve = [-10.0, -9.0, -8.9, -8.89]
    cavi(scripted(curve, drop=0.9e-8), ANY, num_restarts=1, num_steps=3)
    with pytest.raises(ArithmeticError, match=r"^cavi: the objective fell from -10 to -10\.001 in its M-step"):
        cavi(scripted(curve, drop=1e-3), ANY, num_restarts=1, num_steps=3)
    em(scripted(curve, drop=1e-3), ANY, num_restarts=1)  # for EM it is defined after the E-step alone


@pytest.mark.parametrize("method", [em, cavi])
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_it_stops_where_the_limit_is_closer_than_the_tolerance(method, tol: float) -> None:
    """Of a geometric sequence Aitken's extrapolation gives the limit, and so the iteration to stop at."""
    rate, limit = 0.8, -50.0
    curve = [limit - 3 * rate**n for n in range(200)]
    last = next(n for n in range(200) if 3 * rate**n < tol)
    info = method(scripted(curve), ANY, num_restarts=1, tol=tol).info
    assert len(info.objective) == last + 1
    assert info.converged
    assert f"level within {tol:g} nats" in info.message
    assert distance_to_limit(curve[:8]) == pytest.approx(limit - curve[7])
    assert distance_to_limit([0.0, 1.0, 2.0]) == math.inf  # not converging
    assert distance_to_limit([0.0, 1.0]) == math.inf


@pytest.mark.parametrize("method", [em, cavi])
def test_the_number_of_steps_and_of_restarts_is_kept(method) -> None:
    curves = [[-100.0 * (k + 1) / (n + 1) for n in range(50)] for k in (2, 0, 1)]
    info = method(scripted(*curves), ANY, num_steps=7, num_restarts=3).info
    assert info.objective.tolist() == curves[1][:8]  # the start, and seven iterations
    assert info.message.startswith("7 iterations were not enough: take more")
    assert [optimum["restarts"] for optimum in info.optima] == [1, 1, 1]
    assert len(method(scripted(*curves), ANY, num_steps=7, num_restarts=2).info.optima) == 2


def test_restarts_that_have_ended_leave_the_batch_and_the_others_go_on() -> None:
    flat = [[-float(k)] * 3 for k in (7, 5)]
    rising = [-10.0, -9.0, -8.9, -8.89, -4.0, -3.0, -2.9, -2.89]
    steps, sizes = scripted(*[[*curve, *[curve[-1]] * 5] for curve in flat], rising), []

    def m_step(expectations: Seen, x: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(len(expectations.restart))
        return steps.m_step(expectations, x)

    posterior = em(steps._replace(m_step=m_step), ANY, num_restarts=3, num_steps=7, tol=1e-9, accelerate=False)
    assert sizes == [3, 3, 1, 1, 1, 1, 1]
    assert posterior.info.objective.tolist() == rising
    assert int(posterior.params["restart"]) == 2
    assert [optimum["objective"] for optimum in posterior.info.optima] == [-2.89, -5.0, -7.0]


@pytest.mark.parametrize(("first", "reason"), [(3, "the objective stopped being a number"), (2, "a script says so")])
def test_an_objective_that_is_not_a_number_ends_its_restart_where_it_still_was_one(first: int, reason: str) -> None:
    """And the parameters of the iteration before, the last with an objective, say whether they are degenerate."""
    curves = [[-9.0, -8.0, -7.0, math.nan], [-20.0, -19.0, -18.0, -18.0]]
    info = em(scripted(*curves, degenerate_from=first), ANY, num_restarts=2).info
    assert info.log_likelihood == -18.0
    assert info.optima[1] == {"objective": -7.0, "restarts": 1, "degenerate": reason}
    with pytest.raises(ArithmeticError, match=r"none of 1 restarts .* because the objective stopped being a number"):
        em(scripted([math.nan, -1.0]), ANY, num_restarts=1)


def test_a_fall_next_to_a_singularity_ends_its_restart_instead() -> None:
    curves = [[-9.0, -8.0, -5.0, -6.0], [-20.0, -19.0, -18.0, -18.0]]
    info = em(scripted(*curves, degenerate_from=2), ANY, num_restarts=2).info
    assert info.log_likelihood == -18.0
    assert info.optima[1] == {"objective": -5.0, "restarts": 1, "degenerate": "a script says so"}
    with pytest.raises(ArithmeticError, match="the objective fell from -5 to -6"):
        em(scripted(*curves), ANY, num_restarts=2)


def test_coordinate_ascent_holds_one_state_at_a_time() -> None:
    """A state can be as large as the data: the last expectations are gone when the next are worked out."""
    made: list[weakref.ref] = []
    alive: list[int] = []

    def e_step(params: dict[str, torch.Tensor], x: torch.Tensor) -> Seen:
        alive.append(sum(one() is not None for one in made))
        value = params["value"] + 1
        made.append(weakref.ref(value))
        return Seen(value, value)

    steps = Steps(
        init=lambda restart, x: {"value": torch.zeros(())},
        e_step=e_step,
        m_step=lambda expectations, x: {"value": expectations.iteration * 1.0},
        objective=lambda params, expectations: -1 / (1 + expectations.iteration.double()),
        draw=lambda params, n: {"z": torch.ones(n)},
    )
    cavi(steps, ANY, num_restarts=1, num_steps=5, tol=1e-12)
    assert alive == [0] * 6


def linear_steps(rate: float) -> Steps:
    """EM that converges linearly to nought, from 1, 2, …: two steps tell where to."""
    return Steps(
        init=lambda restart, x: {"value": torch.tensor([restart + 1.0]).double()},
        e_step=lambda params, x: Seen(params["value"], params["value"]),
        m_step=lambda expectations, x: {"value": rate * expectations.iteration},
        objective=lambda params, expectations: -expectations.iteration.square().sum(-1),
        batched=True,
        accelerate=True,
    )


def test_acceleration_jumps_to_the_limit_of_a_linear_sequence() -> None:
    info = em(linear_steps(0.9), ANY, num_restarts=2).info
    assert info.objective.tolist() == pytest.approx([-1, -(0.9**2), *[0] * (MEMORY + 1)], abs=1e-25)
    assert len(em(linear_steps(0.9), ANY, num_restarts=2, accelerate=False).info.objective) > 30


def test_accelerated_iterations_stop_where_the_last_together_gained_less_than_the_tolerance() -> None:
    assert gained_lately([0.0] * MEMORY) == math.inf
    assert gained_lately([-2.0, -1.0, *[-0.5] * MEMORY]) == 0.5
    assert gained_lately([-1e6 - 1e-8, *[-1e6] * MEMORY]) == 0  # rounding


def test_a_jump_is_refused_where_the_objective_is_lower_there_and_the_memory_begins_anew() -> None:
    """One restart goes from 1 to nought; another, from 8 to 5, about which there is a wall."""

    def e_step(params: dict[str, torch.Tensor]) -> State:
        value = params["value"]
        about, wall = 5 * (value > 3), 10 * ((value > 4) & (value < 6))
        return State(params, Seen(about.double(), value), (-(value - about).square() - wall)[:, 0])

    memory = Anderson()
    state = e_step({"value": torch.tensor([[1.0], [8.0]]).double()})
    for expected in ([0.8, 5 + 3 * 0.8], [0.0, 5 + 3 * 0.8**2]):
        image = state.expectations.restart + 0.8 * (state.params["value"] - state.expectations.restart)
        state = memory.advance(state, {"value": image}, e_step)
        values = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(state.params["value"][:, 0], values, atol=1e-14, rtol=0)
        torch.testing.assert_close(state.expectations.iteration, state.params["value"])
    torch.testing.assert_close(state.objective, -torch.tensor([0.0, 3 * 0.8**2], dtype=torch.float64).square())
    assert all(change[0] != 0 and change[1] == 0 for change in (*memory.points, *memory.steps))


def test_a_jump_leads_away_from_a_saddle() -> None:
    """Steps halve along one direction, and grow by a fifth along the other."""
    rates = torch.tensor([[0.5, 1.2]]).double()

    def e_step(params: dict[str, torch.Tensor]) -> State:
        value = params["value"]
        return State(params, Seen(value, value), (value.square() * torch.tensor([-1.0, 1.0])).sum(1))

    memory = Anderson()
    state = e_step({"value": torch.tensor([[1.0, 0.01]]).double()})
    for _ in range(3):
        state = memory.advance(state, {"value": rates * state.params["value"]}, e_step)
    along, away = state.params["value"][0].tolist()
    assert abs(along) < 0.1
    assert away > 2 * 0.01 * 1.2**3  # twice as far as EM's own steps


def test_acceleration_needs_fewer_iterations_to_the_same_optimum() -> None:
    """A Poisson mixture, whose steps ask for it: an example of Varadhan and Roland (2008), deaths by day, of two."""
    deaths = torch.tensor([162, 267, 271, 185, 111, 61, 27, 8, 3, 1])  # Titterington et al. (1985), Times, 1910-12
    x = torch.repeat_interleave(torch.arange(10.0), deaths).double()[:, None]
    assert mixture.em_steps(2).accelerate
    plain, fast, default = (
        em(mixture.em_steps(2), x, num_restarts=1, accelerate=accelerate, num_steps=5000, tol=1e-9)
        for accelerate in (False, True, None)
    )
    assert len(fast.info.objective) < 0.2 * len(plain.info.objective)  # theirs: 2,000 and more against 40
    assert torch.equal(fast.info.objective, default.info.objective)
    assert fast.info.log_likelihood == pytest.approx(-1989.946, abs=1e-3)  # their table 1
    assert plain.info.log_likelihood == pytest.approx(fast.info.log_likelihood, abs=1e-5)
    assert (fast.info.objective.diff() >= -1e-9 * 2000).all()


def test_acceleration_of_many_restarts_gives_each_what_it_reaches_alone() -> None:
    x = mixture.simulate(200, seed=0)[0]
    together = em(mixture.em_steps(4), x, num_restarts=5, seed=3).info
    more = em(mixture.em_steps(4), x, num_restarts=9, seed=3).info
    assert sum(optimum["restarts"] for optimum in more.optima) == 9
    found = [optimum["objective"] for optimum in more.optima]
    for optimum in together.optima:
        assert min(abs(optimum["objective"] - other) for other in found) < 1e-3
    assert more.log_likelihood >= together.log_likelihood - 1e-5


def test_coordinate_ascent_draws_as_often_as_it_is_told(iris: torch.Tensor) -> None:
    few, many = (cavi(gmm.cavi_steps(3), iris, num_restarts=2, num_draws=n) for n in (7, 4000))
    assert few.draws["loc"].shape == (1, 7, 3, 4)
    mean, sd = many.draws["weights"].mean((0, 1)), many.draws["weights"].std((0, 1))
    alpha = many.params["concentration"]
    assert ((mean - alpha / alpha.sum()).abs() < 5 * sd / 4000**0.5).all()
    with pytest.raises(ValueError, match="cavi: num_draws must be at least 1, got 0"):
        cavi(gmm.cavi_steps(3), iris, num_draws=0)
    with pytest.raises(ValueError, match="cavi: these steps cannot draw from q: take a model's cavi_steps"):
        cavi(gmm.em_steps(3), iris)


@pytest.mark.parametrize("method", [em, cavi])
def test_another_seed_starts_elsewhere(method, iris: torch.Tensor) -> None:
    steps = (gmm.em_steps if method is em else gmm.cavi_steps)(4)
    first, again, other = (method(steps, iris, num_restarts=2, seed=s).info for s in (0, 0, 1))
    assert torch.equal(first.objective, again.objective)
    assert first.objective[0] != other.objective[0]
    assert other.seed == 1


def test_same_seed_same_numbers_and_float32_is_computed_in_float64(iris: torch.Tensor) -> None:
    first, again = (em(gmm.em_steps(3), iris, seed=3, num_restarts=3) for _ in range(2))
    assert torch.equal(first.params["loc"], again.params["loc"])
    shifted = iris + 1e4
    single = em(gmm.em_steps(3), shifted.float(), seed=3, num_restarts=10)
    assert single.params["loc"].dtype == torch.float64
    assert torch.isfinite(single.params["covariance"]).all()


def test_options_out_of_range(iris: torch.Tensor) -> None:
    for options, words in (
        ({"num_steps": 0}, "num_steps"),
        ({"num_restarts": 0}, "num_restarts"),
        ({"tol": 0.0}, "tol"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(ValueError, match=words):
            em(gmm.em_steps(3), iris, **options)


def test_too_few_steps_are_said(iris: torch.Tensor) -> None:
    info = em(gmm.em_steps(3), iris, num_steps=2).info
    assert not info.converged
    assert "take more" in info.message
