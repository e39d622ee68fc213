"""The rule behind every verdict, and its sentences: figures just inside and outside each limit, faults of each kind."""

import math
from typing import Any

import pandas as pd
import pytest
import torch
import xarray as xr
from test_compare import GENERATOR, by_nuts, by_svi, normal, reference

from guidebook.inference import CaviInfo, EmInfo, GibbsInfo, Posterior, compare
from guidebook.inference.advice import FAULTS, next_call
from guidebook.inference.diagnostics import least_ess
from guidebook.inference.judge import judge, judge_reference
from guidebook.inference.verdict import grade, margin, max_mcse, problems, reference_problems


@pytest.fixture(autouse=True)
def _seed() -> None:
    GENERATOR.manual_seed(0)


SAME = {
    "mean": 0.0,
    "sd": 1.0,
    "mean_shift_in_sd": 0.0,
    "sd_ratio": 1.0,
    "mcse": 0.0,
    "mcse_sd": 0.0,
    "mcse_in_sd": 0.0,
    "sd_ratio_error": 0.0,
    "r_hat": 1.0,
    "ess": 4000.0,
    "disagrees": False,
}


def frame(**figures: float) -> pd.DataFrame:
    """Two quantities: one is exactly the reference's, the other has the figures given."""
    return pd.DataFrame([SAME, SAME | figures], index=pd.Index(["a", "b"]))


def verdict_on(posterior: Posterior | None = None, **figures: float):
    """What is said of a posterior, by svi unless given, of which `frame` is known."""
    return judge("other", "nuts", posterior or by_svi(a=normal(1, 1000)), frame(**figures))


def judged(**figures: float) -> str:
    found = frame(**figures)
    figures_of = (found[c] for c in ("mean_shift_in_sd", "sd_ratio", "mcse_in_sd", "sd_ratio_error"))
    graded, said = grade(*figures_of).judgement, verdict_on(**figures).judgement
    assert graded == ("cannot say" if said == "too few draws" else said)
    return said


@pytest.mark.parametrize(
    ("column", "inside", "outside", "worse"),
    [
        ("mean_shift_in_sd", 0.099, 0.101, "usable"),
        ("mean_shift_in_sd", -0.099, -0.101, "usable"),
        ("mean_shift_in_sd", 0.249, 0.251, "bad"),
        ("mean_shift_in_sd", -0.249, -0.251, "bad"),
        ("sd_ratio", 1.099, 1.101, "usable"),
        ("sd_ratio", 1.001 / 1.10, 0.999 / 1.10, "usable"),
        ("sd_ratio", 1.249, 1.251, "bad"),
        ("sd_ratio", 1.001 / 1.25, 0.999 / 1.25, "bad"),
        ("mcse_in_sd", max_mcse(2) - 1e-4, max_mcse(2) + 1e-4, "too few draws"),
        ("sd_ratio_error", max_mcse(2) - 1e-4, max_mcse(2) + 1e-4, "too few draws"),
    ],
)
def test_thresholds(column: str, inside: float, outside: float, worse: str) -> None:
    assert judged(**{column: inside}) == ("usable" if worse == "bad" else "good")
    assert judged(**{column: outside}) == worse


def test_monte_carlo_error_may_be_a_tenth_of_an_sd_or_more_at_the_worst_of_many() -> None:
    assert max_mcse(1) == 0.1
    assert 0.1 < max_mcse(30) < max_mcse(3000) < 0.13


def test_the_margin_is_two_standard_errors_or_the_quantile_of_the_largest_of_many() -> None:
    assert margin(1) == 2.0
    for count in (2, 30, 3000):
        below = 0.5 * (1 + math.erf(margin(count) / math.sqrt(2)))  # one figure's chance to stay below it
        assert 2 * count * (1 - below) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("error", [0.05, 0.09, 0.5, 20.0])
