"""Simulation-based calibration: right methods pass, and each way to be wrong is found and named."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from arviz_stats.ecdf_utils import simulate_confidence_bands
from scipy.stats import ks_2samp, kstest
from torch import Tensor
from zoo import linear

from guidebook import plots
from guidebook.guides import mean_field
from guidebook.inference import Calibration, ClosedFormInfo, Posterior, calibrate, dadvi, em, gibbs, nuts, svi
from guidebook.inference.calibration.errors import errors
from guidebook.inference.calibration.quantities import in_order
from guidebook.inference.calibration.uniformity import Uniformity, holm, symmetry
from guidebook.models import GibbsSteps, gmm, logistic
from guidebook.report import write_calibration
from guidebook.workflow.calibrate import components_of, with_fixed_prior
from guidebook.workflow.fit import load_task

X = linear.data(20)[0]
LOG_JOINT = "log joint"


def exact(
    x: Tensor, y: Tensor, seed: int, *, scale: float = 1.0, shift: float = 0.0, ignore: bool = False, prior: float = 1.0
) -> Posterior:
    """Draws from the exact posterior of `linear.model`, or from one that is wrong in a stated way."""
    precision = torch.eye(x.shape[1], dtype=x.dtype) / prior**2 + (0 if ignore else 1) * x.mT @ x / linear.NOISE**2
    covariance = torch.linalg.inv(precision)
    mean = covariance @ x.mT @ y / linear.NOISE**2 * (0 if ignore else 1)
    sds = covariance.diagonal().sqrt()
    z = torch.randn(99, x.shape[1], dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    w = mean + shift * sds + scale * z @ torch.linalg.cholesky(covariance).mT
    info = ClosedFormInfo(seed=seed, seconds=0.0, is_point=False)
    return Posterior(draws={"w": w[None], "total": w.sum(-1)[None]}, info=info)


def of_exact(num_simulations: int = 200, **wrong: Any) -> Calibration:
    return calibrate(partial(exact, **wrong), linear.model, X, None, num_simulations=num_simulations, progress=False)


def test_exact_draws_are_calibrated() -> None:
    found = of_exact()
    assert found.judgement == "good"
    assert list(found.ranks) == ["w[0]", "w[1]", "w[2]", "total", LOG_JOINT]
    assert (found.num_simulations, found.num_draws, found.failed, found.few) == (200, 99, 0, 0)
    assert (found.table["p_value"] > 0.05).all()
    assert not found.table["direction"].any()
    assert found.sentence.startswith("closed_form is good: over 200 simulations the ranks of 5 quantities are uniform")
    assert "VSBC" not in found.sentence
    for ranks in found.ranks.values():  # another test of uniformity, whose p-values are conservative for ranks
        assert kstest((ranks.numpy() + 0.5) / 100, "uniform").pvalue > 0.001


@pytest.mark.parametrize(
    ("wrong", "direction"),
    [
        ({"scale": 0.75}, "too narrow"),
        ({"scale": 1.35}, "too wide"),
        ({"shift": 0.35}, "biased up"),
        ({"shift": -0.35}, "biased down"),
    ],
)
def test_what_is_wrong_is_named_and_measured(wrong: dict[str, Any], direction: str) -> None:
    found = of_exact(**wrong)
    assert found.judgement in ("usable", "bad")
    rows = found.table.loc[["w[0]", "w[1]", "w[2]"]]
    assert (rows["direction"] == direction).any()
    assert direction in found.sentence
    assert (abs(rows["sd_ratio"] - wrong.get("scale", 1.0)) < 4.5 * rows["error_of_ratio"]).all()
    expected = wrong.get("shift", 0.0)
    assert (abs(rows["mean_shift_in_sd"] - expected) < 4.5 * rows["error_of_shift"]).all()


def test_ignored_data_are_seen_by_the_log_joint_alone() -> None:
    """Modrák et al. (2023), section 3: draws from the prior have uniform ranks of every parameter."""
    found = of_exact(ignore=True)
    assert found.judgement == "bad"
    assert (found.table.drop(index=LOG_JOINT)["p_value"] > 0.01).all()
    assert found.table["p_value"][LOG_JOINT] < 0.01
    assert LOG_JOINT in found.sentence


def test_another_prior_is_found() -> None:
    found = calibrate(partial(exact, prior=0.3), linear.model, X[:3], None, num_simulations=300, progress=False)
    assert found.judgement == "bad"


def test_the_judgement_follows_the_size_of_the_error() -> None:
    small, large = of_exact(500, scale=0.82), of_exact(200, scale=0.5)
    assert (small.judgement, large.judgement) == ("usable", "bad")
    few = of_exact(40)
    assert few.judgement == "cannot say"
    assert "take more simulations" in few.sentence


def coordinates(spread: float = 1.0) -> GibbsSteps:
    """Gibbs sampling of `linear.model`, a weight at a time, whose conditionals have ``spread`` times their sd."""

    def init(num_chains: int, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"w": torch.randn(num_chains, x.shape[1], dtype=x.dtype)}

    def conditional(place: int, state: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        column, w = x[:, place], state["w"].clone()
        w[:, place] = 0
        precision = 1 + column @ column / linear.NOISE**2
        mean = (y - w @ x.mT) @ column / linear.NOISE**2 / precision
        w[:, place] = mean + spread * torch.randn_like(mean) / precision.sqrt()
        return {"w": w}

    return GibbsSteps(init, tuple(partial(conditional, place) for place in range(3)), ("w",))


@pytest.mark.parametrize(("spread", "judgement"), [(1.0, {"good"}), (0.6, {"bad"})])
def test_a_broken_gibbs_sampler_is_found(spread: float, judgement: set[str]) -> None:
    sampler = partial(gibbs, coordinates(spread), num_draws=100, num_warmup=20, num_chains=2)
    found = calibrate(sampler, linear.model, X, None, num_simulations=120, progress=False)
    assert found.judgement in judgement
    assert found.method == "gibbs"
    if spread < 1:
        assert "too narrow" in found.sentence


def test_chains_run_again_until_they_have_enough_effective_draws() -> None:
    asked: list[int] = []

    def sampler(*data: Tensor, seed: int, num_draws: int = 10) -> Posterior:
        asked.append(num_draws)
        return gibbs(coordinates(), *data, num_draws=num_draws, num_warmup=5, num_chains=2, seed=seed, progress=False)

    found = calibrate(sampler, linear.model, X, None, num_simulations=20, progress=False)
    assert max(asked) >= 50
    assert len(asked) > 20
    assert found.few < 20

    def short(*data: Tensor, seed: int) -> Posterior:
        return gibbs(coordinates(), *data, num_draws=50, num_warmup=5, num_chains=2, seed=seed, progress=False)

    found = calibrate(short, linear.model, X, None, num_simulations=20, progress=False)
    assert found.few > 10
    assert "fewer than 99 effective draws" in found.sentence


def test_mean_field_is_too_narrow_by_as_much_as_theory_says_and_not_biased() -> None:
    """The best independent normal has the conditional sds of a normal posterior: Bishop (2006), section 10.1.2."""
    found = calibrate(mean_field_exactly, linear.model, X, None, num_simulations=300, quantities=["w"], progress=False)
    precision = torch.eye(3, dtype=X.dtype) + X.mT @ X / linear.NOISE**2
    expected = precision.diagonal().rsqrt() / torch.linalg.inv(precision).diagonal().sqrt()
    rows = found.table.drop(index=LOG_JOINT)
    assert (abs(rows["sd_ratio"] - expected.numpy()) < 4 * rows["error_of_ratio"]).all()
    assert found.judgement == "bad"
    assert (rows["p_symmetry"] > 0.05).all()
    assert "too narrow" in found.sentence
    assert "VSBC: ranks are symmetric" in found.sentence


def mean_field_exactly(x: Tensor, y: Tensor, seed: int) -> Posterior:
    """Draws from the best independent normal."""
    precision = torch.eye(x.shape[1], dtype=x.dtype) + x.mT @ x / linear.NOISE**2
    mean = linear.posterior(x, y).mean
    z = torch.randn(99, x.shape[1], dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    w = mean + z * precision.diagonal().rsqrt()
    info = ClosedFormInfo(seed=seed, seconds=0.0, is_point=False, guide="mean_field")
    return Posterior(draws={"w": w[None]}, info=info)


def test_svi_with_a_family() -> None:
    found = calibrate(
        partial(svi, num_steps=30, num_draws=99),
        linear.model,
        X,
        None,
        guide=mean_field,
        num_simulations=20,
        progress=False,
    )
    assert found.method == "svi:mean_field"
    assert "VSBC" in found.sentence
    with pytest.raises(ValueError, match=r"^calibrate: svi needs a guide"):
        calibrate(svi, linear.model, X, None, progress=False)


def test_bias_of_a_guide_is_named() -> None:
    biased = partial(of_guide, shift=0.4)
    found = calibrate(biased, linear.model, X, None, num_simulations=200, progress=False)
    assert "VSBC: " in found.sentence
    assert " biased, most of all " in found.sentence


def of_guide(x: Tensor, y: Tensor, seed: int, *, shift: float) -> Posterior:
    found = exact(x, y, seed, shift=shift)
    info = ClosedFormInfo(seed=seed, seconds=0.0, is_point=False, guide="biased")
    return Posterior(draws=found.draws, info=info)


def test_dadvi_records_its_graphs_once_for_all_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    from guidebook.inference.engines import batched

    recordings: list[int] = []
    record = batched.recorded
    monkeypatch.setattr(batched, "recorded", lambda *given, **how: recordings.append(1) or record(*given, **how))
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = calibrate(dadvi, logistic.model, x, num_simulations=20, num_draws=19, progress=False)
    assert len(recordings) == 4  # gradients, and products with the Hessian, of 64 points at once and of 256
    fitted = dadvi(logistic.model, x, torch.ones(20, dtype=torch.float64), progress=False)
    assert len(recordings) == 6
    assert fitted.info.converged
    assert found.failed == 0


def test_graphs_with_data_as_inputs_are_those_of_each_data_set() -> None:
    """Draws of `dadvi`, by the same seed, are those of a fit on its own."""
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept: list[tuple[tuple, int, Posterior]] = []

    def remembering(model, *data: Tensor, seed: int) -> Posterior:
        posterior = dadvi(model, *data, seed=seed, progress=False)
        kept.append((data, seed, posterior))
        return posterior

    calibrate(remembering, logistic.model, x, num_simulations=20, num_draws=19, progress=False)
    for data, seed, posterior in (kept[1], kept[-1]):
        alone = dadvi(logistic.model, *data, seed=seed, progress=False)
        assert torch.allclose(alone.draws["w"], posterior.draws["w"], rtol=1e-5, atol=1e-6)
    assert not torch.equal(kept[1][0][1], kept[2][0][1])


def mixture(x: Tensor | None = None) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((2,), 5.0)))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("rows", 10):
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, 1.0)), obs=x)


def test_components_are_put_in_order_by_a_number_of_their_own() -> None:
    draws = {
        "loc": torch.tensor([[[3.0, 1.0, 2.0]]]),
        "table": torch.arange(6.0).reshape(1, 1, 2, 3),
        "other": torch.ones(1, 1),
    }
    found = in_order(draws, dims={"loc": 0, "table": 1})
    assert found["loc"].tolist() == [[[1, 2, 3]]]
    assert found["table"].tolist() == [[[[1, 2, 0], [4, 5, 3]]]]
    assert found["other"] is draws["other"]


@pytest.mark.parametrize("identify", [{"loc": 0, "weights": 0}, "exchangeable"])
def test_labels_of_a_mixture_do_not_matter(identify: dict[str, int] | str) -> None:
    """Draws from the prior for data that say nothing, each with its labels in a fixed order: raw ranks are off."""

    def labelled(x: Tensor, seed: int) -> Posterior:
        generator = torch.Generator().manual_seed(seed)
        loc = 3 * torch.randn(1, 99, 2, generator=generator)
        gamma = torch.distributions.Gamma(torch.full((1, 99, 2), 5.0), 1.0)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            weights = gamma.sample()
        order = loc.argsort(-1)
        draws = {"loc": loc.gather(-1, order), "weights": weights / weights.sum(-1, keepdim=True)}
        return Posterior(draws=draws, info=ClosedFormInfo(seed=seed, seconds=0.0, is_point=False))

    run = partial(calibrate, labelled, mixture, None, num_simulations=80, progress=False)
    found = run(identify=identify)
    assert (found.table.drop(index=LOG_JOINT)["p_value"] > 0.05).all()
    if identify == "exchangeable":
        assert (run().table.loc[["loc[0]", "loc[1]"], "p_value"] < 0.05).all()


def test_identification_by_other_draws_is_refused() -> None:
    def matching(draws: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"w": draws["w"] - draws["w"].mean((0, 1))}

    with pytest.raises(ValueError, match=r"^calibrate: identify tells something else of a draw by itself"):
        calibrate(exact, linear.model, X, None, identify=matching, progress=False)
    squares = calibrate(
        exact,
        linear.model,
        X,
        None,
        identify=lambda draws: {"size": draws["w"].square().sum(-1)},
        num_simulations=20,
        progress=False,
    )
    assert list(squares.ranks) == ["size", LOG_JOINT]


def test_the_data_are_those_the_model_draws() -> None:
    """What is observed is replaced, whether given or None, in its dtype; covariates stay."""
    seen: list[tuple] = []

    def spy(x: Tensor, y: Tensor, seed: int) -> Posterior:
        seen.append((x, y))
        return exact(x, y, seed)

    template = torch.full((20,), 7.0, dtype=torch.float64)
    for data in ((X, template), (X, None), (X,)):
        seen.clear()
        calibrate(spy, linear.model, *data, num_simulations=20, progress=False)
        assert all(torch.equal(x, X) and y.dtype == torch.float64 for x, y in seen)
        ys = torch.stack([y for _, y in seen])
        variance = linear.NOISE**2 + (X**2).sum(1)  # of y under the prior
        assert abs(float((ys**2 / variance).mean()) - 1) < 0.6
        assert len({float(y[0]) for y in ys}) == 20


def test_arguments_of_equal_values_are_told_apart() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x * w, linear.NOISE).to_event(1), obs=y)

    def run(x: Tensor, y: Tensor, seed: int) -> Posterior:
        assert not x.any()
        assert y.all()
        w = torch.randn(1, 99, generator=torch.Generator().manual_seed(seed))
        return Posterior(draws={"w": w}, info=ClosedFormInfo(seed=seed, seconds=0.0, is_point=False))

    found = calibrate(run, model, torch.zeros(3), torch.zeros(3), num_simulations=20, progress=False)
    assert found.failed == 0


def test_a_prior_that_depends_on_the_data_is_held_or_refused() -> None:
    def centred(y: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(y.mean(), 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(m, 1.0), obs=y)

    y = 5 + torch.arange(10, dtype=torch.float64)
    seen: list[Tensor] = []

    def of_model(model, *data: Tensor, seed: int) -> Posterior:
        seen.append(data[0])
        return dadvi(model, *data, seed=seed, progress=False)

    found = calibrate(of_model, centred, y, num_simulations=40, progress=False)
    assert (found.table["p_value"] > 0.05).all()
    with pytest.raises(ValueError, match=r"^calibrate: the model's prior depends on the data"):
        calibrate(lambda y, seed: None, centred, y, progress=False)


def test_a_user_simulates() -> None:
    def simulate(seed: int) -> tuple[dict, tuple]:
        generator = torch.Generator().manual_seed(seed)
        w = torch.randn(3, dtype=torch.float64, generator=generator)
        y = X @ w + linear.NOISE * torch.randn(20, dtype=torch.float64, generator=generator)
        return {"w": w}, (X, y)

    found = calibrate(exact, linear.model, simulate=simulate, num_simulations=200, progress=False)
    assert found.judgement == "good"
    assert list(found.ranks) == ["w[0]", "w[1]", "w[2]", LOG_JOINT]
    with pytest.raises(ValueError, match=r"^calibrate: simulate must return parameters by site"):
        calibrate(
            exact,
            linear.model,
            simulate=lambda seed: X,  # pyright: ignore[reportArgumentType]
            progress=False,
        )


def test_fits_that_fail_are_counted() -> None:
    def sometimes(x: Tensor, y: Tensor, seed: int) -> Posterior:
        if seed % 3 == 0:
            raise ArithmeticError("it would not go")
        return exact(x, y, seed)

    found = calibrate(sometimes, linear.model, X, None, num_simulations=120, progress=False)
    assert found.failed + found.num_simulations == 120
    assert found.judgement == "cannot say"
    assert "failed, the first thus: it would not go" in found.sentence
    with pytest.raises(ValueError, match=r"^calibrate: all 20 fits failed, the first thus: it would not go"):
        calibrate(raising, linear.model, X, None, num_simulations=20, progress=False)


def raising(*data: Tensor) -> Posterior:
    raise ArithmeticError("it would not go")


def flat(y: Tensor) -> None:
    m = pyro.sample("m", dist.ImproperUniform(dist.constraints.real, (), ()))
    pyro.sample("y", dist.Normal(m.expand(3), 1.0).to_event(1), obs=y)


def learned(y: Tensor) -> None:
    pyro.sample("m", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(pyro.param("b", torch.zeros(3)), 1.0).to_event(1), obs=y)


def unseen(x: Tensor) -> None:
    pyro.sample("m", dist.Normal(0.0, 1.0))


@pytest.mark.filterwarnings("ignore:calibrate. the model's parameters")
@pytest.mark.parametrize(
    ("method", "model", "options", "words"),
    [
        (exact, linear.model, {"num_simulations": 19}, "num_simulations must be at least 20, got 19"),
        (exact, linear.model, {"num_draws": 0}, "num_draws must be at least 1, got 0"),
        (exact, linear.model, {"num_draws": 100}, "closed_form gives 99 draws, and true values are ranked among 100"),
        (exact, linear.model, {"identify": "no"}, "identify must be a function, 'exchangeable' or a dictionary"),
        (exact, linear.model, {"identify": {"w": 3}}, "identify gives dimension 3 of 'w'"),
        (exact, linear.model, {"quantities": ["v"]}, "quantities has 'v', and the draws have w, total"),
        (exact, linear.model, {"guide": mean_field}, "guide goes with methods that take a model"),
        (dadvi, flat, {}, "site 'm' has a flat prior"),
        (dadvi, learned, {}, "parameter 'b' has no prior"),
        (dadvi, unseen, {}, "the model observes none of its arguments"),
        ("nuts", linear.model, {}, "method must be a function, such as nuts; got str"),
    ],
)
def test_mistakes_get_a_sentence(method, model, options: dict, words: str) -> None:
    data = (X, None) if model is linear.model else (torch.zeros(3),)
    with pytest.raises(ValueError, match=f"^calibrate: {words}"):
        calibrate(method, model, *data, progress=False, **options)


def test_points_are_refused() -> None:
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    model = partial(gmm.model, num_components=2, prior=gmm.default_prior(x, 2))
    steps = gmm.em_steps(2)
    with pytest.raises(ValueError, match=r"^calibrate: em gives a point"):
        calibrate(partial(em, steps, num_restarts=2), model, x, progress=False)


def test_the_seed_decides() -> None:
    first, again, other = (
        calibrate(exact, linear.model, X, None, num_simulations=20, seed=seed, progress=False).ranks["w[0]"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_band_is_arvizs() -> None:
    """The pointwise level of the simultaneous band, by 1,000 simulations here and there."""
    size, num_draws = 100, 49
    ours = Uniformity(size, num_draws, 1)
    points = ours.points / (num_draws + 1)
    theirs = simulate_confidence_bands(size, 1, points, 0.95, 2000, np.random.default_rng(0))
    level = 1 - 2 * float(np.quantile(ours._null, 0.05))
    assert level == pytest.approx(theirs, abs=0.002)


def test_p_values_of_uniform_ranks_are_uniform_and_the_band_is_where_they_are_five_percent() -> None:
    rng = np.random.default_rng(0)
    uniform = Uniformity(200, 99, 1)
    ranks = rng.integers(100, size=(2000, 200))
    p_values = uniform.p_values(ranks)
    assert abs((p_values < 0.05).mean() - 0.05) < 4 * (0.05 * 0.95 / 2000) ** 0.5
    low, high = uniform.band()
    shares = uniform.counts(ranks) / 200
    outside = ((shares < low - 1e-9) | (shares > high + 1e-9)).any(1)
    assert (outside == (p_values < 0.05)).mean() > 0.99


def test_power_is_that_of_the_published_test() -> None:
    """Of sds 20 % too small 200 ranks find 72 % by a band at 20 places, of a shift of a quarter sd 87 %; here at 99."""
    rng = np.random.default_rng(0)
    uniform = Uniformity(200, 99, 1)
    for shift, scale, power in ((0.0, 0.8, 0.72), (0.25, 1.0, 0.87)):
        truth = rng.standard_normal((300, 200, 1))
        ranks = (shift + scale * rng.standard_normal((300, 200, 99)) < truth).sum(2)
        assert (uniform.p_values(ranks) < 0.05).mean() > power - 0.1


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.3, 0.6), (0.0, 1.6), (-1.0, 0.2)])
def test_errors_are_those_of_the_draws_within_their_standard_errors(shift: float, scale: float) -> None:
    """Also of draws so narrow that most true values lie beyond all of them."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((40, 300, 1))
    ranks = (shift + scale * rng.standard_normal((40, 300, 99)) < truth).sum(2)
    found = errors(ranks, 99)
    for name, expected in (("shift", shift), ("ratio", scale)):
        value, error = found["mean_shift_in_sd" if name == "shift" else "sd_ratio"], found[f"error_of_{name}"]
        z = (value - expected) / error
        assert abs(z.mean()) < 0.8
        assert 0.6 < z.std() < 1.5


