"""When gradient steps have settled: iterates of known processes, and posteriors in closed form."""

import math
import sys
import warnings
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor
from zoo import latent, linear

from guidebook import guides
from guidebook.inference import kl_warm_up, svi
from guidebook.inference.optim import stopping
from guidebook.inference.optim.drift import SHORTEST, Trail, error_and_size, largest_sum, remaining_moves
from guidebook.inference.optim.plan import Plan
from guidebook.inference.optim.stopping import AutoPlan, still_falls
from guidebook.inference.traces.moments import Moments, moments_at

DATA = linear.data()
EXACT = linear.posterior(*DATA)
EVEN = torch.arange(65, dtype=torch.float64)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_unit_sds(position: Tensor) -> Moments:
    """The parameters are means, whose sds are one."""
    return Moments(position, torch.ones_like(position), torch.ones_like(position))


def test_random_walks_and_settled_iterates_do_not_drift() -> None:
    """2,000 of each, with steps of very different sizes; at most one in a hundred such sets may show a drift."""
    sizes = torch.linspace(1.0, 0.05, 65, dtype=torch.float64).unsqueeze(1)
    assert not remaining_moves((noise(65, 2000) * sizes).cumsum(0), EVEN).any()
    assert not remaining_moves(noise(65, 2000) * sizes, EVEN).any()


def test_a_drift_below_the_noise_of_its_stretches_is_seen() -> None:
    """Each move has a mean of 1.2 and a standard deviation of 1, and a loss would show nothing."""
    walk = (noise(65, 50) + 1.2).cumsum(0)
    assert (remaining_moves(walk, EVEN) > 30).all()  # half of what it took: at an even pace there is no end in sight


@pytest.mark.parametrize("rate", [0.9, 0.95])
def test_what_is_left_of_a_geometric_approach(rate: float) -> None:
    """From 1 towards 0: the rest is where it is now, and is negligible if it has fallen far."""
    positions = (rate**EVEN).unsqueeze(1)
    torch.testing.assert_close(remaining_moves(positions, EVEN), -positions[-1], rtol=0.02, atol=1e-6)


@pytest.mark.parametrize(("factor", "drifts"), [(0.99, False), (1.01, True)])
def test_the_limit_of_the_self_normalised_sum(factor: float, drifts: bool) -> None:
    """Moves of m + e and m - e in turn: their sum is 64 m, and the root of their squares' is 8 (m² + e²)^½."""
    limit = factor * largest_sum(1)
    assert largest_sum(1) == pytest.approx(math.sqrt(2 * math.log(200)))
    m = 1.0
    e = math.sqrt((8 * m / limit) ** 2 - m**2)
    moves = m + e * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(32)
    positions = torch.cat([torch.zeros(1).double(), moves.cumsum(0)]).unsqueeze(1)
    assert bool(remaining_moves(positions, EVEN).any()) == drifts


def test_error_and_effective_size_of_an_autoregression() -> None:
    """x' = .5 x + e: the variance of the mean of n is (1 + .5) / (1 - .5) / n of the variance 1 / (1 - .5²)."""
    x, path = noise(400) / math.sqrt(0.75), []
    for step in noise(200, 400, seed=1):
        x = 0.5 * x + step
        path.append(x)
    errors, sizes = error_and_size(torch.stack(path))
    assert float(errors.mean()) == pytest.approx(math.sqrt(3 / 200 / 0.75), rel=0.1)
    assert float(sizes.mean()) == pytest.approx(200 / 3, rel=0.15)
    _, walks = error_and_size(noise(32, 400).cumsum(0))
    assert float(walks.quantile(0.95)) < stopping.MIN_SIZE < float(error_and_size(noise(32, 400))[1].quantile(0.05))


def test_a_trail_keeps_positions_equally_far_apart() -> None:
    trail, steps = Trail(SHORTEST), 0
    while steps < 20_000:
        count = min(7, trail.left)
        steps += count
        trail.add(torch.tensor([float(steps)]), torch.full((count,), 0.5))
    positions, times = trail.last(50)
    assert positions.diff(dim=0).unique().tolist() == [trail.every]
    assert trail.every > SHORTEST
    torch.testing.assert_close(times, 0.5 * positions[:, 0])


@pytest.mark.parametrize(("fall", "falls"), [(0.009, False), (0.011, True)])
def test_the_least_fall_of_a_loss(fall: float, falls: bool) -> None:
    losses = torch.cat([torch.full((320,), fall), torch.zeros(320)]).double() + 1e-6 * noise(640)
    assert still_falls(losses, 64) == falls
    assert not still_falls(losses + noise(640), 64)  # within noise


def run(plan, position, losses=lambda steps: torch.zeros(len(steps)).double()) -> int:
    """Take the steps of a plan: ``position`` is a function of the sizes of the steps in a block."""
    while (block := plan.next(200)) is not None:
        plan.note(position(block.rates), losses(block.rates))
    return plan.done


