"""The choice between models by how they predict rows: against exact answers and other libraries."""

import math

import numpy as np
import pytest
import torch
from arviz_base import from_dict
from arviz_stats import loo
from sklearn.decomposition import _pca
from sklearn.mixture import GaussianMixture

from guidebook.inference import choose, em, held_out, psis_loo
from guidebook.inference.choice.choose import NO_DIFFERENCE
from guidebook.models import gmm, lda, mixture, ppca
from guidebook.plots import plot_choice


def normal_rows(size: int = 60) -> torch.Tensor:
    return 1 + torch.randn(size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def conjugate(x: torch.Tensor, prior_variance: float) -> tuple[float, float]:
    """Mean and variance of a normal's mean, given rows of variance one and a prior centred at zero."""
    variance = 1 / (len(x) + 1 / prior_variance)
    return float(variance * x.sum()), variance


def log_normal(x: torch.Tensor, mean: float, variance: float) -> torch.Tensor:
    return torch.distributions.Normal(mean, math.sqrt(variance)).log_prob(x)


def exact_loo(x: torch.Tensor, prior_variance: float) -> np.ndarray:
    """Of each row given all others: normal with the variance of a row and of the mean."""
    found = []
    for i in range(len(x)):
        mean, variance = conjugate(torch.cat([x[:i], x[i + 1 :]]), prior_variance)
        found.append(float(log_normal(x[i], mean, 1 + variance)))
    return np.array(found)


def draws_of(x: torch.Tensor, prior_variance: float, size: int = 1000) -> torch.Tensor:
    mean, variance = conjugate(x, prior_variance)
    draws = mean + math.sqrt(variance) * torch.randn(
        4, size, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return -0.5 * (x - draws).square() - 0.5 * math.log(2 * math.pi)


def test_loo_of_a_conjugate_normal_is_the_exact_one() -> None:
    x = normal_rows()
    score, exact = psis_loo(draws_of(x, 4.0, 4000)), exact_loo(x, 4.0)
    mean, variance = conjugate(x, 4.0)
    error = torch.expm1((x - mean).square() * variance).sqrt().numpy() / math.sqrt(16_000)  # of a mean of weights
    assert (np.abs(score.pointwise - exact) < 4.5 * error + 1e-4).all()  # 60 rows
    assert score.elpd == pytest.approx(exact.sum(), abs=error.sum())
    assert score.error == pytest.approx(exact.std(ddof=1) * math.sqrt(len(x)), rel=1e-2)
    seen = log_normal(x, mean, 1 + variance).sum()
    assert score.num_parameters == pytest.approx(float(seen) - exact.sum(), abs=error.sum())
    assert score.num_unreliable == 0
    assert not score.chains_disagree


def test_loo_is_that_of_arviz_where_draws_are_independent() -> None:
    values = draws_of(normal_rows(), 4.0)
    theirs = loo(
        from_dict({"posterior": {"mu": values[:, :, 0].numpy()}, "log_likelihood": {"x": values.numpy()}}),
        pointwise=True,
        reff=1.0,
    )
    ours = psis_loo(values)
    assert ours.elpd == pytest.approx(float(theirs.elpd), abs=1e-3)
    assert ours.num_parameters == pytest.approx(float(theirs.p), abs=1e-3)
    assert np.abs(np.asarray(ours.k_hat) - theirs.pareto_k.values).max() < 0.1  # efficiencies set the tail's length
    assert ours.max_k_hat == pytest.approx(min(1 - 1 / math.log10(4000), 0.7))


def test_an_outlier_is_counted_as_unreliable_and_rows_of_equal_likelihood_are_not() -> None:
    x = normal_rows()
    values = draws_of(x, 4.0)
    outlier = 40 * (values[:, :, :1] - values[:, :, :1].mean())
    equal = 1e-8 * values[:, :, 1:2] - 1.0
    score = psis_loo(torch.cat([values, outlier, equal], 2))
    k_hat = np.asarray(score.k_hat)
    assert k_hat[-2] > 0.7
    assert score.num_unreliable == 1
    assert k_hat[-1] == 0
    assert score.pointwise[-1] == pytest.approx(-1.0, abs=1e-6)


def test_chains_in_two_places_disagree() -> None:
    values = draws_of(normal_rows(), 4.0)
    values[0] -= 0.1
    assert psis_loo(values).chains_disagree
    scores = {1: psis_loo(values), 2: psis_loo(values - 1)}
    assert any("chains disagree" in note and "1 and 2" in note for note in choose(scores).notes)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (torch.zeros(4, 1000), "has shape"),
        (torch.zeros(4, 1000, 3), "the same point"),
        (torch.rand(4, 20, 3), "too few"),
        (torch.full((4, 1000, 3), math.nan), "3 rows are nan"),
    ],
)
def test_no_leave_one_out_without_draws(values: torch.Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"psis_loo: .*{sentence}"):
        psis_loo(values)