@pytest.mark.parametrize(("better", "shift", "ratio"), [("good", 0.10, 1.10), ("usable", 0.25, 1.25)])
def test_a_figure_is_beyond_a_threshold_by_a_margin_of_errors(
    better: str, shift: float, ratio: float, error: float
) -> None:
    """Errors of sds are relative. Large ones hide whether a figure is good or usable, and never that it is bad."""
    worse = "usable" if better == "good" else "bad"
    unknown = error > max_mcse(2)
    if unknown:
        better, worse = "too few draws", "bad" if worse == "bad" else "too few draws"
    inside, outside = error * margin(2) - 1e-3, error * margin(2) + 1e-3
    for sign in (1, -1):
        assert judged(mean_shift_in_sd=sign * (shift + inside), mcse_in_sd=error) == better
        assert judged(mean_shift_in_sd=sign * (shift + outside), mcse_in_sd=error) == worse
        for beyond, judgement in ((inside, better), (outside, worse)):
            figure = (ratio * math.exp(beyond)) ** sign
            assert judged(sd_ratio=figure, sd_ratio_error=error * figure) == judgement


def test_a_rule_for_any_judge() -> None:
    """What `check` asks of it: plain arrays, and which quantity is what."""
    graded = grade([0.0, 0.9, 0.0, 0.0, 0.1], [1.0, 1.0, 0.5, 3.0, 1.0], [0.02] * 4 + [0.3], [0.02] * 5)
    assert graded.judgement == "bad"
    assert graded.off_centre.tolist() == [False, True, False, False, False]
    assert graded.too_narrow.tolist() == [False, False, True, False, False]
    assert graded.too_wide.tolist() == [False, False, False, True, False]
    assert graded.unknown.tolist() == [False, False, False, False, True]
    assert grade([5.0], [1.0], [0.5], [0.02]).unknown.tolist() == [False]  # far off for certain
    assert grade([0.1, 0.0], [1.0, 1.0], [0.3, 0.01], [0.02, 0.02]).judgement == "cannot say"
    for shift, ratio in ((math.nan, 1.0), (0.0, math.nan)):
        assert grade([0.0, shift], [1.0, ratio], [0.02] * 2, [0.02] * 2).judgement == "cannot say"
    assert grade([0.0], [0.0], [0.0], [math.nan]).judgement == "bad"  # a constant has no spread, for certain


@pytest.mark.parametrize(("draws", "scale"), [(1000, 50.0), (1000, 4.0), (20, 50.0)])
def test_a_posterior_several_times_too_wide_is_bad_however_few_its_draws(draws: int, scale: float) -> None:
    """50 times too wide with 1,000 draws, the mean is known to 1.6 sds of the reference: no reason to wait for more."""
    wide = by_svi(a=3 + scale * 2 * normal(1, draws), b=scale * normal(1, draws, 2))
    comparison = compare(reference(), wide)
    assert comparison.quantities["svi:mean_field"].loc["a", "mcse_in_sd"] > 0.1
    verdict = comparison.verdicts["svi:mean_field"]
    assert verdict.judgement == "bad"
    assert "too wide (3 of 3 quantities" in verdict.sentence


def test_one_draw_far_out_does_not_hide_a_spread_of_many_times_the_reference() -> None:
    """The error of such an sd is half of it, as large as it can be, and yet it is not within a quarter of the truth."""
    draws = normal(1, 1000)
    draws[0, 0] = 4000.0
    comparison = compare(by_nuts(a=normal(4, 1000)), by_svi(a=draws))
    row = comparison.quantities["svi:mean_field"].loc["a"]
    assert row["sd_ratio"] - margin(1) * row["sd_ratio_error"] < 1.25
    assert comparison.verdicts["svi:mean_field"].judgement == "bad"


def test_a_mean_far_off_is_bad_however_few_the_draws() -> None:
    verdict = compare(reference(), by_svi(a=43 + 2 * normal(1, 20), b=normal(1, 20, 2))).verdicts["svi:mean_field"]
    assert verdict.judgement == "bad"
    assert "off centre (1 of 3 quantities; at a its mean is +" in verdict.sentence


@pytest.mark.parametrize("draws", [5, 20, 40])
def test_the_number_of_draws_to_take_is_one_that_does(draws: int) -> None:
    """A right posterior with few draws: as many as it is told to take, and it is good."""
    ref = reference()
    verdict = compare(ref, by_svi(a=3 + 2 * normal(1, draws), b=normal(1, draws, 2))).verdicts["svi:mean_field"]
    assert verdict.judgement == "too few draws"
    assert "times as many draws: svi(model, mean_field, …, num_draws=" in verdict.sentence
    told = int(verdict.sentence.rpartition("num_draws=")[2].rstrip(")."))
    assert 200 <= told <= 2000
    again = compare(ref, by_svi(a=3 + 2 * normal(1, told), b=normal(1, told, 2))).verdicts["svi:mean_field"]
    assert again.judgement == "good"