class Walker:
    """x' = x - rate · pull(x) + rate · noise, as Adam moves parameters whose sd is one."""

    def __init__(self, pull, start: list[float], seed: int = 0) -> None:
        self.x, self.pull, self.taken = torch.tensor(start).double(), pull, 0
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, rates: Tensor) -> Tensor:
        shocks = torch.randn(len(rates), len(self.x), generator=self.generator, dtype=torch.float64)
        for rate, shock in zip(rates, shocks, strict=True):
            self.taken += 1
            self.x = self.x + rate * (self.pull(self.x) + shock)
        return self.x


def home(x: Tensor) -> Tensor:
    return -x.clamp(-1, 1)


@pytest.mark.parametrize(("start", "arrives"), [(1.0, True), (100.0, False)])
def test_steps_of_given_number_are_judged_by_their_end(start: float, arrives: bool) -> None:
    """15,000 steps of .01 carry a parameter some 67 sds at most, as far as the decaying ones count."""
    plan = Plan(0.01, 15_000, in_unit_sds)
    assert run(plan, Walker(home, [start])) == 15_000
    converged, message = plan.result()
    assert converged == arrives
    assert ("take more steps" in message) != arrives


def test_steps_stop_by_themselves_when_the_iterates_are_stationary() -> None:
    near, far = AutoPlan(0.01, in_unit_sds), AutoPlan(0.01, in_unit_sds)
    few, many = run(near, Walker(home, [0.0])), run(far, Walker(home, [30.0]))
    assert few < many  # from 30 sds away it takes 3,000 steps to get there
    assert many > 4500
    for plan, walker_steps in ((near, few), (far, many)):
        converged, message = plan.result()
        assert converged
        assert message.startswith(f"stopped after {walker_steps:,} steps: ")


def test_steps_seldom_stop_on_a_plateau() -> None:
    """No pull at all for long, then one: four parameters wander meanwhile, and the loss is level."""
    ended = []
    for seed in range(10):
        walker = Walker(home, [0.0] * 4, 1000 * seed)
        walker.pull = lambda x, walker=walker: torch.zeros(4) if walker.taken < 2000 else -(x - 5).clamp(-1, 1)
        plan = AutoPlan(0.01, in_unit_sds)
        run(plan, walker)
        assert plan.result()[0]
        ended.append(float((walker.x - 5).abs().max()) < 0.5)
    assert sum(ended) >= 9


def test_parameters_that_never_move_have_not_settled() -> None:
    plan = AutoPlan(0.01, in_unit_sds, ceiling=2000)
    assert run(plan, lambda rates: torch.zeros(3).double()) == 2000
    converged, message = plan.result()
    assert not converged
    assert message.startswith("stopped at the ceiling of 2,000 steps before ")


def test_the_ceiling_says_what_is_left() -> None:
    plan = AutoPlan(0.01, in_unit_sds, ceiling=3000)
    assert run(plan, Walker(home, [1000.0])) == 3000
    converged, message = plan.result()
    assert not converged
    assert "drifting" in message
    assert "take more steps, by num_steps, or a larger lr" in message


def test_a_loss_that_changes_is_waited_for() -> None:
    short, long = (AutoPlan(0.01, in_unit_sds, wait=wait) for wait in (0, 3000))
    run(short, Walker(home, [0.0]))
    assert run(long, Walker(home, [0.0])) >= 3000 + (1 + stopping.DECAY) * stopping.FIRST > short.done / 3
    assert kl_warm_up(700).changes == 700


def test_moments_are_measured_in_the_guides_sds() -> None:
    """Moving the location by .03 moves the means by as much, and leaves the parameters as they were."""
    with pyro.get_param_store().scope():
        guide = guides.full_rank(linear.model)
        guide(*DATA)
        leaves = list(guide.parameters())
        before = [leaf.detach().clone() for leaf in leaves]
        measure = moments_at(guide, DATA, leaves)
        here = torch.cat([leaf.detach().reshape(-1) for leaf in leaves])
        start = measure(here)
        sizes = [leaf.numel() for leaf in leaves]
        moved = torch.cat(
            [value + (0.03 if leaf is guide.loc else 0) for value, leaf in zip(here.split(sizes), leaves, strict=True)]
        )
        found = measure(moved)
        torch.testing.assert_close(found.mean - start.mean, torch.full((3,), 0.03).double())
        torch.testing.assert_close(found.sd, start.sd)
        assert torch.equal(found.unit, found.sd)
        assert all(torch.equal(leaf, value) for leaf, value in zip(leaves, before, strict=True))


