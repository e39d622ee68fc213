"""`check`: a posterior's own draws, moved by short chains, tell how wrong they are. Answers are closed forms."""

import html
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import constraints

from guidebook.guides import mean_field
from guidebook.inference import Check, Posterior, svi
from guidebook.inference import check as check_with_a_bar
from guidebook.inference.advice import for_chains_that_move
from guidebook.inference.info import ClosedFormInfo, Info
from guidebook.inference.mcmc.beside_chains import is_clear, judge_moved, sentence
from guidebook.inference.mcmc.moments import Moments, moments
from guidebook.inference.mcmc.moved import WINDOWS, Moved, move_draws
from guidebook.inference.mcmc.short_chains import ShortChains, metric_of_states
from guidebook.inference.progress import Progress
from guidebook.inference.traces.target import VectorTarget
from guidebook.inference.traces.trained import prepare_at

check = partial(check_with_a_bar, progress=False)

ROOT = torch.tensor([[1.0, 0, 0], [0.9, 0.3, 0], [-20.0, 5.0, 30.0]], dtype=torch.float64)
COVARIANCE = ROOT @ ROOT.T
MEAN = torch.tensor([1.0, -2.0, 50.0], dtype=torch.float64)
SHAPE, RATE = 6.0, 2.0


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def normal_and_gamma() -> None:
    """A posterior known in closed form: correlated on several scales, and skewed."""
    pyro.sample("z", dist.MultivariateNormal(MEAN, scale_tril=ROOT))
    pyro.sample("rate", dist.Gamma(SHAPE, RATE))


TRUE_MEAN = torch.cat([MEAN, torch.tensor([SHAPE / RATE], dtype=torch.float64)])
TRUE_SD = torch.cat([COVARIANCE.diagonal().sqrt(), torch.tensor([SHAPE**0.5 / RATE], dtype=torch.float64)])


def posterior(draws: dict[str, Tensor], params: dict[str, Tensor] | None = None, **record: object) -> Posterior:
    """Return draws (draw, *site) as a posterior."""
    fields = {"method": "fast", "seed": 0, "seconds": 0.0, "converged": True, "message": "made by hand"} | record
    return Posterior(draws={n: v[None] for n, v in draws.items()}, params=params or {}, info=Info(**fields))


def exact_draws(count: int = 2000) -> dict[str, Tensor]:
    return {"z": MEAN + torch.randn(count, 3) @ ROOT.T, "rate": dist.Gamma(SHAPE, RATE).sample((count,))}


def moved_draws(shift: float, scale: float, count: int = 2000) -> dict[str, Tensor]:
    """Return draws whose means are off by ``shift`` sds, and whose sds are ``scale`` times the true ones."""
    draws = exact_draws(count)
    z = MEAN + shift * TRUE_SD[:3] + scale * (draws["z"] - MEAN)
    return {"z": z, "rate": draws["rate"]}


