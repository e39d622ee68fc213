"""Topics from batches of documents, beside those of coordinate ascent on all of them."""

import numpy as np
import pytest
import torch

from guidebook.inference import cavi
from guidebook.models import lda
from guidebook.sklearn import LDA

OPTIONS = {"alpha": 0.3, "eta": 0.2}


@pytest.fixture(scope="module")
def corpus() -> torch.Tensor:
    return lda.simulate(300, num_topics=3, num_features=12, mean_total=60.0, seed=1)[0]


def test_a_whole_step_on_all_documents_rests_at_the_optimum(corpus: torch.Tensor) -> None:
    """And a batch of half of them, twice over, is as good as all."""
    fitted = cavi(lda.cavi_steps(3, **OPTIONS), corpus, num_restarts=1, tol=1e-9, num_draws=1)
    best = fitted.params["topic_words.concentration"]
    found = lda.online_update(best, corpus, **OPTIONS, num_documents=300, step_size=1.0)
    torch.testing.assert_close(found, best, rtol=1e-3, atol=1e-2)
    twice = torch.cat([corpus, corpus])
    scaled = lda.online_update(best, corpus, **OPTIONS, num_documents=600, step_size=1.0)
    torch.testing.assert_close(lda.online_update(best, twice, **OPTIONS, num_documents=600, step_size=1.0), scaled)
    start = torch.rand_like(best) + 0.5
    whole, part = (lda.online_update(start, corpus, **OPTIONS, num_documents=300, step_size=s) for s in (1.0, 0.25))
    torch.testing.assert_close(part, 0.75 * start + 0.25 * whole)


@pytest.mark.parametrize("sparse", [False, True])
def test_batches_that_begin_with_empty_documents_are_scored_by_the_others(corpus: torch.Tensor, sparse: bool) -> None:
    """A document of one token has no second half either."""
    short = torch.zeros(150, 12, dtype=corpus.dtype)
    short[100:, 3] = 1
    steps, best = lda.online_steps(3, **OPTIONS), lda.simulate(3, num_topics=3, num_features=12)[1]["topic_words"]
    params = {"topic_words.concentration": 100 * best.double()}
    rows = torch.cat([short, corpus])
    moved, score = steps.update(params, 0.5, 300, rows.to_sparse() if sparse else rows)
    assert float(score) == pytest.approx(float(steps.update(params, 0.5, 300, corpus)[1]), rel=1e-12)
    assert bool(moved["topic_words.concentration"].isfinite().all())
    with pytest.raises(ValueError, match=r"^lda: none of the 150 documents of a batch has two tokens"):
        steps.update(params, 0.5, 300, short)


def test_batches_lead_to_the_topics_of_coordinate_ascent(corpus: torch.Tensor) -> None:
    train, test = corpus[:240].numpy(), corpus[240:].numpy()
    options = {"doc_topic_prior": 0.3, "topic_word_prior": 0.2, "random_state": 0}
    batch = LDA(3, **options).fit(train)
    online = LDA(3, **options, total_samples=240)
    for _ in range(5):
        for rows in np.split(train, 8):
            online.partial_fit(rows)
    assert online.n_batch_iter_ == 40
    affinity = np.sqrt(online.components_) @ np.sqrt(batch.components_).T
    assert affinity.max(1).min() > 0.995
    assert online.perplexity(test) == pytest.approx(batch.perplexity(test), rel=0.01)
    one = LDA(3, **options, total_samples=240).partial_fit(train[:30])
    quick = LDA(3, **options, total_samples=240, learning_offset=1.0).partial_fit(train[:30])
    assert np.abs(one.components_ - quick.components_).max() > 1e-4
    with pytest.raises(ValueError, match=r"LDA: lda: step_size must lie between 0 and 1"):
        LDA(3, learning_offset=-3.0, learning_decay=1.0).partial_fit(train)