def test_symmetry_is_the_kolmogorov_smirnov_distance_of_ranks_mirrored() -> None:
    rng = np.random.default_rng(0)
    ranks = np.stack([rng.integers(100, size=300), rng.binomial(99, 0.45, 300), rng.choice([0, 1, 98, 99], 300)])
    found = symmetry(ranks, 99)
    for row, distance in zip(ranks, found.distance, strict=True):
        assert distance == pytest.approx(ks_2samp(row, 99 - row)[0])
    assert found.p_values[1] < 0.001
    assert (found.p_values[[0, 2]] > 0.05).all()  # ranks at both ends are symmetric


def test_holm() -> None:
    assert holm(np.array([0.04, 0.01, 0.5])).tolist() == pytest.approx([0.08, 0.03, 0.5])  # Holm (1979)


def test_picture_page_and_json(tmp_path: Path) -> None:
    found = of_exact(60, scale=0.5)
    assert len([ax for ax in found.plot().axes if ax.get_visible()]) == 5
    titles = [ax.get_title(loc="left") for ax in plots.plot_calibration(found).axes]
    assert any("too narrow" in title for title in titles)
    page = write_calibration(found, tmp_path / "page.html", facts=[("Model", "a <line>")]).read_text()
    assert found.sentence.replace("<", "&lt;") in page.replace("\u00a0", " ")
    assert "a &lt;line&gt;" in page
    json.dumps(found.quantities, allow_nan=False)
    assert "<table" in found._repr_html_()


