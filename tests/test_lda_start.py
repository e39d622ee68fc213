"""Where fits of topics start: like topics joined, and no topic of many left out."""

from itertools import combinations

import numpy as np
import torch
from scipy import stats

from guidebook.models import lda
from guidebook.models.lda import cavi
from guidebook.models.lda.seeds import joined_topics


def log_likelihood(tokens: np.ndarray) -> float:
    """Of each topic's tokens where words are as likely as they are frequent: SciPy's entropy, times the tokens."""
    return -sum(row.sum() * stats.entropy(row) for row in tokens)


def test_the_first_two_topics_joined_are_those_that_lose_least() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.gamma(0.5, 10.0, (5, 7))
    tokens[2, :3] = 0
    best = max(
        combinations(range(5), 2),
        key=lambda two: log_likelihood(np.stack([tokens[list(two)].sum(0), *np.delete(tokens, two, 0)])),
    )
    found = joined_topics(torch.from_numpy(tokens), 4).numpy()
    np.testing.assert_allclose(found[best[0]], tokens[list(best)].sum(0))
    np.testing.assert_allclose(np.delete(found, best[0], 0), np.delete(tokens, best, 0))


def test_topics_are_joined_like_to_like() -> None:
    """Three topics in unequal parts, shuffled: the parts come together, and no token is lost."""
    rng = np.random.default_rng(1)
    topics = rng.dirichlet(np.full(30, 0.1), 3)
    parts = np.concatenate([size * topics for size in (1000, 200, 50)])[rng.permutation(9)]
    found = joined_topics(torch.from_numpy(parts), 3).numpy()
    np.testing.assert_allclose(sorted(found[:, 0]), sorted(1250 * topics[:, 0]))
    whole = joined_topics(torch.from_numpy(parts), 1).numpy()
    np.testing.assert_allclose(whole, parts.sum(0, keepdims=True))
    np.testing.assert_array_equal(joined_topics(torch.from_numpy(parts), 9).numpy(), parts)


def test_no_topic_of_many_is_left_out() -> None:
    """Twelve topics in 900 documents, three times; starts from as many seeds as topics miss some of the 36."""
    found = {1: 0, 2: 0}
    for seed in range(3):
        x, truth = lda.simulate(900, num_topics=12, num_features=400, mean_total=60.0, alpha=0.1, eta=0.05, seed=seed)
        for seeds in found:
            torch.manual_seed(seed)
            with torch.no_grad():
                topics = cavi.start(x, 12, 0.1, 0.05, seeds=seeds)["topic_words.concentration"]
            affinity = (topics / topics.sum(1, keepdim=True)).sqrt() @ truth["topic_words"].sqrt().mT
            found[seeds] += int((affinity.amax(0) > 0.9).sum())
    assert found[2] == 36
    assert found[1] < 34
