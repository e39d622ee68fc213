"""Simulated purchases: what customers of four segments buy in a month, for mixtures of counts with a known answer."""

import numpy as np

CATEGORIES = ("bread", "vegetables", "sweets", "wine", "cosmetics", "magazines", "electronics", "toys")
SEGMENTS = ("budget", "gourmet", "tech", "family")
_SHARES = (0.35, 0.25, 0.15, 0.25)
_RATES = (  # items a month, a row a segment
    (6.0, 3.0, 1.5, 0.3, 0.5, 0.4, 0.1, 0.3),
    (3.0, 7.0, 1.0, 4.0, 2.0, 1.5, 0.3, 0.2),
    (2.0, 1.0, 2.5, 1.0, 0.4, 2.0, 2.5, 0.2),
    (9.0, 6.0, 5.0, 0.8, 1.2, 0.6, 0.4, 3.0),
)


def purchases(rows: int = 500, seed: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Counts of a mixture of Poissons, and the segment each customer came from.

    Returns
    -------
    counts : ndarray, shape (rows, 8)
        Items bought, by `CATEGORIES`.
    segment : ndarray, shape (rows,)
        Index into `SEGMENTS`.
    """
    rng = np.random.default_rng(seed)
    segment = rng.choice(len(SEGMENTS), size=rows, p=_SHARES)
    return rng.poisson(np.array(_RATES)[segment]).astype(np.float64), segment