def test_the_command(call, tmp_path: Path) -> None:
    words = [
        "calibrate",
        "linear",
        "--method",
        "closed_form",
        "--rows",
        40,
        "--simulations",
        60,
        "--out",
        tmp_path / "c",
    ]
    status, out, err = call(*words, "--json", tmp_path / "c.json")
    assert status == 0, err
    assert "closed_form" in out
    record = json.loads((tmp_path / "c.json").read_text())
    assert record == json.loads((tmp_path / "c" / "calibration.json").read_text())
    assert (record["model"], record["num_simulations"], record["num_draws"]) == ("linear", 60, 99)
    assert len(record["ranks"]["noise_sd"]) == 60
    assert {*record["quantities"]} == {*record["ranks"]}
    assert min(row["p_value"] for row in record["quantities"].values()) > 0.01
    assert (tmp_path / "c" / "calibration.png").stat().st_size > 10_000
    assert "Ranks of true values" in (tmp_path / "c" / "calibration.html").read_text()


def test_the_command_refuses(call) -> None:
    for words, sentence in (
        (["gmm", "--method", "em"], "calibrate: em gives a point for gmm"),
        (["linear", "--method", "closed_form", "--rows", "9999"], "calibrate: --rows 9999 is more than the data have"),
        (["logistic", "--simulations", "3"], "Invalid value for '--simulations'"),
    ):
        status, _, err = call("calibrate", *words)
        assert status == 2
        assert sentence in err


