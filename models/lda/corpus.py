"""A corpus as its nonzero counts, and matrix products that cost as much as there are of them."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

_ELEMENTS = 2**18  # numbers in one chunk of work: 2 MB, which stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Corpus:
    """The nonzero counts ("entries"), documents in order and words in order within them.

    Attributes
    ----------
    document, word : Tensor, shape (m,)
        Indices from 0; 32 bits, which is half the memory.
    counts : Tensor, shape (m,)
        How often the document has the word; floating point.
    num_rows, num_features : int
        n documents, including empty ones, and v words of the vocabulary, including unused ones.
    """

    document: Tensor
    word: Tensor
    counts: Tensor
    num_rows: int
    num_features: int

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.counts.device

    @property
    def most_entries(self) -> int:
        """How many entries are worked on together: all."""
        return len(self.counts)

    @property
    def gaps(self) -> tuple[int, int]:
        """How many documents are empty, and how many words unused."""
        used = (self.document, self.num_rows), (self.word, self.num_features)
        empty, unused = (int((index.bincount(minlength=size) == 0).sum()) for index, size in used)
        return empty, unused

    @property
    def totals(self) -> Tensor:
        """Tokens of each document, shape (n,)."""
        return self.counts.new_zeros(self.num_rows).index_add_(0, self.document, self.counts)

    @cached_property
    def tokens(self) -> tuple[Tensor, Tensor]:
        """Document and word of every token, both of shape (t,), in the order of the entries."""
        times = self.counts.long()
        return self.document.long().repeat_interleave(times), self.word.long().repeat_interleave(times)

    @cached_property
    def document_starts(self) -> Tensor:
        """Where the entries of each document start, shape (n + 1,)."""
        return _starts(self.document, self.num_rows)

    @cached_property
    def by_word(self) -> tuple[Tensor, Tensor]:
        """Where the entries of each word start, (v + 1,), once they are sorted by word; and that order, (m,)."""
        order = self.word.argsort(stable=True).to(self.word.dtype)
        return _starts(self.word, self.num_features), order

    def chosen(self, places: Tensor) -> "Corpus":
        """Return the documents at these places, which must be sorted."""
        is_chosen = torch.zeros(self.num_rows, dtype=torch.bool, device=self.device).index_fill_(0, places, True)
        entries = is_chosen.index_select(0, self.document)
        document = (is_chosen.cumsum(0, dtype=self.document.dtype) - 1).index_select(0, self.document[entries])
        return Corpus(document, self.word[entries], self.counts[entries], len(places), self.num_features)

    def scores(self, left: Tensor, right: Tensor, out: Tensor) -> Tensor:
        """Return Σ_k left[document, k] right[word, k] of every entry in ``out``, (m,); left (n, k), right (v, k)."""
        zero = _csr(self.document_starts, self.word, out.zero_(), len(right))
        return torch.sparse.sampled_addmm(zero, left, right.mT, beta=0.0, out=zero).values()

    def sum_by_document(self, values: Tensor, right: Tensor) -> Tensor:
        """Return Σ values[entry] right[word] over each document's entries, shape (n, k)."""
        return _csr(self.document_starts, self.word, values, len(right)) @ right

    def sum_by_word(self, values: Tensor, left: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield Σ values[entry] left[document] over each word's entries, shape (v, k), a block of words at a time."""
        starts, order = self.by_word
        for words in blocks(self.num_features, left.shape[-1]):
            block = starts[words.start : words.stop + 1]
            entries = order[int(block[0]) : int(block[-1])]
            columns, ordered = (array.index_select(0, entries) for array in (self.document, values))
            yield words, _csr(block - block[0], columns, ordered, len(left)) @ left


def joined(parts: Sequence[Corpus]) -> Corpus:
    """Return documents that follow one another as one corpus."""
    starts = accumulate((part.num_rows for part in parts), initial=0)
    document = torch.cat([part.document + start for part, start in zip(parts, starts, strict=False)])
    word, counts = (torch.cat([getattr(part, name) for part in parts]) for name in ("word", "counts"))
    return Corpus(document, word, counts, sum(part.num_rows for part in parts), parts[0].num_features)


def chunks(length: int, width: int) -> Iterator[slice]:
    """Slices of ``length`` entries, each of which takes ``width`` numbers to work on."""
    size = max(1, _ELEMENTS // width)
    return (slice(start, start + size) for start in range(0, length, size))


def blocks(length: int, width: int) -> Iterator[slice]:
    """Slices of a table's rows: a copy of one is small beside all that a fit holds."""
    return chunks(length, 64 * width)


def _starts(index: Tensor, size: int) -> Tensor:
    return torch.cat([index.new_zeros(1), index.bincount(minlength=size).cumsum(0, dtype=index.dtype)])


def _csr(starts: Tensor, column: Tensor, values: Tensor, width: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        return torch.sparse_csr_tensor(starts, column, values, (len(starts) - 1, width), check_invariants=False)