def paired(*means: float, spread: float = 0.0, rows: int = 200) -> dict:
    """Scores whose differences have these sums, and a standard error of ``spread``."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=rows)
    noise = rng.normal(size=rows)
    noise = (noise - noise.mean()) / noise.std(ddof=1) / math.sqrt(rows)
    return {i + 1: held_out(base + mean / rows + spread * noise * (i % 2)) for i, mean in enumerate(means)}


def test_differences_are_paired_over_rows() -> None:
    table = choose(paired(0, 31, spread=7)).table
    assert table.loc[1, "difference"] == pytest.approx(-31)
    assert table.loc[1, "difference_error"] == pytest.approx(7)
    assert table.loc[2, "difference"] == 0
    assert table.loc[1, "error"] > 10  # which the rows' own spread makes, not the models


@pytest.mark.parametrize(
    ("behind", "error", "chosen"),
    [
        (NO_DIFFERENCE + 0.1, 0.1, 2),  # past four nats, and past two errors
        (NO_DIFFERENCE - 0.1, 0.1, 1),  # under four nats
        (20.2, 10.0, 2),  # past two errors
        (19.8, 10.0, 1),  # within two errors
    ],
)
def test_the_simplest_is_taken_within_two_errors_or_four_nats(behind: float, error: float, chosen: int) -> None:
    choice = choose(paired(0, behind, spread=error), option="num_components")
    assert (choice.chosen, choice.best) == (chosen, 2)
    assert choice.sentence.startswith(f"num_components={chosen} is chosen by held-out rows: ")
    assert ("the simpler one is taken" in choice.sentence) == (chosen == 1)


def test_the_sentence_names_the_neighbours() -> None:
    choice = choose(paired(-60, -31, 0, 0.8, spread=7), option="num_components")
    assert choice.sentence == (
        "num_components=3 is chosen by held-out rows: 2 is worse than 4 by 32 ± 0.0 nats; 4 is no better than 3 "
        "(+0.8 ± 7.0), and the simpler one is taken."
    )
    assert choose(paired(0, -31, spread=7)).sentence.endswith(
        "it is the simplest of those tried; 2 is worse by 31 ± 7.0 nats."
    )
    assert any("larger one may be better" in note for note in choose(paired(0, 31)).notes)
    assert any("10 rows" in note for note in choose(paired(0, 31, rows=10)).notes)


def test_other_values_are_ordered_by_effective_parameters_or_not_at_all() -> None:
    full, tied = np.zeros(100), np.full(100, -0.01)
    with_order = {"full": held_out(full, seen=full + 0.3), "tied": held_out(tied, seen=tied + 0.1)}
    assert with_order["full"].num_parameters == pytest.approx(30)
    by_parameters = choose(with_order)
    assert by_parameters.chosen == "tied"
    assert "it has the fewest effective parameters of those tried" in by_parameters.sentence
    assert "and the one with fewer effective parameters is taken" in by_parameters.sentence
    without = {"full": held_out(full), "tied": held_out(tied), "none": held_out(full - 1)}
    choice = choose(without)
    assert choice.chosen == "full"
    assert "none is worse by 100 ± 0.0 nats; tied is as good within the error" in choice.sentence
    assert choose(without, simplicity={"full": 2, "tied": 1, "none": 3}).chosen == "tied"


def test_impossible_rows_never_win() -> None:
    base = np.zeros(100)
    impossible = np.where(np.arange(100) == 0, -math.inf, 5.0)
    choice = choose({1: held_out(impossible), 2: held_out(base)})
    assert choice.chosen == 2
    assert "1 gives some rows no density at all" in choice.sentence
    with pytest.raises(ArithmeticError, match="not finite"):
        choose({1: held_out(impossible), 2: held_out(impossible)})


def test_scores_of_other_rows_or_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="two values or more"):
        choose({1: held_out(np.zeros(9))})
    with pytest.raises(ValueError, match="same rows"):
        choose({1: held_out(np.zeros(9)), 2: held_out(np.zeros(8))})
    with pytest.raises(ValueError, match="cannot be compared"):
        choose({1: held_out(np.zeros(9)), 2: held_out(np.zeros(9), how="3-fold cross-validation")})
    with pytest.raises(ValueError, match="seen has one number per row"):
        held_out(np.zeros(9), seen=np.zeros(8))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("full", "full"), ("tied", "tied"), ("diagonal", "diag"), ("isotropic", "spherical")]
)
def test_bic_is_scikit_learns_on_the_same_fit(iris: torch.Tensor, ours, theirs: str) -> None:
    fitted = GaussianMixture(3, covariance_type=theirs, random_state=0, reg_covar=0, tol=1e-6, max_iter=500).fit(iris)
    covariance = torch.tensor(fitted.covariances_)
    sites = {
        "weights": torch.tensor(fitted.weights_),
        "loc": torch.tensor(fitted.means_),
        "covariance": covariance[None] if ours == "tied" else covariance,
    }
    assert float(gmm.bic(sites, iris)) == pytest.approx(-fitted.bic(iris.numpy()) / 2, rel=1e-10)
    r = fitted.predict_proba(iris.numpy())
    entropy = -(r * np.log(np.clip(r, 1e-300, 1))).sum()
    assert float(gmm.icl(sites, iris)) == pytest.approx(-fitted.bic(iris.numpy()) / 2 - entropy, rel=1e-8)


@pytest.mark.parametrize(("family", "free"), [("poisson", 3 + 4 * 5), ("multinomial", 3 + 4 * 4)])
def test_bic_and_icl_of_counts(family, free: int) -> None:
    x, _ = mixture.simulate(120, num_components=4, num_features=5, family=family)
    sites = em(mixture.em_steps(4, family), x, num_restarts=4).params
    likelihood = mixture.log_likelihood(sites, x).sum()
    assert float(mixture.bic(sites, x)) == pytest.approx(float(likelihood) - free / 2 * math.log(120))
    r = mixture.responsibilities(sites, x)
    entropy = -torch.special.xlogy(r, r).sum()
    assert float(mixture.icl(sites, x)) == pytest.approx(float(mixture.bic(sites, x) - entropy))


def test_the_evidence_of_ppca_is_minkas() -> None:
    x, _ = ppca.simulate(200, latent_dim=3, num_features=8, seed=1)
    spectrum = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))[::-1].copy()
    ours = np.array([ppca.laplace_evidence(x, q) for q in range(1, 8)])
    theirs = np.array([_pca._assess_dimension(spectrum, q, len(x)) for q in range(1, 8)])
    constant = x.numel() / 2 * (math.log(2 * math.pi) + 1)
    assert np.abs(ours - (theirs - constant)).max() < 1e-6
    assert 1 + int(ours.argmax()) == 3
    with pytest.raises(ValueError, match="ppca: latent_dim must lie between 1 and one less"):
        ppca.laplace_evidence(x, 8)


def test_perplexity_is_made_of_documents() -> None:
    x, truth = lda.simulate(30, num_topics=3, num_features=40, seed=2)
    words = truth["topic_words"]
    density, tokens = lda.completion(words, x, alpha=0.1, seed=4)
    assert float((-density.sum() / tokens.sum()).exp()) == pytest.approx(lda.perplexity(words, x, alpha=0.1, seed=4))
    _, second = lda.split_tokens(x, seed=4)
    assert torch.equal(tokens, second.to_dense().sum(1).to(tokens))
    score = held_out(density, sizes=tokens)
    value, error = score.perplexity or (math.nan, math.nan)
    assert value == pytest.approx(lda.perplexity(words, x, alpha=0.1, seed=4))
    rng = np.random.default_rng(0)
    picks = [rng.integers(30, size=30) for _ in range(2000)]
    again = [math.exp(-float(density[p].sum() / tokens[p].sum())) for p in picks]
    assert error == pytest.approx(np.std(again), rel=0.15)  # the bootstrap's, with its own error of about 2 %


def _scores(seed: int) -> dict:
    """Scores of a few values, of which some are far below, the best is anywhere, and errors are small or large."""
    rng = np.random.default_rng(seed)
    rows, scale = 2 * rng.normal(size=100), 10 ** rng.uniform(-1, 2)
    values = range(1, int(rng.integers(3, 10)))
    return {value: held_out(torch.tensor(rows + scale * rng.normal(size=100) / 10 + rng.normal())) for value in values}


@pytest.mark.parametrize("seed", range(12))
def test_the_name_of_the_chosen_value_lies_on_nothing(seed: int) -> None:
    figure = plot_choice(choose(_scores(seed), option="num_components"))
    figure.draw_without_rendering()
    ax = figure.axes[0]
    (name,) = [text for text in ax.texts if text.get_text().endswith("is chosen")]
    box = name.get_window_extent()
    for line in ax.lines[:-1]:  # the last is the dotted line at the chosen value
        x, y = ax.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()])).T
        along = np.linspace(0, len(x) - 1, 400)
        x, y = np.interp(along, range(len(x)), x), np.interp(along, range(len(y)), y)
        assert not ((box.x0 < x) & (x < box.x1) & (box.y0 < y) & (y < box.y1)).any()
    for whiskers in ax.collections:
        for ends in whiskers.get_segments():
            x, y = ax.transData.transform(ends).T
            assert x.max() < box.x0 or x.min() > box.x1 or y.max() < box.y0 or y.min() > box.y1
    others = [text.get_window_extent() for text in ax.texts if text is not name]
    assert not any(box.overlaps(other) for other in others)
    frame = ax.get_window_extent()
    assert frame.x0 - 1 < box.x0 < box.x1 < frame.x1 + 1
    assert box.y1 <= frame.y1