def true_figures(draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return shifts and ratios of draws by the closed form."""
    values = torch.cat([draws["z"], draws["rate"][:, None]], 1)
    return (values.mean(0) - TRUE_MEAN) / TRUE_SD, values.std(0) / TRUE_SD


def misses(found: Check, draws: dict[str, Tensor]) -> list[float]:
    """Return by how many of their errors figures are off."""
    shift, ratio = true_figures(draws)
    table = found.table
    of_shift = (table["mean_shift_in_sd"] - shift.numpy()) / table["error_of_shift"]
    of_ratio = (table["sd_ratio"] - ratio.numpy()) / table["error_of_ratio"]
    return [*of_shift.abs(), *of_ratio.abs()]


def test_draws_of_the_posterior_are_good_and_no_figure_is_off_by_more_than_its_error() -> None:
    draws = exact_draws()
    found = check(posterior(draws), normal_and_gamma)
    assert found.judgement == "good", found.sentence
    assert list(found.table.index) == ["z[0]", "z[1]", "z[2]", "rate"]
    assert max(misses(found, draws)) < 3
    assert found.table["error_of_shift"].max() < 0.03
    assert found.table["error_of_ratio"].max() < 0.03
    assert found.improved is not None
    assert found.improved.info.converged
    assert "Modes that no draw is near" in found.sentence


@pytest.mark.parametrize(
    ("shift", "scale", "judgement"),
    [
        (0.08, 1.0, "good"),
        (0.17, 1.0, "usable"),
        (-0.35, 1.0, "bad"),
        (0.0, 0.93, "good"),
        (0.0, 0.85, "usable"),
        (0.0, 0.6, "bad"),
        (0.0, 1.18, "usable"),
        (0.0, 4.0, "bad"),
    ],
)
def test_known_errors_are_judged_by_the_limits_of_compare(shift: float, scale: float, judgement: str) -> None:
    draws = moved_draws(shift, scale, 8000)
    found = check(posterior(draws), normal_and_gamma)
    assert found.judgement == judgement, found.sentence
    assert max(misses(found, draws)) < 4


def test_nine_of_ten_estimates_are_within_two_of_their_errors() -> None:
    off = [
        miss
        for seed, (shift, scale) in enumerate([(0.0, 1.0), (0.3, 0.7), (-1.0, 0.5), (0.5, 2.0), (0.0, 0.3)])
        for draws in [moved_draws(shift, scale)]
        for miss in misses(check(posterior(draws), normal_and_gamma, seed=seed), draws)
    ]
    assert len(off) == 40
    assert sum(miss < 2 for miss in off) >= 36


def test_moved_draws_are_better() -> None:
    found = check(posterior(moved_draws(2.0, 0.3)), normal_and_gamma)
    assert found.judgement == "bad"
    assert found.improved is not None
    samples = found.improved.samples
    shift, ratio = true_figures(samples)
    assert shift.abs().max() < 0.08  # four standard errors of about 2,500 effective draws
    assert (ratio - 1).abs().max() < 0.06
    assert check(found.improved, normal_and_gamma, seed=5).judgement == "good"


def test_an_error_of_hundreds_of_sds_is_bad_and_is_repaired() -> None:
    found = check(posterior(moved_draws(300.0, 0.01)), normal_and_gamma)
    assert found.judgement == "bad", found.sentence
    assert found.improved is not None
    assert true_figures(found.improved.samples)[0].abs().max() < 0.1


def funnel() -> None:
    v = pyro.sample("v", dist.Normal(0.0, 3.0))
    pyro.sample("x", dist.Normal(0.0, (v / 2).exp()).expand([5]).to_event(1))


def test_a_funnel_that_a_normal_cannot_fit_is_not_good() -> None:
    draws = {"v": 1.5 + torch.randn(2000), "x": torch.randn(2000, 5)}
    assert check(posterior(draws), funnel).judgement in ("bad", "cannot say")


def test_chains_that_get_stuck_are_not_called_good() -> None:
    """Draws of the funnel itself, whose neck chains neither enter nor leave."""
    v = 3 * torch.randn(2000)
    found = check(posterior({"v": v, "x": (v / 2).exp()[:, None] * torch.randn(2000, 5)}), funnel)
    assert found.judgement != "good" or found.table["error_of_shift"].max() < 0.1


def two_modes() -> None:
    x = pyro.sample("x", dist.Normal(0.0, 1e4))
    pyro.factor("modes", dist.Normal(torch.tensor([-9.0, 9.0]), 1.0).log_prob(x).logsumexp(0))


def test_a_mode_that_no_draw_is_near_is_not_seen() -> None:
    found = check(posterior({"x": 9 + torch.randn(2000)}), two_modes)
    assert found.judgement == "good"
    assert "not seen" in found.sentence


# Conjugate normal: y ~ N(m, 1), m ~ N(0, 10); a trained guide's scale tells it from an untrained one.
Y = torch.tensor([1.2, 0.7, 2.3, 1.9], dtype=torch.float64)
M_SD = (4 + 1 / 100) ** -0.5
M_MEAN = float(Y.sum()) * M_SD**2


def conjugate(y: Tensor) -> None:
    m = pyro.sample("m", dist.Normal(0.0, 10.0))
    pyro.deterministic("twice", 2 * m)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(m, 1.0), obs=y)


def guide_function(y: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(5.0), constraint=constraints.positive)
    pyro.sample("m", dist.Normal(loc, scale))


class GuideModule(PyroModule):
    """A normal with its own parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = PyroParam(torch.tensor(0.0))
        self.scale = PyroParam(torch.tensor(5.0), constraint=constraints.positive)

    def forward(self, y: Tensor) -> None:
        """Draw."""
        pyro.sample("m", dist.Normal(self.loc, self.scale))


def filled_function(scale: float) -> Callable:
    pyro.clear_param_store()
    guide_function(Y)
    pyro.get_param_store()["loc"] = torch.tensor(M_MEAN)
    pyro.get_param_store()["scale"] = torch.tensor(scale)
    return guide_function


def filled_autoguide(scale: float) -> Callable:
    pyro.clear_param_store()
    guide = AutoNormal(conjugate)
    guide(Y)
    pyro.get_param_store()["AutoNormal.locs.m"] = torch.tensor(M_MEAN)
    pyro.get_param_store()["AutoNormal.scales.m"] = torch.tensor(scale)
    return guide


def filled_module(scale: float) -> Callable:
    pyro.clear_param_store()
    guide = GuideModule()
    guide.loc, guide.scale = torch.tensor(M_MEAN), torch.tensor(scale)
    return guide


@pytest.mark.parametrize("fill", [filled_function, filled_autoguide, filled_module])
def test_a_trained_guide_is_judged_as_it_is_and_not_changed(fill: Callable) -> None:
    for factor, judgement in ((1.0, "good"), (0.5, "bad")):
        guide = fill(factor * M_SD)
        before = {name: value.clone() for name, value in pyro.get_param_store().items()}
        found = check(guide, conjugate, Y)
        assert found.judgement == judgement, found.sentence
        assert found.table["sd_ratio"]["m"] == pytest.approx(factor, rel=0.06)  # 2,000 draws: four errors of 1.6 %
        assert list(found.table.index) == ["m", "twice"]
        after = pyro.get_param_store()
        assert set(after) == set(before)
        assert all(torch.equal(after[name], value) for name, value in before.items())
    pyro.clear_param_store()


def test_an_autoguide_that_was_never_run_is_refused() -> None:
    for guide in (AutoDiagonalNormal, AutoDiagonalNormal(conjugate), mean_field):
        with pytest.raises(ValueError, match="check: the guide is not fitted"):
            check(guide, conjugate, Y)


def with_param(y: Tensor) -> None:
    noise = pyro.param("noise", torch.tensor(1.0), constraint=constraints.positive)
    m = pyro.sample("m", dist.Normal(0.0, 10.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(m, noise), obs=y)


def test_parameters_are_held_at_their_learnt_values() -> None:
    sd = (4 / 9 + 1 / 100) ** -0.5
    draws = {"m": float(Y.sum()) / 9 * sd**2 + sd * torch.randn(2000), "noise": torch.full((2000,), 3.0)}
    held = check(posterior(draws, {"noise": torch.tensor(3.0), "auto.loc": torch.zeros(1)}), with_param, Y)
    assert held.judgement == "good", held.sentence
    assert list(held.table.index) == ["m"]
    assert held.improved is not None
    assert (held.improved.draws["noise"] == 3).all()
    initial = check(posterior(draws), with_param, Y)
    assert initial.judgement == "bad"
    assert initial.table["sd_ratio"]["m"] == pytest.approx(sd / M_SD, rel=0.1)
    assert "noise are held at their initial values" in initial.sentence


def test_the_store_gives_a_guides_model_its_parameters() -> None:
    pyro.clear_param_store()
    pyro.param("noise", torch.tensor(3.0), constraint=constraints.positive)
    sd = (4 / 9 + 1 / 100) ** -0.5
    guide = filled_into_store(float(Y.sum()) / 9 * sd**2, sd)
    found = check(guide, with_param, Y)
    assert found.judgement == "good", found.sentence
    pyro.clear_param_store()


def filled_into_store(loc: float, scale: float) -> Callable:
    guide_function(Y)
    pyro.get_param_store()["loc"] = torch.tensor(loc)
    pyro.get_param_store()["scale"] = torch.tensor(scale)
    return guide_function


X = torch.cat([torch.linspace(-5, -3, 20), torch.linspace(3, 5, 20)]).double()


def mixture(x: Tensor) -> None:
    """Two components of known width and weight: given the data's clear separation, two known normals."""
    loc = pyro.sample("loc", dist.Normal(0.0, 100.0).expand([2]).to_event(1))
    with pyro.plate("rows", len(x)):
        which = pyro.sample("which", dist.Categorical(torch.tensor([0.5, 0.5])))
        pyro.sample("x", dist.Normal(loc[which], 0.5), obs=x)


def component_draws(count: int, swapped: bool) -> dict[str, Tensor]:
    loc = torch.tensor([-4.0, 4.0]) + 0.5 / 20**0.5 * torch.randn(count, 2)
    if swapped:
        loc[::2] = loc[::2].flip(1)
    return {"loc": loc}


def test_discrete_sites_are_summed_out_and_components_identified() -> None:
    one_order = check(posterior(component_draws(2000, False)), mixture, X)
    assert one_order.judgement == "good", one_order.sentence
    narrow = {"loc": torch.tensor([-4.0, 4.0]) + 0.03 * torch.randn(2000, 2)}
    assert check(posterior(narrow), mixture, X).table["sd_ratio"].max() < 0.4  # .03 / (.5 / √20) = .27

    both = posterior(component_draws(2000, True))
    assert check(both, mixture, X).judgement == "cannot say"  # the chains never change their order

    def ordered(draws: dict[str, Tensor], anchor: object = None) -> dict[str, Tensor]:
        return {"loc": draws["loc"].sort(-1).values}

    for identify in ({"loc": 0}, ordered):
        found = check(both, mixture, X, identify=identify)
        assert found.judgement == "good", found.sentence
        assert found.table["sd_ratio"].between(0.9, 1.1).all()
    with pytest.raises(ValueError, match="check: no shared site has components"):
        check(both, mixture, X, identify="exchangeable")
    with pytest.raises(ValueError, match="check: identify must be a function"):
        check(both, mixture, X, identify="sorted")


def weighted(x: Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    loc = pyro.sample("loc", dist.Normal(0.0, 100.0).expand([2]).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, 0.5)), obs=x)


def test_exchangeable_components_are_put_in_one_order() -> None:
    loc = component_draws(2000, False)["loc"]
    weights = dist.Dirichlet(torch.tensor([21.0, 21.0])).sample((2000,))
    loc[::2], weights[::2] = loc[::2].flip(1), weights[::2].flip(1)
    found = check(posterior({"weights": weights, "loc": loc}), weighted, X, identify="exchangeable")
    assert found.judgement == "good", found.sentence


def test_what_cannot_be_judged_is_said() -> None:
    point = Posterior({"m": torch.zeros(1, 1)}, ClosedFormInfo(seed=0, seconds=0.0))
    found = check(point, conjugate, Y)
    assert (found.judgement, found.improved) == ("cannot say", None)
    assert "closed_form cannot be judged by short chains: it is a point" in found.sentence
    assert len(found.table) == 0
    assert "19 draws" in check(posterior({"m": torch.randn(19)}), conjugate, Y).sentence
    few = check(posterior({"m": M_MEAN + M_SD * torch.randn(20)}), conjugate, Y)
    assert few.judgement == "cannot say"
    assert "too few draws to tell an error from chance" in few.sentence
    assert few.improved is not None


def test_draws_that_do_not_vary_are_said_not_to() -> None:
    found = check(posterior({"m": torch.full((500,), 1.5)}), conjugate, Y)
    assert (found.judgement, found.improved) == ("cannot say", None)
    assert "it has draws that are all the same, without a spread to judge" in found.sentence
    draws = {"m": M_MEAN + M_SD * torch.randn(500), "one": torch.ones(500)}
    with pytest.raises(ValueError, match="check: one does not vary, so that there is nothing to judge"):
        check(posterior(draws), with_one, Y, quantities=["one"])


def with_one(y: Tensor) -> None:
    conjugate(y)
    pyro.deterministic("one", torch.ones(()))


def local(y: Tensor) -> None:
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Normal(m, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def test_draws_without_their_local_sites_are_said_to_lack_them() -> None:
    found = check(posterior({"m": torch.randn(100)}), local, Y)
    assert found.judgement == "cannot say"
    assert "has no draws of z, of which there is one per row" in found.sentence


@pytest.mark.parametrize(("limit", "judgement"), [(4, "good"), (3, "cannot say")])
def test_posteriors_too_large_for_all_chains_are_not_judged(
    limit: int, judgement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["guidebook.inference.check"], "MAX_LATENT", limit)
    found = check(posterior(exact_draws()), normal_and_gamma)
    assert found.judgement == judgement
    assert ("has 4 latent numbers" in found.sentence) is (judgement == "cannot say")


def test_another_model_or_other_data() -> None:
    draws = posterior({"m": M_MEAN + M_SD * torch.randn(2000)})
    with pytest.raises(ValueError, match="check: the posterior has no draws of site 'v'"):
        check(draws, funnel)
    with pytest.raises(ValueError, match="check: draws of site 'm' have shape"):
        check(posterior({"m": torch.randn(100, 2)}), conjugate, Y)
    assert check(draws, conjugate, Y + 3).judgement == "bad"
    with pytest.raises(ValueError, match="check: give a Posterior or a trained guide"):
        check({"m": torch.randn(100)}, conjugate, Y)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="check: there is no option 'chains'"):
        check(draws, conjugate, Y, chains=3)  # pyright: ignore[reportCallIssue]


def test_draws_that_are_not_finite_are_bad() -> None:
    m = M_MEAN + M_SD * torch.randn(2000)
    m[7] = math.inf
    found = check(posterior({"m": m}), conjugate, Y)
    assert found.judgement == "bad"
    assert "draws of m are not finite" in found.sentence
    assert found.quantities["m"]["mean_shift_in_sd"] is None
    nowhere = check(posterior({"m": torch.full((100,), math.nan)}), conjugate, Y)
    assert nowhere.judgement == "bad"
    assert "density is zero, or not finite" in nowhere.sentence


def test_more_chains_know_better_and_too_few_are_refused() -> None:
    draws = posterior(exact_draws())
    few, many = (check(draws, normal_and_gamma, num_chains=n).table["error_of_shift"]["rate"] for n in (32, 512))
    assert many < 0.6 * few  # by a quarter, as the root of their number
    with pytest.raises(ValueError, match="num_chains must be at least 32, got 31"):
        check(draws, normal_and_gamma, num_chains=31)


def test_a_seed_fixes_the_numbers_and_leaves_no_state_behind() -> None:
    draws = posterior(exact_draws(500))
    state = torch.random.get_rng_state()
    tables = [check(draws, normal_and_gamma, seed=seed).table for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0].equals(tables[2])


def test_a_check_prints_its_sentence_and_table_and_its_draws_are_saved(tmp_path: object) -> None:
    fit = svi(conjugate, mean_field, Y, num_steps=400, lr=0.05, engine="eager", progress=False)
    found = check(fit, conjugate, Y)
    assert found.method == "svi:mean_field"
    assert str(found).startswith(found.sentence)
    assert "sd ratio" in str(found)
    assert html.escape(found.sentence) in found._repr_html_()
    assert "<table" in found._repr_html_()
    assert set(found.quantities) == {"m", "twice"}
    assert set(found.quantities["m"]) == {"mean_shift_in_sd", "sd_ratio", "error_of_shift", "error_of_ratio"}
    assert found.gradients > 1000
    assert found.improved is not None
    found.improved.save(f"{tmp_path}/improved")
    again = Posterior.load(f"{tmp_path}/improved")
    assert torch.equal(again.draws["m"], found.improved.draws["m"])
    assert again.info.message == found.improved.info.message


def test_single_precision_draws_come_back_so() -> None:
    torch.set_default_dtype(torch.float32)
    y = Y.float()
    found = check(posterior({"m": M_MEAN + M_SD * torch.randn(2000)}), conjugate, y)
    assert found.judgement == "good", found.sentence
    assert found.improved is not None
    assert found.improved.draws["m"].dtype == torch.float32


def test_the_metric_of_draws_and_gradients_is_a_normals_covariance_wherever_the_draws_are() -> None:
    precision = torch.linalg.inv(COVARIANCE)
    vectors = MEAN + 7 * TRUE_SD[:3] + torch.randn(4000, 3) * torch.tensor([3.0, 0.1, 5.0])
    root = metric_of_states(vectors, (vectors - MEAN) @ precision).root
    assert torch.allclose(root @ root.T, COVARIANCE, rtol=0.05, atol=0.05)


def test_few_draws_make_a_diagonal_metric_by_the_same_rule() -> None:
    sd = torch.tensor([3.0, 0.1, 5.0])
    vectors = 7 + torch.randn(11, 3) * torch.tensor([0.2, 40.0, 1.0])
    root = metric_of_states(vectors, (vectors - 1) / sd**2).root
    assert root.shape == (3,)
    assert torch.allclose(root, sd, rtol=0.05)  # draws are counted as 10 here and as 11 there


def _autoregressive(share: float, draws: int, chains: int, start: float) -> tuple[Tensor, Tensor]:
    """Return chains (draw, chain, 1) that keep a share of where they are and tend to a standard normal; and starts."""
    x = start + torch.randn(chains, 1)
    begun, kept = x, []
    for _ in range(draws):
        x = share * x + (1 - share**2) ** 0.5 * torch.randn(chains, 1)
        kept.append(x)
    return torch.stack(kept), begun


def test_slow_chains_are_said_to_have_more_to_go_and_errors_cover_it() -> None:
    for share, settles in ((0.3, True), (0.97, False)):
        values, starts = _autoregressive(share, 24, 128, 1.0)
        found = moments(values, starts, values, starts, torch.zeros_like(values))  # gradients that tell nothing
        assert bool(found.settled) is settles
        assert abs(float(found.mean)) < 1.5 * float(found.error_of_mean) + 0.05
    assert float(found.error_of_mean) > 0.1
    assert float(found.nested_r_hat) > 1.1


def test_chains_that_never_move_have_not_settled() -> None:
    values, starts = _autoregressive(0.3, 24, 128, 0.0)
    values[:, :2] = starts[:2] = torch.tensor([[1.0], [-1.0]])  # where they change neither mean nor sd
    assert not moments(values, starts, values, starts, torch.zeros_like(values)).settled


@pytest.mark.parametrize(("trend", "settled"), [(0.0, True), (0.02, False)])
def test_chains_that_drift_have_not_settled(trend: float, settled: bool) -> None:
    values = torch.randn(24, 128, 1) + trend * torch.arange(24.0)[:, None, None]
    found = moments(values, torch.randn(128, 1), values, torch.randn(128, 1), torch.zeros_like(values))
    assert bool(found.settled) is settled


@pytest.mark.parametrize(("slope", "settled"), [(0.0, True), (0.2, False)])
def test_chains_with_a_slope_in_one_direction_have_not_settled(slope: float, settled: bool) -> None:
    values = torch.randn(24, 128, 1)
    found = moments(values, torch.randn(128, 1), values, torch.randn(128, 1), values + slope)
    assert bool(found.settled) is settled
    assert float(found.mean) == pytest.approx(-slope, abs=1e-6)


def _moved(shifts: list[float], error: float, plain: float = 0.0) -> Moved:
    """Return draws that are off by so many sds beside chains of known errors; ``plain`` is where the chains are."""
    z = torch.randn(1, 4000)
    z = (z - z.mean()) / z.std()
    zero, one = torch.zeros(len(shifts)), torch.ones(len(shifts))
    alone = torch.stack([plain * one, one, 0.02 * one, 0.02 * one])
    found = Moments(zero, one, error * one, 0.01 * one, one, one > 0, alone)
    z_chains = torch.randn(64, 2)
    chains = ShortChains(_Normal(), z_chains, metric_of_states(z_chains, z_chains), torch.Generator())  # pyright: ignore[reportArgumentType]
    return Moved({f"q[{i}]": shift + z for i, shift in enumerate(shifts)}, found, torch.zeros(64, 2, 2), chains)


@pytest.mark.parametrize(("shift", "judgement"), [(0.12, "good"), (0.14, "usable")])
def test_good_goes_beyond_a_limit_by_one_error_at_most(shift: float, judgement: str) -> None:
    assert judge_moved(_moved([shift, *[0.0] * 19], 0.03)).graded.judgement == judgement


@pytest.mark.parametrize(("ratio", "judgement"), [(0.9, "good"), (0.88, "usable"), (1.11, "good"), (1.14, "usable")])
def test_good_goes_beyond_a_limit_of_sds_by_half_an_error_at_most(ratio: float, judgement: str) -> None:
    """Of 4 %, with limits of 1 / 1.1 and 1.1; the draws' own error, that of 4,000 of them, is 1 %."""
    moved = _moved([0.0], 0.01)
    found = moved.moments._replace(error_of_sd=torch.tensor([0.04]))
    moved = moved._replace(moments=found, before={"q": ratio * moved.before["q[0]"]})
    assert judge_moved(moved).graded.judgement == judgement


@pytest.mark.parametrize(("shift", "error", "clear"), [(0.0, 0.09, True), (0.05, 0.06, False), (0.5, 0.06, True)])
def test_what_is_good_is_clear_where_one_error_more_would_not_make_it_worse(
    shift: float, error: float, clear: bool
) -> None:
    assert is_clear(_moved([shift], error)) is clear


def test_chains_that_have_settled_but_do_not_suffice_are_run_for_longer_once() -> None:
    def model() -> None:
        pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    draws = {"w": torch.randn(1, 1000, 2)}
    target = VectorTarget("check", prepare_at("check", model, (), {}, device=None, least_dtype=torch.float64))

    def kept(suffices: Callable[[Moved], bool]) -> int:
        with Progress("check", 1, False) as bar:
            moved = move_draws(target, draws, lambda values, *_: values, 128, bar, suffices=suffices)
        assert moved is not None
        assert moved.moments.settled.all()
        return moved.vectors.shape[1]

    assert kept(lambda moved: True) == WINDOWS[0]
    assert kept(lambda moved: False) == WINDOWS[0] + WINDOWS[1]


@pytest.mark.parametrize(("plain", "judgement"), [(0.0, "bad"), (2.9, "cannot say")])
def test_draws_are_bad_if_chains_have_come_far_though_not_how_far_they_go(plain: float, judgement: str) -> None:
    moved = _moved([3.0], 5.0, plain)
    judged = judge_moved(moved)
    assert judged.graded.judgement == judgement
    if judgement == "bad":
        assert "at q[0] its mean is +3.00 sd away" in sentence("fast", judged, moved, "", "")


def test_weights_of_a_module_are_those_that_were_learned() -> None:
    """x_i ~ N(w (z₁ + z₂) + b, 1), standard normal z: a normal posterior, at other weights than the module has now."""
    layer, x, w, b = torch.nn.Linear(1, 1), torch.full((5,), 3.0), 2.5, -1.0

    def model(x: Tensor) -> None:
        pyro.module("layer", layer)
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(layer(z.sum(-1, keepdim=True)), 1.0), obs=x)

    weights = {"layer$$$weight": torch.tensor([[w]]), "layer$$$bias": torch.tensor([b])}
    mean, variance = 5 * w * (3 - b) / (1 + 10 * w**2), 1 - 5 * w**2 / (1 + 10 * w**2)
    covariance = torch.tensor([[variance, variance - 1], [variance - 1, variance]])
    z = mean + torch.randn(2000, 2) @ torch.linalg.cholesky(covariance).T
    found = check(posterior({"z": z}, weights), model, x)
    assert found.judgement == "good", found.sentence
    assert layer.weight.item() != w