def test_three_draws_tell_no_error() -> None:
    verdict = compare(reference(), by_svi(a=3 + 2 * normal(1, 3), b=normal(1, 3, 2))).verdicts["svi:mean_field"]
    assert verdict.judgement == "too few draws"
    assert "take more: svi(model, mean_field, …, num_draws=1000)" in verdict.sentence


def test_it_is_the_references_draws_that_are_too_few_if_theirs_is_the_error() -> None:
    """A spread known to 20 % because the reference's is: more draws of the other would not help."""
    figures = {"sd_ratio_error": 0.2, "mcse_sd": 0.01}
    assert "take about 16 times as many draws of nuts." in verdict_on(**figures).sentence
    assert "take about 16 times as many draws: svi(" in verdict_on(**figures | {"mcse_sd": 0.199}).sentence
    assert "Monte Carlo error of its sd is 20 % at b" in verdict_on(**figures).sentence


def test_a_sampler_with_too_few_effective_draws_is_told_to_take_more() -> None:
    few = {"ess": least_ess(2) - 1}
    for posterior in (by_nuts(a=normal(4, 500)), gibbs()):
        verdict = verdict_on(posterior, **few)
        assert verdict.judgement == "too few draws"
        assert "too few effective draws (" in verdict.sentence
    assert "gibbs(steps, …, num_draws=" in verdict.sentence
    assert verdict_on(by_nuts(a=normal(4, 500)), ess=least_ess(2) + 1).judgement == "good"
    assert verdict_on(by_nuts(a=normal(4, 500)), **few, sd_ratio=2.0).judgement == "bad"


@pytest.mark.parametrize("k_hat", [None, 0.2, 0.699, 0.701, 3.0])
def test_k_hat_changes_no_judgement_and_is_named(k_hat: float | None) -> None:
    fit = by_svi(k_hat, a=normal(1, 1000))
    for figures, judgement in (({}, "good"), ({"sd_ratio": 1.2}, "usable"), ({"sd_ratio": 0.5}, "bad")):
        verdict = verdict_on(fit, **figures)
        assert verdict.judgement == judgement
        assert ("k̂" in verdict.sentence) == (k_hat is not None)
        if k_hat is not None:
            agrees = (k_hat > 0.7) == (judgement == "bad")
            assert ("agrees" in verdict.sentence) == agrees
            assert ("> 0.7" in verdict.sentence) == (k_hat > 0.7)
            assert ("does not see it" in verdict.sentence) == (k_hat < 0.7 and judgement == "bad")
            assert ("warns of its tails or joint shape" in verdict.sentence) == (k_hat > 0.7 and judgement != "bad")


def test_what_is_within_monte_carlo_error_only_is_said() -> None:
    """The numbers in a sentence add up: .10 and 2.24 × .02 make .14."""
    assert "means within 0.10 sd of nuts's, sds" in verdict_on(mean_shift_in_sd=0.1, mcse_in_sd=0.02).sentence
    sentence = verdict_on(mean_shift_in_sd=0.13, mcse_in_sd=0.02).sentence
    assert sentence.startswith(
        "other is good: means within 0.13 sd of nuts's (0.10 is allowed, and 0.04 for Monte Carlo error), "
        "sds 1.00 to 1.00 of its."
    )
    doubted = verdict_on(by_svi(3.0, a=normal(1, 1000)), mean_shift_in_sd=0.13, mcse_in_sd=0.02).sentence
    assert "is good" in doubted
    assert "(0.10 is allowed, and 0.04 for Monte Carlo error)" in doubted
    sentence = verdict_on(mean_shift_in_sd=-0.28, mcse_in_sd=0.02).sentence
    assert "is usable: means within 0.28 sd of nuts's (0.25 is allowed, and 0.04 for Monte Carlo error)" in sentence
    sentence = verdict_on(sd_ratio=0.88, sd_ratio_error=0.02).sentence
    assert "is good" in sentence
    assert "sds 0.88 to 1.00 of its (0.91 to 1.10 is allowed, and 5 % for Monte Carlo error)" in sentence
    sentence = verdict_on(sd_ratio=1.28, sd_ratio_error=0.02).sentence
    assert "is usable" in sentence
    assert "sds 1.00 to 1.28 of its (0.80 to 1.25 is allowed, and 4 % for Monte Carlo error)" in sentence
    sentence = verdict_on(sd_ratio=0.5, sd_ratio_error=0.01).sentence
    assert "Its means are within 0.00 sd." in sentence


