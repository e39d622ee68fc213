"""q(z): the tokens of a corpus shared out among topics, at a cost that follows its entries."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .corpus import Corpus, blocks, chunks
from .sparse import pattern


class Scaled(NamedTuple):
    """Exponentials of log weights, each row over its largest.

    Attributes
    ----------
    values : Tensor, shape (r, k)
        What would be all but zero is a little larger, as exp is slow there.
    logs : callable
        ``(rows) -> (…, k)``: the log weights themselves, of rows given as a slice or by their indices.
    """

    values: Tensor
    logs: Callable[[slice | Tensor], Tensor]


def scaled(logs: Tensor) -> Scaled:
    """Exponentials of a table (r, k) that neither overflow nor are all zero in a row."""
    return scaled_rows(logs.__getitem__, logs)


def scaled_rows(logs: Callable[[slice | Tensor], Tensor], like: Tensor) -> Scaled:
    """The same for a table that is never held whole, of the shape and type of ``like``."""
    values = torch.empty_like(like, memory_format=torch.contiguous_format)
    least = 0.9 * math.log(torch.finfo(values.dtype).tiny)
    for rows in blocks(*values.shape):
        block = logs(rows)
        torch.sub(block, block.amax(-1, keepdim=True), out=values[rows]).clamp_(min=least).exp_()
    return Scaled(values, logs)


class Allocation(NamedTuple):
    """Topics of all tokens: q(z = k) of an entry is proportional to weights times words, except for those ``lost``.

    There the document's topics and the word's are so far apart that the products have no digits: their tokens by
    topic are worked out from the logarithms.

    Attributes
    ----------
    weights : Scaled, of shape (n, k)
    words : Scaled, of shape (v, k)
    corpus : Corpus
    ratio : Tensor, shape (m,)
        Counts over Σ_k weights words; zero for those lost.
    log_norm : Tensor, scalar
        Σ counts log Σ_k weights words, without those lost.
    lost : Tensor, shape (l,)
        Of the entries.
    tokens_of_lost : Tensor, shape (l, k)
    entropy_of_lost : Tensor, scalar
    """

    weights: Scaled
    words: Scaled
    corpus: Corpus
    ratio: Tensor
    log_norm: Tensor
    lost: Tensor
    tokens_of_lost: Tensor
    entropy_of_lost: Tensor

    def of_documents(self) -> Tensor:
        """Expected tokens of each document with each topic, (n, k)."""
        return self._with_lost(self._of_documents(), self.corpus.document)

    def expect(self) -> tuple[Tensor, Tensor, Tensor]:
        """Expected tokens of each document, (n, k), and of each word, (v, k), with each topic; the entropy in nats.

        What it says of the words takes the place of their weights, which are of no use afterwards.
        """
        documents, words = self._of_documents(), self.words.values
        entropy = self.entropy_of_lost + self.log_norm - documents.flatten() @ self.weights.values.log().flatten()
        for rows, sums in pattern(self.corpus).by_word(self.ratio, self.weights.values):
            log_weights = words[rows].log()
            entropy -= (words[rows].mul_(sums) * log_weights).sum()
        return self._with_lost(documents, self.corpus.document), self._with_lost(words, self.corpus.word), entropy

    def _of_documents(self) -> Tensor:
        return pattern(self.corpus).by_document(self.ratio, self.words.values).mul_(self.weights.values)

    def _with_lost(self, found: Tensor, index: Tensor) -> Tensor:
        return found.index_add_(0, index[self.lost], self.tokens_of_lost) if len(self.lost) else found


def allocate(weights: Scaled, words: Scaled, corpus: Corpus, room: Tensor) -> Allocation:
    """q(z) at its best, given expected log weights of documents, (n, k), and of words, (v, k).

    ``room`` is any tensor like the counts, to work in; one for all updates keeps the heap from growing in pieces.
    """
    norm = pattern(corpus).scores(weights.values, words.values, room)
    lost = (norm < torch.finfo(norm.dtype).tiny ** 0.7).nonzero().squeeze(-1)
    tokens, entropy = norm.new_zeros(len(lost), weights.values.shape[-1]), norm.new_zeros(())
    for part in chunks(len(lost), tokens.shape[-1]):
        entry = lost[part]
        scores = weights.logs(corpus.document[entry]) + words.logs(corpus.word[entry])
        shares = scores.softmax(-1)
        tokens[part] = corpus.counts[entry, None] * shares
        entropy += corpus.counts[entry] @ (scores.logsumexp(-1) - (shares * scores).sum(-1))
    norm.index_fill_(0, lost, 1.0)
    log_norm = norm.new_zeros(())
    for entries in blocks(len(norm), 1):
        log_norm += corpus.counts[entries] @ norm[entries].log()
    ratio = torch.div(corpus.counts, norm, out=norm).index_fill_(0, lost, 0.0)
    return Allocation(weights, words, corpus, ratio, log_norm, lost, tokens, entropy)


def document_topics(log_weights: Tensor, log_words: Tensor, corpus: Corpus) -> Tensor:
    """Expected tokens of each document with each topic, (…, n, k), where q(z = k) ∝ exp(log_weights + log_words).

    Parameters
    ----------
    log_weights : Tensor, shape (…, n, k)
    log_words : Tensor, shape (…, v, k)
    corpus : Corpus
    """
    lead = torch.broadcast_shapes(log_weights.shape[:-2], log_words.shape[:-2])
    logs, words = (v.expand(*lead, -1, -1).reshape(-1, *v.shape[-2:]) for v in (log_weights, log_words))
    found = [
        allocate(scaled(one), scaled(two), corpus, torch.empty_like(corpus.counts)).of_documents()
        for one, two in zip(logs, words, strict=True)
    ]
    return torch.stack(found).reshape(*lead, *log_weights.shape[-2:])