@pytest.mark.parametrize(
    ("shift", "error", "settled", "end"),
    [
        (0.0, 0.02, True, "Modes that no draw is near are not seen. A note."),
        (0.2, 0.02, True, "Modes that no draw is near are not seen. A note. Next: its moved draws, .improved."),
        (0.5, 0.02, True, " sd away). A note. Next: its moved draws, .improved."),
        (0.5, 0.02, False, "so that it may be worse. A note. Next: nuts(model, …)."),
        (0.0, 0.50, True, "too few draws to tell an error from chance. A note. Next: more draws."),
        (0.0, 0.50, False, "trajectories. A note. Next: nuts(model, …)."),
    ],
)
def test_a_sentence_ends_with_what_to_call_next(shift: float, error: float, settled: bool, end: str) -> None:
    moved = _moved([shift], error)
    moved = moved._replace(moments=moved.moments._replace(settled=torch.tensor([settled])))
    said = sentence("fast", judge_moved(moved), moved, " A note.", "nuts(model, …)")
    assert said.endswith(end), said


def test_where_chains_do_not_settle_another_method_than_that_of_the_draws_is_next() -> None:
    until_good = "dadvi(model, …), or fit(model, …), which tries methods until one is good"
    for method, call in (("svi", until_good), ("dadvi", "nuts(model, …, init=posterior)")):
        assert for_chains_that_move(posterior({"m": torch.randn(100)}, method=method)) == call
    assert for_chains_that_move(None) == "nuts(model, …)"