def test_what_went_wrong_with_the_fit_is_said_first() -> None:
    fit = by_svi(converged=False, a=normal(1, 1000))
    for figures in ({}, {"sd_ratio": 0.5, "mean_shift_in_sd": 3.3}, {"mcse_in_sd": 0.5}):
        verdict = verdict_on(fit, **figures)
        assert verdict.judgement == "bad"
        start = "other is bad: it has not converged (took all 10 steps with the loss still falling, by 3 nats"
        assert verdict.sentence.startswith(start)
        assert verdict.sentence.endswith("Next: dadvi(model, …), or svi(model, mean_field, …, num_steps=40).")
        assert ("k̂ = 0.30 does not see it" in verdict.sentence) == bool(figures.get("sd_ratio"))
        assert "agrees" not in verdict.sentence
    sentence = verdict_on(fit, sd_ratio=0.5, mean_shift_in_sd=3.3).sentence
    assert "Beside nuts it is too narrow (1 of 2 quantities; at b its sd is 0.50 of nuts's) and off centre" in sentence
    sentence = verdict_on(by_nuts(3, a=normal(4, 1000)), sd_ratio=0.5).sentence
    assert sentence.startswith("other is bad: 3 transitions diverged")
    assert "Next: nuts(model, …, target_accept=0.95), or a non-centred form of the model." in sentence
    sentence = verdict_on(by_nuts(a=normal(4, 1000)), disagrees=True, r_hat=1.3).sentence
    assert sentence.startswith("other is bad: its chains disagree (R̂ 1.3000 at b")
    assert sentence.endswith("Next: nuts(model, …, num_warmup=200, num_draws=2000).")
    assert verdict_on(fit, mean=math.inf, mean_shift_in_sd=math.inf, sd=math.nan).sentence.startswith(
        "other is bad: some of its draws are not finite; it has not converged"
    )


def test_a_point_that_has_not_converged_says_so_first() -> None:
    point = {"sd": math.nan, "sd_ratio": math.nan, "mean_shift_in_sd": 0.2}
    figures = pd.DataFrame([SAME | point] * 2, index=pd.Index(["a", "b"]))
    for converged in (True, False):
        verdict = judge("em", "nuts", em(converged), figures)
        assert verdict.judgement == "point"
        assert verdict.sentence.startswith("em is a point: it has not converged (") == (not converged)
        assert verdict.sentence.endswith("Next: em(steps, …, num_steps=12).") == (not converged)
        assert "within a quarter sd of the mean of nuts (a: +0.20 sd)" in verdict.sentence


def em(converged: bool = True) -> Posterior:
    record = {"log_likelihood": -1.0, "optima": [], "seconds": 1.0, "seed": 0, "message": "3 iterations"}
    info = EmInfo(objective=torch.zeros(3), converged=converged, **record)  # pyright: ignore[reportArgumentType]
    return Posterior({"a": torch.zeros(1, 1)}, info)


def cavi() -> Posterior:
    record = {"optima": [], "seconds": 1.0, "seed": 0, "message": "level", "converged": True, "elbo": -1.0}
    info = CaviInfo(objective=torch.zeros(30), **record)  # pyright: ignore[reportArgumentType]
    return Posterior({"a": normal(1, 1000)}, info)


def gibbs() -> Posterior:
    record = {"r_hat": {}, "ess": {}, "num_warmup": 500, "seconds": 1.0, "seed": 0, "converged": True, "message": ""}
    return Posterior({"a": normal(4, 1000)}, GibbsInfo(**record))  # pyright: ignore[reportArgumentType]


UNTIL_GOOD = "fit(model, …), which tries methods until one is good"
BY_DADVI = f"dadvi(model, …), or {UNTIL_GOOD}"


def as_made(draws: Any = None, **fields: Any) -> Posterior:
    """A fast posterior of which the record says otherwise than `by_svi`."""
    fit = by_svi(a=normal(1, 1000) if draws is None else draws)
    return Posterior(fit.draws, type(fit.info)(**{**vars(fit.info), **fields}))


