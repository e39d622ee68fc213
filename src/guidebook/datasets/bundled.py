"""Counts: simulated purchases, the Reuters corpus that the ``lda`` package ships, and three documents.

The purchases are what customers of four segments buy in a month, a mixture of Poissons with a known answer; the three
documents are small enough to enumerate.
"""

import warnings

import numpy as np

# Documents 0012, 1222 and 011: with two topics there are 2¹¹ assignments of topics to tokens.
THREE_DOCUMENTS = ((2, 1, 1), (0, 1, 3), (1, 2, 0))

CATEGORIES = ("bread", "vegetables", "sweets", "wine", "cosmetics", "magazines", "electronics", "toys")
SEGMENTS = ("budget", "gourmet", "tech", "family")
_SHARES = (0.35, 0.25, 0.15, 0.25)
_RATES = (  # items per month, one row per segment
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


def reuters() -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Counts of words in newswire items, stop words and rare words left out.

    Returns
    -------
    counts : ndarray, shape (395, 4258), float64
        How often each item has each word; 84,010 tokens.
    vocabulary : tuple of str, length 4258
    titles : tuple of str, length 395
        Headlines, with place and date.

    Raises
    ------
    ModuleNotFoundError
        If the ``lda`` package is not installed.
    """
    try:
        from lda import datasets  # slow to import
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reuters: the corpus comes with the lda package: pip install lda") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the package leaves its file open
        counts = datasets.load_reuters().astype(np.float64)
    return counts, tuple(datasets.load_reuters_vocab()), tuple(datasets.load_reuters_titles())
