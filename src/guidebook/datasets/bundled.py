"""Counts of words: the Reuters corpus that the ``lda`` package ships, and three documents small enough to enumerate."""

import warnings

import numpy as np

# Documents 0012, 1222 and 011: with two topics there are 2¹¹ assignments of topics to tokens.
THREE_DOCUMENTS = ((2, 1, 1), (0, 1, 3), (1, 2, 0))


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
        from lda import datasets  # here, so that nothing else pays for it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reuters: the corpus comes with the lda package: pip install lda") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the package leaves its file open
        counts = datasets.load_reuters().astype(np.float64)
    return counts, tuple(datasets.load_reuters_vocab()), tuple(datasets.load_reuters_titles())
