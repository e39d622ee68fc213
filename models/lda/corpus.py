"""Counts of words in documents, as the entries that are not zero; whatever holds them is brought to that form here."""

import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

_ELEMENTS = 2**18  # numbers in one chunk of work: 2 MB, which stay in the processor's cache


class Corpus(NamedTuple):
    """The counts that are not zero, documents in order and words in order within them.

    Attributes
    ----------
    document : Tensor, shape (m,)
        Index of the document, from 0; of 32 bits, which is half the memory.
    word : Tensor, shape (m,)
        Index of the word, from 0; likewise.
    counts : Tensor, shape (m,)
        How often the document has the word; floating point.
    num_rows : int
        n: documents, the empty ones included.
    num_features : int
        v: words of the vocabulary, the unused ones included.
    """

    document: Tensor
    word: Tensor
    counts: Tensor
    num_rows: int
    num_features: int

    @property
    def totals(self) -> Tensor:
        """Tokens of each document, shape (n,)."""
        return self.counts.new_zeros(self.num_rows).index_add_(0, self.document, self.counts)

    def tokens(self) -> tuple[Tensor, Tensor]:
        """Document and word of every token, both of shape (t,), in the order of the entries."""
        return _tokens(self.document, self.word, self.counts)


@functools.lru_cache(maxsize=4)
def _tokens(document: Tensor, word: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    times = counts.long()
    return document.long().repeat_interleave(times), word.long().repeat_interleave(times)


def as_counts(x: Any) -> Tensor:
    """Bring counts to a tensor that the models and methods take.

    Parameters
    ----------
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
        How often each document has each word.

    Returns
    -------
    Tensor, shape (n, v)
        In x's floating-point type, or in float64 where it is of whole numbers. Sparse (COO) where ``x`` is.

    Raises
    ------
    ValueError
        If ``x`` is of another kind, or not a matrix.
    """
    if hasattr(x, "tocoo"):  # SciPy's
        coo = x.tocoo()
        index = torch.as_tensor(np.stack([coo.row, coo.col]).astype(np.int64))
        x = torch.sparse_coo_tensor(index, torch.as_tensor(coo.data), coo.shape, check_invariants=False)
    elif isinstance(x, np.ndarray):
        x = torch.as_tensor(x)
    if not isinstance(x, Tensor) or x.dim() != 2:
        shape = f" of shape {tuple(x.shape)}" if hasattr(x, "shape") else ""
        raise ValueError(f"lda: counts must be a matrix of documents by words, got {type(x).__name__}{shape}")
    if x.layout not in (torch.strided, torch.sparse_coo):
        x = x.to_sparse_coo()
    if x.layout == torch.sparse_coo:
        x = x.coalesce()
    return x if x.is_floating_point() else x.double()


def read(x: Any) -> Corpus:
    """The entries of a corpus that are not zero; a tensor is looked at once, until it changes.

    Raises
    ------
    ValueError
        As `as_counts` and `check_counts`.
    """
    if isinstance(x, Corpus):
        return x
    return _remembered(x, x._version) if isinstance(x, Tensor) else _read(x)


def check_counts(x: Any, columns: Sequence[str] | None = None) -> None:
    """Raise ValueError, naming document and word, unless every entry is a whole number from zero up.

    Parameters
    ----------
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
    columns : sequence of str, optional
        The vocabulary, for the message; numbers, from 0, where left out.
    """
    _check(_entries(as_counts(x)), columns)


def check_options(num_topics: int, alpha: float, eta: float = 1.0) -> None:
    """Raise ValueError for options that no model can have."""
    if num_topics < 1:
        raise ValueError(f"lda: num_topics must be at least 1, got {num_topics}")
    for name, value in (("alpha", alpha), ("eta", eta)):
        if not value > 0:
            raise ValueError(f"lda: {name} must be positive, got {value}")


def warn_of_gaps(corpus: Corpus) -> None:
    """Say how many documents are empty and how many words unused, as a fit can say nothing of them but the prior."""
    empty, unused = (
        int((index.bincount(minlength=size) == 0).sum())
        for index, size in ((corpus.document, corpus.num_rows), (corpus.word, corpus.num_features))
    )
    if empty or unused:
        warnings.warn(
            f"lda: {empty} of {corpus.num_rows} documents are empty and {unused} of {corpus.num_features} words are "
            "unused: of these the fit gives the prior back",
            stacklevel=2,
        )


def chunks(length: int, width: int) -> Iterator[slice]:
    """Slices of ``length`` entries, each of which takes ``width`` numbers to work on."""
    size = max(1, _ELEMENTS // width)
    return (slice(start, start + size) for start in range(0, length, size))


def blocks(length: int, width: int) -> Iterator[slice]:
    """Slices of a table's rows: copies of one are small beside all that a fit holds."""
    return chunks(length, 64 * width)


@functools.lru_cache(maxsize=4)
def _remembered(x: Tensor, version: int) -> Corpus:
    """``version`` counts the tensor's changes. Under a tracer, what is read is a constant of the graph."""
    with disable_proxy_modes_tracing():
        return _read(x)


def _read(x: Any) -> Corpus:
    corpus = _entries(as_counts(x))
    _check(corpus)
    return corpus


def _entries(x: Tensor) -> Corpus:
    if x.layout == torch.sparse_coo:
        there = x.values() != 0
        (document, word), counts = x.indices()[:, there], x.values()[there]
        whole = _index_type(*x.shape, len(counts))
        return Corpus(document.to(whole), word.to(whole), counts, *x.shape)
    x = x.detach()
    total = int(x.count_nonzero())
    whole = _index_type(*x.shape, total)
    document, word = (torch.empty(total, dtype=whole, device=x.device) for _ in range(2))
    counts, end = x.new_empty(total), 0
    for rows in chunks(len(x), 8 * max(1, x.shape[1])):
        index = x[rows].nonzero(as_tuple=True)
        here = slice(end, end := end + len(index[0]))
        document[here], word[here], counts[here] = index[0] + rows.start, index[1], x[rows][index]
    return Corpus(document, word, counts, *x.shape)


def _index_type(*sizes: int) -> torch.dtype:
    return torch.int32 if max(sizes) < 2**31 else torch.int64


def _check(corpus: Corpus, columns: Sequence[str] | None = None) -> None:
    for entries in blocks(len(corpus.counts), 1):
        counts = corpus.counts[entries]
        wrong = ~((counts >= 0) & (counts % 1 == 0))
        if wrong.any():
            first = entries.start + int(wrong.nonzero()[0])
            row, column = int(corpus.document[first]), int(corpus.word[first])
            name = column if columns is None else repr(columns[column])
            raise ValueError(
                f"lda: document {row}, word {name} has {float(corpus.counts[first]):g}, "
                "but counts are whole numbers from zero up"
            )
    if not corpus.num_features:
        raise ValueError("lda: the corpus has no words")
