"""Documents, in a folder of .txt files or in a column, as counts of their words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..table import Table
from .archives import MOST_CELLS

MANY = 20  # documents, from which on rare and common words are left out
MOST_WORDS = 10_000  # the most frequent ones


def read_texts(where: str, folder: Path, stop_words: str, vocabulary: Sequence[str] | None = None) -> Table:
    """Read a folder of .txt files in UTF-8, in the order of their names; ``where``: name used in error messages."""
    files, texts = sorted(folder.glob("*.txt")), []
    for file in files:
        try:
            texts.append(file.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: {file.name} is not UTF-8 text") from error
    x, words = count_words(where, texts, stop_words, vocabulary)
    return Table(x, words, ids={"document": [file.name for file in files]})


def count_words(
    where: str, texts: Sequence[str], stop_words: str = "english", vocabulary: Sequence[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Count words of two letters or more, in lower case, by scikit-learn's ``CountVectorizer``.

    From twenty documents on, words of a single document and of more than half of them are left out, and so are all but
    the 10,000 most frequent ones.

    Parameters
    ----------
    where : str
        Name used in error messages.
    texts : sequence of str
    stop_words : {"english", "none"}
        Whether to leave out common words of English.
    vocabulary : sequence of str, optional
        The words to count, as an earlier call returned them.

    Returns
    -------
    counts : ndarray, shape (documents, words), float64
    words : list of str

    Raises
    ------
    ValueError
        If no word is left, or the counts are too many to make dense.
    """
    from sklearn.feature_extraction.text import CountVectorizer  # slow to import

    common = "english" if stop_words == "english" else None
    if vocabulary is not None:
        counter = CountVectorizer(vocabulary=list(vocabulary))
    elif len(texts) >= MANY:
        counter = CountVectorizer(stop_words=common, min_df=2, max_df=0.5, max_features=MOST_WORDS)
    else:
        counter = CountVectorizer(stop_words=common, max_features=MOST_WORDS)
    try:
        counts: Any = counter.fit_transform(texts)
    except ValueError:
        raise ValueError(
            f"{where}: no word is left: documents need words that some, but not most of them share"
        ) from None
    rows, columns = counts.shape
    if rows * columns > MOST_CELLS:
        raise ValueError(f"{where}: {rows} documents × {columns} words are more than {MOST_CELLS:,} counts")
    return counts.toarray().astype(np.float64), [str(word) for word in counter.get_feature_names_out()]