def normal(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    scale = pyro.sample("scale", dist.HalfNormal(5.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, scale), obs=x)


@pytest.mark.parametrize("num_steps", [15_000, "auto", 60_000])
def test_a_normal_sample_has_converged(num_steps) -> None:
    posterior = svi(normal, guides.mean_field, 3 + noise(40), num_steps=num_steps, progress=False)
    assert posterior.info.converged
    assert "drifting" not in posterior.info.message


def test_a_regression_far_from_unit_scale_has_not() -> None:
    """A slope of 2,500 with an sd of 300: 15,000 steps of .01 cannot get there, but for a family in unit scale."""
    x = noise(50)
    y = 2500 * x + 2000 * noise(50, seed=1)

    def model(x: Tensor, y: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1e5))
        scale = pyro.sample("scale", dist.HalfNormal(1e5))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(slope * x, scale), obs=y)

    with pytest.warns(UserWarning, match="still drifting .* take more steps"):
        posterior = svi(model, AutoNormal(model), x, y, num_steps=15_000, progress=False)
    assert not posterior.info.converged
    assert float(posterior.draws["slope"].mean()) < 1000
    posterior = svi(model, guides.mean_field, x, y, num_steps=4000, progress=False)
    assert posterior.info.converged
    assert abs(float(posterior.draws["slope"].mean()) - 2500) < 900


@pytest.mark.parametrize("guide", [guides.mean_field, guides.full_rank])
def test_the_automatic_answer_is_the_exact_one(guide) -> None:
    posterior = svi(linear.model, guide, *DATA, num_draws=20_000, progress=False)
    assert posterior.info.engine == "compiled"
    assert posterior.info.converged
    assert posterior.info.message.startswith(f"stopped after {len(posterior.info.losses):,} steps: ")
    assert len(posterior.info.losses) < 20_000
    w = posterior.draws["w"][0]
    sd = EXACT.stddev if guide is guides.full_rank else EXACT.precision_matrix.diagonal().rsqrt()
    assert ((w.mean(0) - EXACT.mean) / sd).abs().max() < 0.10
    assert (w.std(0) / sd - 1).abs().max() < 0.10


def test_both_engines_stop_and_agree() -> None:
    eager, compiled = (
        svi(linear.model, guides.mean_field, *DATA, engine=engine, lr=0.03, num_draws=10_000, progress=False)
        for engine in ("eager", "compiled")
    )
    assert (eager.info.engine, compiled.info.engine) == ("eager", "compiled")
    assert eager.info.converged
    assert compiled.info.converged
    sd = compiled.draws["w"][0].std(0)
    shift = eager.draws["w"][0].mean(0) - compiled.draws["w"][0].mean(0)
    assert (shift / sd).abs().max() < 0.2  # each is within .1 of the long-run answer


def test_minibatches_stop_by_themselves() -> None:
    x, y = linear.data(rows=500)
    posterior = svi(linear.model, guides.full_rank, x, y, batch_size=100, progress=False)
    exact = linear.posterior(x, y)
    assert posterior.info.converged
    assert ((posterior.draws["w"][0].mean(0) - exact.mean) / exact.stddev).abs().max() < 0.25


def test_steps_in_turn_stop_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["guidebook.inference.optim.steps"], "AutoPlan", partial(AutoPlan, ceiling=8000))
    x = latent.data(40)
    posterior = svi(latent.model, latent.encoder, x, lr=0.05, alternate=5, num_draws=100, progress=False)
    assert posterior.info.message.startswith("stopped after ")
    assert float(posterior.params["centre"]) == pytest.approx(float(x.mean()), abs=0.1)


def test_a_saddle_is_left_behind() -> None:
    """y = a b: at a = b = 0, where it starts, every direction but two is uphill."""
    zero = {"init": lambda: torch.tensor(0.0)}

    def model(y: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0), infer=zero)
        b = pyro.sample("b", dist.Normal(0.0, 1.0), infer=zero)
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(a * b, 1.0), obs=y)

    posterior = svi(model, guides.mean_field, torch.full((20,), 1.5), progress=False)
    product = posterior.draws["a"] * posterior.draws["b"]
    assert float(product.mean()) == pytest.approx(1.4, abs=0.15)


def test_num_steps_is_a_number_or_auto() -> None:
    with pytest.raises(ValueError, match="svi: num_steps must be \"auto\" or a number, got 'many'"):
        svi(linear.model, guides.mean_field, *DATA, num_steps="many", progress=False)


def test_points_keep_their_own_rule() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert svi(linear.model, guides.map_point, *DATA, progress=False).info.engine == "Newton"
        posterior = svi(linear.model, guides.map_point, *DATA, optim=torch.optim.Adam, progress=False)
    assert posterior.info.converged
    torch.testing.assert_close(posterior.draws["w"][0, 0], EXACT.mean, rtol=1e-2, atol=1e-2)
