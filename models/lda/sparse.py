"""Matrix products that cost as much as a corpus has entries: scores of its entries, and sums of them by row or word."""

import functools
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from .corpus import Corpus


class Pattern(NamedTuple):
    """Where a corpus has entries, in compressed rows: by document, and transposed, by word.

    Attributes
    ----------
    documents : Tensor, shape (n + 1,)
        Where the entries of each document begin.
    word : Tensor, shape (m,)
        Of each entry.
    words : Tensor, shape (v + 1,)
        Where the entries of each word begin once they are in ``order``.
    order : Tensor, shape (m,)
        Entries by word.
    document : Tensor, shape (m,)
        Of each entry in ``order``.
    """

    documents: Tensor
    word: Tensor
    words: Tensor
    order: Tensor
    document: Tensor

    def scores(self, left: Tensor, right: Tensor) -> Tensor:
        """Σ_k left[document, k] right[word, k] for every entry, shape (m,); left is (n, k), right (v, k)."""
        zero = _compressed(self.documents, self.word, left.new_zeros(len(self.word)), len(right))
        return torch.sparse.sampled_addmm(zero, left, right.mT, beta=0.0).values()

    def by_document(self, values: Tensor, right: Tensor) -> Tensor:
        """Σ over each document's entries of values[entry] right[word], shape (n, k)."""
        return _compressed(self.documents, self.word, values, len(right)) @ right

    def by_word(self, values: Tensor, left: Tensor) -> Tensor:
        """Σ over each word's entries of values[entry] left[document], shape (v, k)."""
        return _compressed(self.words, self.document, values[self.order], len(left)) @ left


def pattern(corpus: Corpus) -> Pattern:
    """The pattern of a corpus, worked out once."""
    return _remembered(corpus.document, corpus.word, corpus.num_rows, corpus.num_features)


@functools.lru_cache(maxsize=4)
def _remembered(document: Tensor, word: Tensor, num_rows: int, num_features: int) -> Pattern:
    order = word.argsort(stable=True)
    return Pattern(_begins(document, num_rows), word, _begins(word, num_features), order, document[order])


def _begins(index: Tensor, size: int) -> Tensor:
    return torch.cat([index.new_zeros(1), index.bincount(minlength=size).cumsum(0)])


def _compressed(begins: Tensor, column: Tensor, values: Tensor, width: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        return torch.sparse_csr_tensor(begins, column, values, (len(begins) - 1, width), check_invariants=False)