def test_the_command_takes_a_models_own_prior(call, tmp_path: Path) -> None:
    """The prior of a mixture, which its default data make, is the same for every simulated data set."""
    words = [
        "gmm",
        "--method",
        "gibbs",
        "--rows",
        40,
        "--simulations",
        20,
        "--ranks",
        19,
        "--draws",
        60,
        "--warmup",
        30,
    ]
    status, _, err = call(
        "calibrate", *words, "--set", "num_components=2", "--chains", 1, "--json", tmp_path / "g.json"
    )
    assert status == 0, err
    record = json.loads((tmp_path / "g.json").read_text())
    assert record["quantities"]["loc[0,0]"]["p_value"] > 0.001
    assert record["failed"] == 0


@pytest.mark.slow
def test_nuts_is_compiled_once_for_all_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpyro")
    from guidebook.inference.engines.xla import chains

    compiled: list[int] = []
    compile_program = chains.compile_program
    monkeypatch.setattr(chains, "compile_program", lambda *given: compiled.append(1) or compile_program(*given))
    sampler = partial(nuts, num_draws=100, num_warmup=80, num_chains=1)
    found = calibrate(sampler, linear.model, X, None, num_simulations=20, progress=False)
    assert len(compiled) == 1
    assert found.method == "nuts"
    assert (found.table["p_value"] > 0.01).all()
    assert found.table["error_of_ratio"].max() < 0.4


