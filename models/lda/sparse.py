"""Matrix products that cost as much as a corpus has entries: scores of its entries, and sums of them by row or word."""

import functools
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from .corpus import Corpus, blocks


class Pattern(NamedTuple):
    """Where a corpus has entries, in compressed rows: by document, and transposed, by word.

    Attributes
    ----------
    documents : Tensor, shape (n + 1,)
        Where the entries of each document begin.
    document, word : Tensor, shape (m,)
        Of each entry.
    words : Tensor, shape (v + 1,)
        Where the entries of each word begin once they are in ``order``.
    order : Tensor, shape (m,)
        Entries by word.
    """

    documents: Tensor
    document: Tensor
    word: Tensor
    words: Tensor
    order: Tensor

    def scores(self, left: Tensor, right: Tensor, room: Tensor) -> Tensor:
        """Σ_k left[document, k] right[word, k] for every entry, in ``room``, (m,); left is (n, k), right (v, k)."""
        zero = _compressed(self.documents, self.word, room.zero_(), len(right))
        return torch.sparse.sampled_addmm(zero, left, right.mT, beta=0.0, out=zero).values()

    def by_document(self, values: Tensor, right: Tensor) -> Tensor:
        """Σ over each document's entries of values[entry] right[word], shape (n, k)."""
        return _compressed(self.documents, self.word, values, len(right)) @ right

    def by_word(self, values: Tensor, left: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Σ over each word's entries of values[entry] left[document], shape (v, k): some words at a time."""
        for words in blocks(len(self.words) - 1, left.shape[-1]):
            begins = self.words[words.start : words.stop + 1]
            entries = self.order[int(begins[0]) : int(begins[-1])]
            column, ordered = (array.index_select(0, entries) for array in (self.document, values))  # fast
            yield words, _compressed(begins - begins[0], column, ordered, len(left)) @ left


def pattern(corpus: Corpus) -> Pattern:
    """The pattern of a corpus, worked out once."""
    return _remembered(corpus.document, corpus.word, corpus.num_rows, corpus.num_features)


@functools.lru_cache(maxsize=4)
def _remembered(document: Tensor, word: Tensor, num_rows: int, num_features: int) -> Pattern:
    begins = _begins(document, num_rows)
    entries = np.arange(len(word), dtype=np.int32 if word.dtype == torch.int32 else np.int64)
    by_word = csr_array((entries, word.cpu().numpy(), begins.cpu().numpy()), (num_rows, num_features)).tocsc()
    words, order = (torch.as_tensor(array).to(word) for array in (by_word.indptr, by_word.data))
    return Pattern(begins, document, word, words, order)


def _begins(index: Tensor, size: int) -> Tensor:
    return torch.cat([index.new_zeros(1), index.bincount(minlength=size).cumsum(0, dtype=index.dtype)])


def _compressed(begins: Tensor, column: Tensor, values: Tensor, width: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        return torch.sparse_csr_tensor(begins, column, values, (len(begins) - 1, width), check_invariants=False)