def test_gradients_cancel_the_noise_of_a_normals_moments() -> None:
    values, starts = _autoregressive(0.3, 24, 128, 0.0)
    with_noise = moments(values, starts, values, starts, torch.zeros_like(values))
    found = moments(values, starts, values, starts, values)  # a standard normal's gradient is the value itself
    assert abs(float(found.mean)) < 1e-6
    assert abs(float(found.sd) - 1) < 1e-6
    assert abs(float(with_noise.sd) - 1) > 1e-3


def test_nothing_is_said_of_quantities_that_are_not_finite() -> None:
    values, starts = _autoregressive(0.3, 24, 128, 0.0)
    both = torch.cat([values, values], 2)
    both[3, 4, 1] = math.inf
    found = moments(both, starts.expand(-1, 2), values, starts, values)
    assert found.mean.isfinite().tolist() == [True, False]
    assert found.settled.tolist() == [True, False]


class _Normal:
    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * points.square().sum(1), points


def test_short_chains_leave_a_normal_as_it_is() -> None:
    z = torch.randn(512, 4)
    chains = ShortChains(_Normal(), z, metric_of_states(z, z), torch.Generator().manual_seed(3))  # pyright: ignore[reportArgumentType]
    chains.run(8, adapt=True)
    states = chains.run(20)
    assert 0.6 < chains.accept_rate < 0.95
    assert states.vectors.mean((0, 1)).abs().max() < 0.05
    assert (states.vectors.std((0, 1)) - 1).abs().max() < 0.04
    assert (states.vectors[1:] != states.vectors[:-1]).any()