@pytest.mark.slow
def test_a_compiled_program_takes_the_data_of_each_fit() -> None:
    """The exact posterior of each data set, by a program that was compiled for the first."""
    pytest.importorskip("numpyro")
    kept: list[tuple[Tensor, Posterior]] = []

    def remembering(model, x: Tensor, y: Tensor, seed: int) -> Posterior:
        posterior = nuts(model, x, y, num_draws=400, num_warmup=200, num_chains=1, seed=seed, progress=False)
        kept.append((y, posterior))
        return posterior

    calibrate(remembering, linear.model, X, None, num_simulations=20, progress=False)
    for y, posterior in (kept[0], kept[7], kept[-1]):
        expected = linear.posterior(X, y)
        z = (posterior.draws["w"].mean((0, 1)) - expected.mean) / expected.variance.sqrt()
        assert float(z.abs().max()) < 5 / 100**0.5


@pytest.mark.slow
def test_several_processes_give_the_ranks_of_one() -> None:
    """Also what is counted: fits that fail do so in both."""
    options: dict[str, Any] = {"num_simulations": 24, "num_draws": 20, "progress": False}
    fails = partial(exact_unless, 3)
    one, two = (calibrate(fails, linear.model, X, None, processes=count, **options) for count in (1, 2))
    assert {name: ranks.tolist() for name, ranks in two.ranks.items()} == {
        name: ranks.tolist() for name, ranks in one.ranks.items()
    }
    assert 0 < two.failed == one.failed < 24
    assert two.sentence == one.sentence


def exact_unless(every: int, x: Tensor, y: Tensor, seed: int) -> Posterior:
    """Exact draws, but for one data set in ``every``, which fails."""
    if seed % every == 0:
        raise ArithmeticError("no fit")
    return exact(x, y, seed)


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "isotropic"])
def test_every_site_of_components_is_put_in_their_order(covariance: str) -> None:
    """Sites with a value per component, found by their shapes, for three components of four columns."""
    settings = ["num_components=3", f"covariance={covariance}"]
    task = with_fixed_prior(load_task("gmm", settings=settings), num_rows=20)
    trace = pyro.poutine.trace(task.model).get_trace(*task.args)
    shapes = {name: site["value"].shape for name, site in trace.nodes.items() if name not in ("_INPUT", "_RETURN")}
    found = components_of(task)
    assert next(iter(found)) == "loc"
    assert set(found) == {name for name, shape in shapes.items() if shape[:1] == (3,)}
