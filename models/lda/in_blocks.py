"""A corpus that is not in memory: its documents are read in blocks, pass after pass."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .._shared.blocks import Blocks, is_blocks
from .corpus import Corpus, joined
from .entries import check_entries, entries_of_block
from .inputs import read

_NUMBERS = 2**22  # of dense documents that are read at once, at most
_ENTRIES = 2**18  # of sparse documents that are worked on together, at least
_EXAMPLE = 256  # documents by which the number of entries in others is guessed


class CorpusInBlocks:
    """Documents that are read in blocks, and checked in a first pass.

    Attributes
    ----------
    num_rows, num_features : int
        As of `Corpus`.
    device : torch.device
    most_entries : int
        Of any part.
    gaps : tuple of int
        How many documents are empty, and how many words unused.
    """

    def __init__(self, x: Blocks) -> None:
        if len(x.shape) != 2:
            raise ValueError(f"lda: counts must be a matrix of documents by words, got shape {tuple(x.shape)}")
        if x.shuffles:
            raise ValueError(
                "lda: documents must come in the same order in every pass, and these are shuffled: "
                "make the DataLoader with shuffle=False"
            )
        self._x = x
        self.num_rows, self.num_features = x.shape
        self.device = x.device
        self._size = _documents_at_once(x)
        used = torch.zeros(self.num_features, dtype=torch.bool)
        empty = self.most_entries = 0
        for rows, part in self.parts():
            check_entries(part, first=rows.start)
            used[part.word] = True
            self.most_entries = max(self.most_entries, part.most_entries)
            empty += int((part.document_starts.diff() == 0).sum())
        self.gaps = empty, int((~used).sum())

    def __len__(self) -> int:
        """How many documents there are."""
        return self.num_rows

    def parts(self) -> Iterator[tuple[slice, Corpus]]:
        """Yield one pass: the places of some documents, and these, in float64."""
        start = 0
        for x in self._x.split(self._size):
            if x.shape[1:] != (self.num_features,):
                raise ValueError(f"lda: a batch has shape {tuple(x.shape)}, and there are {self.num_features} words")
            part = entries_of_block(x)
            yield slice(start, start := start + len(x)), replace(part, counts=part.counts.double())

    def chosen(self, places: Tensor) -> Corpus:
        """Return the documents at these places, which must be sorted, in memory."""
        found = []
        with torch.random.fork_rng():  # a DataLoader draws numbers for every pass
            for rows, part in self.parts():
                first, last = torch.searchsorted(places, torch.tensor([rows.start, rows.stop])).tolist()
                if last > first:
                    found.append(part.chosen(places[first:last] - rows.start))
        return joined(found)


def documents_of(x: Any) -> Corpus | CorpusInBlocks:
    """Return a corpus, in memory or not; the same one if it has been read already."""
    if isinstance(x, CorpusInBlocks):
        return x
    return CorpusInBlocks(x) if is_blocks(x) else read(x)


def check_same(tokens: Tensor, part: Corpus, first: int) -> None:
    """Raise ValueError unless documents have as many tokens each, (n,), as in the pass before."""
    wrong = (tokens - part.totals).abs() > 1e-6 * (1 + part.totals)
    if wrong.any():
        raise ValueError(
            f"lda: document {first + int(wrong.nonzero()[0])} is another one than in the pass before: "
            "every pass must have the same documents, in the same order"
        )


def _documents_at_once(x: Blocks) -> int:
    """Return how many documents make up a block: their words should be many beside the vocabulary."""
    width = x.shape[1]
    first = next(islice(x.split(_EXAMPLE), 1))
    if not first.is_sparse:
        return max(1, _NUMBERS // max(1, width))
    entries = max(1.0, first._nnz() / len(first))
    return max(1, int(max(_ENTRIES, 4 * width) / entries))
