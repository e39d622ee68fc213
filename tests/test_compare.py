"""What `compare` measures and says, on draws whose shifts and spreads are known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from guidebook.inference import ClosedFormInfo, EmInfo, NutsInfo, Posterior, SviInfo, compare
from guidebook.inference.diagnostics import MAX_R_HAT
from guidebook.inference.verdict import distance

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    GENERATOR.manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def by_nuts(divergences: int = 0, **draws: torch.Tensor) -> Posterior:
    chains = next(iter(draws.values())).shape[0]
    counts = torch.tensor([divergences] + [0] * (chains - 1))
    ones = torch.ones(chains)
    info = NutsInfo(
        r_hat={},
        ess={},
        divergences=counts,
        accept_rate=0.8 * ones,
        step_size=ones,
        num_warmup=100,
        seconds=1.0,
        seed=0,
        converged=True,
        message="drew enough",
    )
    return Posterior(draws=draws, info=info)


def by_svi(k_hat: float | None = 0.3, converged: bool = True, **draws: torch.Tensor) -> Posterior:
    because = "took all 10 steps" + ("" if converged else " with the loss still falling, by 3 nats: take more steps")
    info = SviInfo(
        guide="mean_field",
        losses=torch.zeros(10),
        elbo=-1.0,
        elbo_se=0.1,
        k_hat=k_hat,
        seconds=1.0,
        seed=0,
        converged=converged,
        message=because,
    )
    return Posterior(draws=draws, info=info)


def reference() -> Posterior:
    return by_nuts(a=3 + 2 * normal(4, 1000), b=normal(4, 1000, 2))


def test_figures_are_in_sds_of_the_reference() -> None:
    """The sd of n independent normal draws has a relative error of 1 / sqrt(2 n)."""
    ref = reference()
    other = by_svi(a=3 + 0.5 * 2 + 2 * 1.5 * normal(1, 20_000), b=normal(1, 20_000, 2))
    row = compare(ref, other).quantities["svi:mean_field"].loc["a"]
    error = math.hypot(1 / 4000**0.5, 1.5 / 20_000**0.5)
    assert row["mcse_in_sd"] == pytest.approx(error, rel=0.15)
    assert row["mean_shift_in_sd"] == pytest.approx(0.5, abs=4 * error)
    error = 1.5 * math.hypot(1 / 8000**0.5, 1 / 40_000**0.5)
    assert row["sd_ratio_error"] == pytest.approx(error, rel=0.15)
    assert row["sd_ratio"] == pytest.approx(1.5, abs=4 * error)
    few = compare(ref, by_svi(a=3 * normal(1, 1000))).quantities["svi:mean_field"].loc["a"]
    assert few["sd_ratio_error"] == pytest.approx(1.5 * math.hypot(1 / 8000**0.5, 1 / 2000**0.5), rel=0.15)
    # between N(.5, 1.5²) and N(0, 1) the distance is E|.5 + .5 z|, a folded normal's mean
    folded = 0.5 * math.sqrt(2 / math.pi) * math.exp(-0.5) + 0.5 * math.erf(1 / math.sqrt(2))
    assert row["wasserstein_in_sd"] == pytest.approx(folded, abs=0.1)


def test_one_quantity_is_refused_above_the_limit_of_r_hat() -> None:
    """One chain a little apart from three that are not: R̂ of a single quantity just below 1.01, and just above."""
    draws = normal(4, 1000)
    for shift, refused in ((0.22, False), (0.28, True)):
        moved = draws + torch.tensor([shift, 0, 0, 0])[:, None]
        comparison = compare(by_nuts(a=moved), by_nuts(a=draws))
        r_hat = comparison.quantities["nuts"].loc["a", "r_hat"]
        assert abs(r_hat - MAX_R_HAT) < 0.005
        assert (r_hat > MAX_R_HAT) == refused
        assert bool(comparison.refused) == refused


def test_wasserstein_distance_is_scipys_for_any_numbers_of_draws() -> None:
    from scipy.stats import wasserstein_distance

    ref = by_nuts(a=3 + 2 * normal(4, 300), b=normal(4, 300, 2).round())
    for other in (by_svi(a=normal(1, 700), b=normal(1, 700, 2)), by_nuts(a=normal(4, 300), b=normal(4, 300, 2))):
        comparison = compare(ref, other, names=["reference", "other"])
        for label, x in comparison.draws["reference"].items():
            known = wasserstein_distance(x.flatten(), comparison.draws["other"][label].flatten())
            row = comparison.quantities["other"].loc[label]
            assert row["wasserstein_in_sd"] == pytest.approx(known / float(x.std()), rel=1e-10)


def test_effective_draws_are_the_fewer_of_those_for_mean_and_sd() -> None:
    """Means of antithetic chains are known better than of independent draws, their sds worse."""
    noise = normal(4, 1000)
    draws = noise.clone()
    for t in range(1, 1000):
        draws[:, t] = -0.6 * draws[:, t - 1] + 0.8 * noise[:, t]
    sizes = compare(by_nuts(a=draws), by_nuts(a=draws)).quantities["nuts"]["ess"]
    assert sizes["a"] == pytest.approx(4000 * (1 - 0.36) / (1 + 0.36), rel=0.25)  # φ² of the squares; 16,000 for means


def test_distance_counts_in_multiples_of_what_is_usable() -> None:
    frame = pd.DataFrame(
        {"mean_shift_in_sd": [-0.5, 0.1, 0.1, 0.25], "sd_ratio": [1.0, 1.25**3, 1.25**-4, np.nan]},
        index=pd.Index(list("abcd")),
    )
    assert distance(frame).tolist() == pytest.approx([2, 3, 4, 1])
    assert math.isinf(distance(frame.assign(sd_ratio=0.0)).iloc[0])


def test_noise_alone_does_not_condemn() -> None:
    """A perfect posterior with 1000 draws of 40 quantities: its worst mean is .1 sd off by chance."""
    ref = by_nuts(w=normal(4, 1000, 40))
    for _ in range(5):
        verdict = compare(ref, by_svi(w=normal(1, 1000, 40))).verdicts["svi:mean_field"]
        assert verdict.judgement in ("good", "usable")


def test_exact_posteriors_of_thousands_of_quantities_are_good() -> None:
    """400 independent draws beside 4,000, Monte Carlo error .052: two of them do not cover the largest shift."""
    generator = torch.Generator().manual_seed(1)
    ref = by_nuts(w=torch.randn(4, 1000, 3000, generator=generator))
    exact = [by_svi(w=torch.randn(1, 400, 3000, generator=generator)) for _ in range(3)]
    comparison = compare(ref, *exact, names=list("abcd"))
    assert [comparison.verdicts[name].judgement for name in "abcd"] == ["reference", "good", "good", "good"]
    frames = [comparison.quantities[name] for name in "bcd"]
    assert any((frame["mean_shift_in_sd"].abs() > 0.1 + 2 * frame["mcse_in_sd"]).any() for frame in frames)


def test_a_reference_says_what_is_no_more_than_chance() -> None:
    ref = by_nuts(w=normal(4, 200, 3000))
    sentence = compare(ref, ref).verdicts["nuts"].sentence
    assert "R̂ at most 1.02" in sentence or "R̂ at most 1.01" in sentence
    assert "(of 3,000 quantities, no more than chance)" in sentence


def test_one_of_thousands_of_quantities_that_is_off_is_found() -> None:
    other = normal(4, 1000, 3000)
    other[..., 1234] += 0.5
    verdict = compare(by_nuts(w=normal(4, 1000, 3000)), by_nuts(w=other)).verdicts["nuts#2"]
    assert "off centre (1 of 3000 quantities; at w[1234]" in verdict.sentence


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        (by_nuts(1, a=normal(4, 1000)), "one transition diverged"),
        (by_nuts(12, a=normal(4, 1000)), "12 transitions diverged"),
        (by_nuts(a=normal(4, 1000) + torch.arange(4)[:, None]), "chains disagree (R̂"),
        (by_nuts(a=normal(4, 60)), "too few effective draws"),
        (by_svi(1.1, a=normal(1, 5000)), "unknown distance from the posterior (k̂ = 1.10 > 0.7 warns of it)"),
        (
            by_svi(0.3, a=normal(1, 5000)),
            "unknown distance from the posterior (k̂ = 0.30 cannot rule out that it is far)",
        ),
    ],
)
def test_a_reference_that_is_not_fit_is_refused(ref: Posterior, words: str) -> None:
    comparison = compare(ref, by_svi(a=normal(1, 5000)), names=["reference", "other"])
    assert words in (comparison.refused or "")
    assert words in comparison.verdicts["reference"].sentence
    assert comparison.verdicts["other"].judgement == "not judged"
    assert "not fit to judge" in str(comparison)


def test_a_point_shows_its_shift_and_has_no_ratio() -> None:
    info = EmInfo(
        objective=torch.zeros(3), log_likelihood=-1.0, optima=[], seconds=1.0, seed=0, converged=True, message="level"
    )
    point = Posterior({"a": torch.full((1, 1), 4.0), "b": torch.zeros(1, 1, 2)}, info)
    comparison = compare(reference(), point)
    row = comparison.quantities["em"].loc["a"]
    assert row["mean_shift_in_sd"] == pytest.approx(0.5, abs=0.1)
    assert math.isnan(row["sd_ratio"])
    assert comparison.verdicts["em"].judgement == "point"
    assert compare(point, reference()).refused == "it is a point, without a spread to measure others by"


def test_constants_and_repeated_entries_are_left_out() -> None:
    """A covariance has each entry off its diagonal twice; a zero is no quantity."""
    off = normal(4, 500)
    matrix = torch.stack([torch.stack([normal(4, 500), off], -1), torch.stack([off, normal(4, 500)], -1)], -2)
    ref = by_nuts(s=matrix, zero=torch.zeros(4, 500))
    assert list(compare(ref, ref).draws["nuts"]) == ["s[0,0]", "s[0,1]", "s[1,1]"]


def test_sites_are_those_that_all_share() -> None:
    ref = by_nuts(a=normal(4, 500), only_here=normal(4, 500))
    assert list(compare(ref, by_svi(a=normal(1, 500))).draws["nuts"]) == ["a"]
    with pytest.raises(ValueError, match="share no site"):
        compare(ref, by_svi(c=normal(1, 500)))
    with pytest.raises(ValueError, match="'a' has shape"):
        compare(ref, by_svi(a=normal(1, 500, 2)))


def test_names_and_arguments() -> None:
    ref = reference()
    assert list(compare(ref, ref, ref).posteriors) == ["nuts", "nuts#2", "nuts#3"]
    for names in (["x"], ["x", "x"]):
        with pytest.raises(ValueError, match="names must be 2 different ones"):
            compare(ref, ref, names=names)
    with pytest.raises(ValueError, match="at least one posterior beside"):
        compare(ref)


def test_it_reads_well_printed_and_in_a_notebook() -> None:
    comparison = compare(reference(), by_svi(a=3 + normal(1, 10_000), b=normal(1, 10_000, 2)))
    text = str(comparison)
    assert text.splitlines()[0].startswith("nuts is the reference")
    assert "too narrow" in text
    assert "<table" in comparison._repr_html_()
    assert comparison.table.loc["svi:mean_field", "worst"] == comparison.worst("svi:mean_field") == "a"


def test_exact_draws_may_judge() -> None:
    """Draws from a solution in closed form, which has no R̂, no bound and no guide."""
    exact = ClosedFormInfo(seconds=0.0, seed=0, is_point=False)
    draws = {"a": 3 + 2 * normal(1, 4000), "b": normal(1, 4000, 2)}
    comparison = compare(Posterior(draws, exact), by_svi(a=3 + 2 * normal(1, 20_000), b=normal(1, 20_000, 2)))
    assert comparison.refused is None
    assert comparison.verdicts["svi:mean_field"].judgement == "good"
