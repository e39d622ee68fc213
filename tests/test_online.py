"""Estimates and topics that are moved by batches, beside those of EM and coordinate ascent on all rows."""

from typing import Any

import numpy as np
import pytest
import torch

from guidebook.inference import Posterior, cavi, em, online
from guidebook.inference.streams.batches import StreamBatches
from guidebook.models import OnlineSteps, gmm, lda, mixture
from guidebook.sklearn import LDA, GaussianMixture, PoissonMixture

QUIET = {"progress": False}
FORMS = ("full", "tied", "diagonal", "isotropic")
ROWS, TRUTH = gmm.simulate(4000, num_components=3, num_features=2, seed=3)
COUNTS = mixture.simulate(4000, num_components=2, num_features=4, seed=2)[0]


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_step_of_a_gaussian_mixture_is_an_iteration_of_em(form: Any) -> None:
    """Cappé and Moulines (2009), from anywhere, on all rows; a part of a step moves sums that part of the way."""
    steps, x = gmm.em_steps(3, covariance=form), ROWS[:500]
    torch.manual_seed(0)
    params = steps.init(1, x)
    expectations = steps.e_step(params, x)
    whole = steps.m_step(expectations, x)
    moved, score = gmm.online_steps(3, form).update(params, 1.0, 500, x)
    for name, value in whole.items():
        torch.testing.assert_close(moved[name], value, rtol=1e-9, atol=1e-9)
    assert float(score) == pytest.approx(float(expectations.objective) / 500, rel=1e-9)
    part, _ = gmm.online_steps(3, form).update(params, 0.25, 500, x)
    shares = 0.75 * params["weights"] + 0.25 * whole["weights"]
    torch.testing.assert_close(part["weights"], shares)
    firsts = [at["weights"].unsqueeze(-1) * at["loc"] for at in (params, whole, part)]
    torch.testing.assert_close(firsts[2], 0.75 * firsts[0] + 0.25 * firsts[1])
    if form == "full":
        seconds = [
            at["weights"][:, None, None] * (at["covariance"] + at["loc"][:, :, None] * at["loc"][:, None, :])
            for at in (params, whole, part)
        ]
        torch.testing.assert_close(seconds[2], 0.75 * seconds[0] + 0.25 * seconds[1])


@pytest.mark.parametrize("family", ["poisson", "multinomial"])
def test_a_whole_step_of_a_mixture_of_counts_is_an_iteration_of_em(family: Any) -> None:
    steps, x = mixture.em_steps(2, family=family), COUNTS[:500]
    torch.manual_seed(0)
    params = steps.init(0, x)
    expectations = steps.e_step(params, x)
    extra = {"totals": torch.tensor([3.0, 4.0], dtype=torch.float64)} if family == "multinomial" else {}
    moved, score = mixture.online_steps(2, family).update({**params, **extra}, 1.0, 500, x)
    for name, value in steps.m_step(expectations, x).items():
        torch.testing.assert_close(moved[name], value, rtol=1e-9, atol=1e-9)
    assert float(score) == pytest.approx(float(expectations.objective) / 500, rel=1e-9)
    if extra:
        expected = expectations.sums.sum(-1) / expectations.counts
        torch.testing.assert_close(moved["totals"], expected)


@pytest.mark.parametrize(
    ("steps", "whole", "x", "log_likelihood"),
    [
        (gmm.online_steps(3), gmm.em_steps(3), ROWS, gmm.log_likelihood),
        (gmm.online_steps(3, "diagonal"), gmm.em_steps(3, covariance="diagonal"), ROWS, gmm.log_likelihood),
        (mixture.online_steps(2), mixture.em_steps(2), COUNTS, mixture.log_likelihood),
        (
            mixture.online_steps(2, "multinomial"),
            mixture.em_steps(2, family="multinomial"),
            COUNTS,
            mixture.log_likelihood,
        ),
    ],
)
def test_a_few_epochs_are_as_good_as_em(steps: OnlineSteps, whole: Any, x: torch.Tensor, log_likelihood: Any) -> None:
    """Within a nat or two per parameter of the maximum, whose own error is half a nat for each."""
    found = online(steps, x, batch_size=100, num_epochs=5, **QUIET)
    best = em(whole, x, num_restarts=4).info.log_likelihood
    assert best is not None
    sites = {name: value[0, 0] for name, value in found.draws.items()}
    assert best - float(log_likelihood(sites, x).sum()) < 8
    assert found.info.is_point
    assert (found.info.num_batches, found.info.num_rows) == (200, 20_000)
    assert found.info.scores.shape == (200,)
    assert float(found.info.scores[-40:].mean()) * len(x) == pytest.approx(best, rel=0.02)


def test_fits_go_on_from_one_another_as_if_there_were_one() -> None:
    """The same batches in the same order, and steps that go on shrinking."""
    steps, how = gmm.online_steps(3), {"batch_size": 500, **QUIET}

    one: Posterior | None = None
    for part in ROWS.split(500):
        one = online(steps, part, init=one, **how)
    assert one is not None
    assert one.info.num_batches == 8
    params: Any = None
    with torch.no_grad():
        torch.manual_seed(0)
        first = online(steps, ROWS[:500], **how)
        params = dict(first.params)
        for t, part in enumerate(ROWS.split(500)[1:], 2):
            params, _ = steps.update(params, (10.0 + t) ** -0.7, 500, part)
    for name, value in one.params.items():
        torch.testing.assert_close(value, params[name], rtol=1e-9, atol=1e-9)