@pytest.mark.parametrize(
    "figures", [{"sd_ratio": 0.5}, {"sd_ratio": 1.6}, {"mean_shift_in_sd": 3.0}, {"sd_ratio": 0.85}]
)
@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"guide": "mean_field"}, BY_DADVI),
        ({"guide": "flow"}, BY_DADVI),
        ({"guide": "laplace", "engine": "Newton"}, BY_DADVI),
        ({"guide": None, "method": "pathfinder"}, BY_DADVI),
        ({"guide": None, "method": "dadvi"}, "check(posterior, model, …).improved, or nuts(model, …, init=posterior)"),
        ({"guide": "flow", "method": "dadvi"}, f"dadvi(model, …) without a guide, or {UNTIL_GOOD}"),
        ({"guide": None, "method": "check"}, "nuts(model, …, init=posterior)"),
        ({"guide": None, "method": "fit"}, "nuts(model, …, init=posterior)"),
        ({"learned": ["slope"]}, "check(posterior, model, …).improved, or svi(model, a richer guide, …)"),
    ],
)
def test_a_fast_posterior_that_is_wrong_is_followed_by_what_is_most_often_right(
    fields: dict, advice: str, figures: dict
) -> None:
    verdict = verdict_on(as_made(**fields), **figures)
    assert verdict.judgement == ("usable" if figures == {"sd_ratio": 0.85} else "bad")
    assert verdict.sentence.endswith(f" Next: {advice}.")


def test_a_good_posterior_needs_no_advice() -> None:
    assert "Next" not in verdict_on(by_svi(3.0, a=normal(1, 1000)), sd_ratio=0.95).sentence


def test_the_next_call_fits_the_method_and_the_fault() -> None:
    assert verdict_on(cavi(), sd_ratio=0.5).sentence.endswith(f"Next: {BY_DADVI}.")
    assert verdict_on(gibbs(), sd_ratio=0.5).sentence.endswith(
        "Next: gibbs(steps, …, num_warmup=1000, num_draws=2000)."
    )


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({}, "dadvi(model, …), or svi(model, mean_field, …, num_steps=40)"),
        ({"learned": ["slope"]}, "svi(model, mean_field, …, num_steps=40)"),
        ({"guide": "laplace", "engine": "Newton"}, BY_DADVI),
        ({"guide": None, "method": "pathfinder"}, BY_DADVI),
        ({"guide": None, "method": "dadvi"}, "check(posterior, model, …).improved, or nuts(model, …, init=posterior)"),
        ({"guide": None, "method": "check"}, "nuts(model, …, init=posterior)"),
    ],
)
def test_what_has_not_converged_goes_on_only_where_it_takes_steps(fields: dict, advice: str) -> None:
    verdict = verdict_on(as_made(**fields, converged=False))
    assert verdict.judgement == "bad"
    assert verdict.sentence.endswith(f"Next: {advice}.")


def test_a_model_of_discrete_sites_alone_gets_no_method_that_needs_gradients() -> None:
    """Draws of a score-function guide: neither dadvi nor NUTS has anything to draw."""
    whole = (normal(1, 1000) > 0).double()
    for fields in ({}, {"converged": False}):
        fit = as_made(whole, **fields)
        for said in (verdict_on(fit, sd_ratio=0.5), verdict_on(fit, sd_ratio=0.85)):
            assert " Next: svi(model, " in said.sentence
            assert not any(name in said.sentence for name in ("dadvi(", "fit(", "check(", "nuts("))
    assert judge_reference("svi", as_made(whole), frame()).sentence.endswith("Next: gibbs(steps, …) as the reference.")


def test_draws_that_are_not_finite_are_those_of_another_method() -> None:
    figures = {"mean": math.inf, "mean_shift_in_sd": math.inf, "sd": math.nan}
    assert verdict_on(**figures).sentence.endswith(f"Next: {BY_DADVI}.")
    assert verdict_on(as_made(guide=None, method="dadvi"), **figures).sentence.endswith("Next: nuts(model, …).")


