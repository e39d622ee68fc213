"""Whether ranks are uniform, by simultaneous bands for their empirical distribution, and whether they are symmetric.

References
----------
1. Säilynoja, Bürkner and Vehtari (2022), Graphical test for discrete uniformity and its applications in goodness of fit
   evaluation and multiple sample comparison, Statistics and Computing 32: the band by simulation, section 2.2.
2. Yao, Vehtari, Simpson and Gelman (2018), Yes, but did it work? Evaluating variational inference, ICML: section 3.2,
   symmetry of the marginal calibration.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import bdtr

MAX_CHANCE = 0.05  # of any quantity outside its band, if all are calibrated
MAX_POINTS = 200  # at which distribution functions are compared
SAMPLES = 10_000  # of the null distribution, at least
SAMPLES_PER_QUANTITY = 100


class Uniformity:
    """The test of reference 1 for samples of one size.

    An empirical distribution function is as unlikely as its least likely value: the smallest of the binomial tail
    probabilities at all points. Samples of uniform ranks tell how small that is by chance.

    Parameters
    ----------
    size : int
        Ranks per quantity.
    num_draws : int
        Largest rank.
    num_quantities : int
        Quantities to be tested together.
    """

    def __init__(self, size: int, num_draws: int, num_quantities: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.size, self.num_draws = size, num_draws
        self.points = np.unique(np.linspace(1, num_draws, min(num_draws, MAX_POINTS)).round().astype(int))
        below = self.points / (num_draws + 1)  # probability of a rank below each point
        counts = np.arange(size + 1)[:, None]
        at_most, fewer = bdtr(counts, size, below), bdtr(np.maximum(counts - 1, 0), size, below)
        self._tail = np.minimum(at_most, np.where(counts == 0, 1.0, 1 - fewer))
        samples = max(SAMPLES, SAMPLES_PER_QUANTITY * num_quantities)
        parts = rng.multinomial(size, np.diff(below, prepend=0, append=1), samples)[:, :-1].cumsum(1)
        self._null = np.sort(self._least(parts))

    def _least(self, counts: np.ndarray) -> np.ndarray:
        return self._tail[counts, np.arange(len(self.points))].min(-1)

    def counts(self, ranks: np.ndarray) -> np.ndarray:
        """Return how many of the ranks (…, size) lie below each point."""
        return np.apply_along_axis(lambda row: np.searchsorted(np.sort(row), self.points), -1, ranks)

    def p_values(self, ranks: np.ndarray) -> np.ndarray:
        """Return the probability of ranks, (quantity, size), so far from uniform if they are uniform."""
        found = np.searchsorted(self._null, self._least(self.counts(ranks)) * (1 + 1e-9), side="right")
        return (1 + found) / (1 + len(self._null))

    def band(self, chance: float = MAX_CHANCE) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds that the whole function leaves with this probability, as shares at ``points``."""
        from arviz_stats.ecdf_utils import get_pointwise_confidence_band  # slow to import

        each = 1 - 2 * np.quantile(self._null, chance)
        return get_pointwise_confidence_band(each, self.size, self.points / (self.num_draws + 1))


class Symmetry(NamedTuple):
    """How far ranks are from being as often high as low: the Kolmogorov-Smirnov distance between them and mirrored."""

    distance: np.ndarray  # (quantity)
    p_values: np.ndarray  # (quantity)


def symmetry(ranks: np.ndarray, num_draws: int, seed: int = 0) -> Symmetry:
    """Test whether ranks r, shape (quantity, size), have the distribution of L - r, L the largest rank.

    Reference 2 compares the two by the Kolmogorov-Smirnov test as if they were independent samples. Here each rank is
    mirrored or not at random, which is exact.
    """
    rng = np.random.default_rng(seed)
    points = np.unique(np.linspace(1, num_draws, min(num_draws, MAX_POINTS)).round().astype(int))
    samples = max(SAMPLES, SAMPLES_PER_QUANTITY * len(ranks))
    signs = rng.choice(np.array([-1, 1], dtype=np.float32), (samples, ranks.shape[1]))
    distances, p_values = [], []
    for row in ranks:
        above = row[:, None] < points
        steps = above.astype(np.float32) - (num_draws - row[:, None] < points)
        found = np.abs(steps.sum(0)).max()
        null = np.abs(signs @ steps).max(1)
        distances.append(found / len(row))
        p_values.append((1 + (null >= found - 0.5).sum()) / (1 + samples))
    return Symmetry(np.array(distances), np.array(p_values))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values adjusted for their number (Holm 1979, Scandinavian Journal of Statistics 6)."""
    order, count = np.argsort(p_values), len(p_values)
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * (count - np.arange(count))))
    return adjusted