def test_options_change_what_they_say() -> None:
    x = lda.simulate(200, num_topics=3, num_features=12, mean_total=40.0, seed=1)[0]
    steps, how = lda.online_steps(3, alpha=0.3, eta=0.2), {"batch_size": 50, "num_draws": 20, **QUIET}
    name, usual = "topic_words.concentration", online(steps, x, **how)
    for option in ({"decay": 0.9}, {"offset": 1.0}, {"num_rows": 2000}, {"num_epochs": 2}, {"seed": 1}):
        other = online(steps, x, **{**how, **option}).params[name]
        assert (other - usual.params[name]).abs().max() > 1e-3, option
    assert usual.draws["topic_words"].shape == (1, 20, 3, 12)
    torch.testing.assert_close(usual.draws["topic_words"].sum(-1), torch.ones(1, 20, 3).double())
    tokens = float(online(steps, x, **{**how, "num_rows": 2000}).params[name].sum())
    assert tokens == pytest.approx(10 * float(usual.params[name].sum()), rel=0.4)


def test_topics_by_sparse_batches_are_those_of_coordinate_ascent() -> None:
    x = lda.simulate(300, num_topics=3, num_features=12, mean_total=60.0, seed=1)[0]
    options = {"alpha": 0.3, "eta": 0.2}
    whole = cavi(lda.cavi_steps(3, **options), x, num_restarts=1, tol=1e-3, num_draws=1)
    found = online(lda.online_steps(3, **options), x.to_sparse(), batch_size=30, num_epochs=5, num_draws=10, **QUIET)
    topics = [fit.params["topic_words.concentration"] for fit in (whole, found)]
    one, two = (value / value.sum(-1, keepdim=True) for value in topics)
    assert (one.sqrt() @ two.sqrt().mT).amax(1).min() > 0.99
    assert found.info.streamed is not None
    assert found.info.streamed["rows_held"] == 30
    assert not found.info.is_point
    assert float(found.info.scores[-5:].mean()) > float(found.info.scores[0])


def test_a_fit_that_was_stopped_goes_on_to_the_same_numbers(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    how = {"batch_size": 100, **QUIET}
    whole = online(gmm.online_steps(3), ROWS, **how)
    take = StreamBatches.__next__

    def stopping(self: StreamBatches) -> tuple:
        if self.state()["at"] == 1700:
            raise KeyboardInterrupt
        return take(self)

    with monkeypatch.context() as patch:
        patch.setattr(StreamBatches, "__next__", stopping)
        with pytest.raises(KeyboardInterrupt):
            online(gmm.online_steps(3), ROWS, checkpoint=tmp_path, every=0.0, **how)
    again = online(gmm.online_steps(3), ROWS, checkpoint=tmp_path, every=0.0, **how)
    assert torch.equal(again.info.scores, whole.info.scores)
    assert torch.equal(again.params["loc"], whole.params["loc"])


def test_what_is_out_of_range_is_said() -> None:
    steps = gmm.online_steps(2)
    for option, sentence in (
        ({"decay": 0.5}, "online: decay must lie between 0.5, exclusive, and 1, got 0.5"),
        ({"decay": 1.1}, "online: decay must lie between 0.5, exclusive, and 1, got 1.1"),
        ({"offset": -1.0}, "online: offset must be at least 0, got -1.0"),
        ({"batch_size": 0}, "online: batch_size must be at least 1, got 0"),
        ({"num_epochs": 0}, "online: num_epochs must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            online(steps, ROWS, **option, **QUIET)
    online(steps, ROWS[:100], decay=1.0, offset=0.0, **QUIET)
    with pytest.raises(ValueError, match="gmm: num_components must lie between 1 and the number of rows, 10"):
        online(gmm.online_steps(20), ROWS, batch_size=10, **QUIET)


def test_estimators_learn_from_batches() -> None:
    x, means = ROWS.numpy(), TRUTH["loc"]
    fitted = GaussianMixture(3, random_state=0)
    for part in np.array_split(x, 20):
        fitted.partial_fit(part)
    assert fitted.n_batch_iter_ == 20
    whole = GaussianMixture(3, random_state=0).fit(x)
    assert fitted.score(x) == pytest.approx(whole.score(x), abs=0.005)
    nearest = torch.cdist(torch.from_numpy(fitted.means_), means).amin(0)
    assert nearest.max() < 0.3
    assert fitted.covariances_.shape == (3, 2, 2)
    slow = GaussianMixture(3, random_state=0, learning_offset=1000.0)
    for part in np.array_split(x, 20):
        slow.partial_fit(part)
    assert not np.allclose(slow.means_, fitted.means_, atol=1e-4)
    counts = PoissonMixture(2, random_state=0).partial_fit(COUNTS.numpy()[:1000])
    assert counts.means_.shape == (2, 4)
    after = whole.partial_fit(x[:100])  # from a fit by EM
    assert after.n_batch_iter_ == 1
    with pytest.raises(ValueError, match="GaussianMixture: partial_fit takes no missing values"):
        fitted.partial_fit(np.full((5, 2), np.nan))
    assert LDA(2).partial_fit(COUNTS.numpy()[:50]).n_batch_iter_ == 1