def test_more_draws_come_from_a_call_that_takes_their_number() -> None:
    """The number of draws of `dadvi` is that of its objective, and moved draws are as many as chains have kept."""
    for method, guide, call in (
        ("pathfinder", None, "pathfinder(model, …, num_draws=7900)"),
        ("dadvi", None, "nuts(model, …, init=posterior)"),
        ("check", None, "nuts(model, …, init=posterior)"),
        ("svi", "flow", "svi(model, flow, …, num_draws=7900)"),
    ):
        figures = {"mcse_in_sd": 0.14, "mcse": 0.14}
        sentence = verdict_on(as_made(method=method, guide=guide), **figures).sentence
        assert sentence.endswith(f"take about 8 times as many draws: {call}.")


def test_smaller_steps_are_not_advised_where_steps_are_small_already() -> None:
    for accepted, advice in ((0.96, "target_accept=0.95"), (0.98, "nuts of a non-centred form of the model")):
        fit = by_nuts(3, a=normal(4, 1000))
        fit = Posterior(fit.draws, type(fit.info)(**{**vars(fit.info), "accept_rate": torch.full((4,), accepted)}))
        assert advice in verdict_on(fit).sentence
        assert ("target_accept" in verdict_on(fit).sentence) == (accepted < 0.97)


@pytest.mark.parametrize("fault", FAULTS)
def test_draws_of_another_library_get_no_call_of_ours_that_would_make_them(fault: str) -> None:
    chains, alone = normal(4, 500), normal(1, 500)
    for tensor, is_sampler in ((chains, True), (alone, False)):
        tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"a": (("chain", "draw"), tensor.numpy())})})
        tree["posterior"].attrs["inference_library"] = "pymc"
        fit = Posterior.from_datatree(tree, guide=None if is_sampler else "ADVI")
        advice = next_call(fault, fit, frame(ess=100.0))
        assert "pymc" in advice
        assert not any(words in advice for words in ("pymc(", "num_draws", "num_warmup", "target_accept=", "init="))
        assert ("fit(model, …)" in advice) == (not is_sampler and fault != "a point")


def test_how_many_draws_of_another_library_are_needed_is_said() -> None:
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"a": (("chain", "draw"), normal(4, 500).numpy())})})
    tree["posterior"].attrs["inference_library"] = "pymc"
    few = judge_reference("pymc", Posterior.from_datatree(tree), frame(ess=100.0))
    assert few.sentence.endswith("(100 at b, 381 needed). Next: 4,000 draws per chain of pymc.")


def test_every_fault_has_advice_that_names_a_method_of_guidebook() -> None:
    import guidebook.inference as inference

    for fault in FAULTS:
        for posterior in (by_svi(a=normal(1, 1000)), by_nuts(a=normal(4, 1000)), cavi(), gibbs(), em()):
            advice = next_call(fault, posterior, frame())
            assert hasattr(inference, advice.partition("(")[0]), advice


def nuts_with(metric: str, dimensions: int = 20) -> Posterior:
    fit = by_nuts(a=normal(4, 1000))
    changed = {"metric": metric, "ess": {"a": torch.ones(dimensions)}}
    return Posterior(fit.draws, type(fit.info)(**{**vars(fit.info), **changed}))


@pytest.mark.parametrize("figures", [{"ess": 274.0}, {"r_hat": 1.03, "disagrees": True}])
def test_a_full_mass_matrix_is_doubted_where_a_diagonal_one_could_do_better(figures: dict) -> None:
    advice = "Next: nuts(model, …, dense_mass=False)."

    def said(posterior: Posterior, **more: Any) -> str:
        verdict = judge_reference("nuts", posterior, frame(**figures | more))
        assert verdict.judgement == "refused"
        return verdict.sentence

    assert said(nuts_with("dense")).endswith(advice)
    for other in (nuts_with("diagonal"), nuts_with("dense", dimensions=3)):
        assert advice not in said(other)
        assert "num_draws=" in said(other)
    assert advice not in said(nuts_with("dense"), r_hat=1.8, disagrees=True)  # in different places
    assert "target_accept=0.95" in judge_reference("nuts", by_nuts(1, a=normal(4, 10)), frame()).sentence


def test_thresholds_of_a_reference() -> None:
    needed = least_ess(2)
    figures = frame(ess=needed + 0.1, r_hat=1.02)
    fit = by_nuts(a=normal(4, 10))
    assert problems(fit, figures) == reference_problems(fit, figures) == {}
    apart = figures.assign(r_hat=[1.03, 1.02], disagrees=[False, True])
    assert "R̂ 1.0200 at b" in reference_problems(fit, apart)["chains disagree"]
    few = reference_problems(fit, frame(ess=needed - 1))["too few effective draws"]
    assert f"{needed - 1:.0f} at b, {needed:.0f} needed" in few
    few = reference_problems(fit, figures[:1].assign(ess=399.0))["too few effective draws"]
    assert "399 at a, 400 needed" in few
    assert "one transition diverged" in reference_problems(by_nuts(1, a=normal(4, 10)), figures)["diverged"]


