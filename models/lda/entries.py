"""The nonzero entries of counts of words, and whether they are counts."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .._shared.inputs import LARGEST
from .corpus import Corpus, blocks, joined

_TOGETHER = 2**18  # numbers of a dense matrix that are looked at together: marks and places of them are held


def entries_of(x: Tensor) -> Corpus:
    """Return the nonzero entries of counts, dense or sparse and coalesced, shape (n, v)."""
    if x.layout == torch.sparse_coo:
        (document, word), counts = x.indices(), x.values()
        if not bool((nonzero := counts != 0).all()):
            document, word, counts = document[nonzero], word[nonzero], counts[nonzero]
        dtype = _index_type(*x.shape, len(counts))
        return Corpus(document.to(dtype), word.to(dtype), counts, *x.shape)
    x = x.detach()
    size = _size(x)
    total = int(x.count_nonzero())
    document, word = (torch.empty(total, dtype=_index_type(*x.shape, total), device=x.device) for _ in range(2))
    counts, end = x.new_empty(total), 0
    for start in range(0, len(x), size):
        index, column, values = _nonzero(x[start : start + size])
        here = slice(end, end := end + len(values))
        document[here], word[here], counts[here] = index + start, column, values
    return Corpus(document, word, counts, *x.shape)


def entries_of_block(x: Tensor) -> Corpus:
    """Do the same for rows that are few: all of them are looked at once, and the parts held twice while joined."""
    if x.is_sparse:
        return entries_of(x.coalesce())
    return joined([Corpus(*_nonzero(part), *part.shape) for part in x.split(_size(x))])


def _size(x: Tensor) -> int:
    return max(1, _TOGETHER // max(1, x.shape[1]))


def _nonzero(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, column and value of all numbers in a matrix but zeros."""
    flat, width = x.flatten(), max(1, x.shape[1])
    found = flat != 0
    places = torch.from_numpy(np.flatnonzero(found)) if x.device.type == "cpu" else found.nonzero().squeeze(-1)
    places = places.to(_index_type(x.numel()))
    row = places.div(width, rounding_mode="floor")
    return row, places - row * width, flat.index_select(0, places)


def _index_type(*sizes: int) -> torch.dtype:
    return torch.int32 if max(sizes) < 2**31 else torch.int64


def check_entries(corpus: Corpus, columns: Sequence[str] | None = None, first: int = 0) -> None:
    """Raise ValueError, naming document and word, unless every entry is a count, and there are documents and words.

    ``columns`` are the vocabulary, for the message; ``first`` is the number of the first document.
    """
    for entries in blocks(len(corpus.counts), 1):
        counts = corpus.counts[entries]
        wrong = ~((counts >= 0) & (counts % 1 == 0) & (counts <= LARGEST))
        if wrong.any():
            place = entries.start + int(wrong.nonzero()[0])
            row, column = first + int(corpus.document[place]), int(corpus.word[place])
            name = column if columns is None else repr(columns[column])
            raise ValueError(
                f"lda: document {row}, word {name} has {float(corpus.counts[place]):g}, "
                "but counts are whole numbers from zero up, to 2^53 at most"
            )
    if not corpus.num_features or not corpus.num_rows:
        raise ValueError(f"lda: the corpus has no {'documents' if corpus.num_features else 'words'}")
