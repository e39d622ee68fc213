"""What users pass in, checked: counts of words in whatever holds them, and the options of the models."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from .._shared.cache import remembered
from .._shared.inputs import as_floating, seen_once
from .._shared.memory import check_memory
from .corpus import Corpus
from .entries import check_entries, entries_of

_COPIES = 4  # of topics and documents' weights, at once


def as_counts(x: Any) -> Tensor:
    """Bring counts to a tensor that the models and methods take.

    Parameters
    ----------
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
        How often each document has each word.

    Returns
    -------
    Tensor, shape (n, v)
        In x's floating-point type, or float64 for whole numbers. Sparse (COO) if ``x`` is sparse.

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
    return as_floating("lda", "x", x)


def counts_of(x: Any) -> Tensor:
    """Return the tensor of counts that the model observes, dense or sparse; ValueError if they are no counts."""
    if not isinstance(x, Tensor):
        raise ValueError(f"lda: x must be a tensor, got {type(x).__name__}: as_counts makes one")
    if x.dim() != 2:
        raise ValueError(f"lda: x must have shape (documents, words), got {tuple(x.shape)}")
    return seen_once(x, ("lda", "counts"), partial(as_floating, "lda", "x"), read)


@remembered
def read(x: Any) -> Corpus:
    """Return the nonzero entries of a corpus, checked; the same corpus if it has been read already."""
    if isinstance(x, Corpus):
        return x
    with disable_proxy_modes_tracing():  # under a tracer, what is read is a constant of the graph
        corpus = entries_of(as_counts(x))
        check_entries(corpus)
    return corpus


def check_counts(x: Any, columns: Sequence[str] | None = None) -> None:
    """Raise ValueError, naming document and word, unless every entry is a whole number from zero up.

    Parameters
    ----------
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
    columns : sequence of str, optional
        The vocabulary, for the message; default: numbers from 0.
    """
    check_entries(entries_of(as_counts(x)), columns)


def check_options(num_topics: int, alpha: float, eta: float = 1.0) -> None:
    """Raise ValueError unless there is a topic and both concentrations are positive."""
    if num_topics < 1:
        raise ValueError(f"lda: num_topics must be at least 1, got {num_topics}")
    for name, value in (("alpha", alpha), ("eta", eta)):
        if not value > 0:
            raise ValueError(f"lda: {name} must be positive, got {value}")


def check_size(num_topics: int, num_rows: int, num_features: int, *, copies: int = 1) -> None:
    """Raise ValueError if memory cannot hold so many topics of so many documents and words, ``copies`` times over."""
    check_memory("lda", f"num_topics={num_topics}", copies * _COPIES * num_topics * (num_rows + num_features))


def warn_of_gaps(gaps: tuple[int, int], num_rows: int, num_features: int) -> None:
    """Warn of empty documents and unused words, so many of them, for which the posterior is the prior."""
    empty, unused = gaps
    if empty or unused:
        warnings.warn(
            f"lda: {empty} of {num_rows} documents are empty and {unused} of {num_features} words are unused: "
            "for these the fit returns the prior",
            stacklevel=2,
        )