@pytest.mark.parametrize(
    ("k_hat", "words"),
    [
        (None, "from the posterior"),
        (0.54, "from the posterior (k̂ = 0.54 cannot rule out that it is far)"),
        (0.71, "from the posterior (k̂ = 0.71 > 0.7 warns of it)"),
    ],
)
def test_no_approximation_may_judge_whatever_its_k_hat(k_hat: float | None, words: str) -> None:
    """Mean-field on centred eight schools has k̂ = .54 and .42 of the sd: a right posterior would be called too wide."""
    fit = by_svi(k_hat, a=normal(1, 1000))
    assert reference_problems(fit, frame()) == {
        "an approximation": f"it is an approximation at an unknown distance {words}"
    }
    assert judge_reference("svi", fit, frame()).sentence.endswith(
        "Next: check(posterior, model, …), which needs no reference, or nuts(model, …) as the reference."
    )
    learned = judge_reference("svi", as_made(learned=["slope"]), frame()).sentence
    assert learned.endswith("Next: check(posterior, model, …), which needs no reference.")
    assert "an approximation" in reference_problems(cavi(), frame())


def test_draws_that_are_not_finite_make_a_posterior_bad() -> None:
    draws = normal(1, 1000)
    draws[0, 7] = math.inf
    verdict = compare(by_nuts(a=normal(4, 1000)), by_svi(a=draws)).verdicts["svi:mean_field"]
    assert verdict.judgement == "bad"
    assert "some of its draws are not finite" in verdict.sentence


def test_a_constant_is_too_narrow() -> None:
    """One site of a posterior has collapsed onto a point."""
    other = by_svi(a=3 + 2 * normal(1, 1000), b=torch.zeros(1, 1000, 2, dtype=torch.float64))
    verdict = compare(reference(), other).verdicts["svi:mean_field"]
    assert verdict.judgement == "bad"
    assert "too narrow (2 of 3 quantities; at b[0] its sd is 0.00 of nuts's)" in verdict.sentence


def test_effective_draws_of_a_reference_are_the_least_over_means_and_sds() -> None:
    """Antithetic chains, φ = -.87: the mean is known better than from independent draws, the sd is not known enough.

    The squares of 2,400 such draws are worth 2,400 (1 - φ²) / (1 + φ²) = 332 independent ones, and 400 are needed.
    """
    noise, draws = normal(4, 600), normal(4, 600)
    for t in range(1, 600):
        draws[:, t] = -0.87 * draws[:, t - 1] + (1 - 0.87**2) ** 0.5 * noise[:, t]
    comparison = compare(by_nuts(a=draws), by_nuts(a=normal(4, 600)))
    row = comparison.quantities["nuts"].loc["a"]
    assert row["mcse"] < 0.6 * row["sd"] / 2400**0.5
    assert row["ess"] == pytest.approx(332, rel=0.2)
    assert "too few effective draws" in str(comparison.refused)
    told = comparison.verdicts["nuts"].sentence.rpartition("num_draws=")[2]
    assert 1200 <= int(told.rstrip(").")) <= 1800  # at least twice as many per chain


def test_parameters_that_two_guides_have_learned_may_differ() -> None:
    """As the decoders of two autoencoders do: only a sampler holds parameters, at values that must be the others'."""

    def with_scale(fit: Posterior, value: float) -> Posterior:
        return Posterior({**fit.draws, "scale": torch.full((*fit.draws["a"].shape, 1), value)}, fit.info)

    fits = [with_scale(by_svi(a=normal(1, 1000)), value) for value in (1.0, 2.0)]
    comparison = compare(*fits, names=["one", "two"])
    assert "an approximation at an unknown distance" in str(comparison.refused)
    with pytest.raises(ValueError, match="parameter 'scale' has one value in nuts and another in two"):
        compare(with_scale(by_nuts(a=normal(4, 250)), 1.0), fits[1], names=["nuts", "two"])
