"""q(z): the responsibilities of topics for the tokens of a corpus, at a cost proportional to its entries."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .corpus import Corpus, blocks, chunks


class RowScaledExp(NamedTuple):
    """Exponentials of a table of log weights, each row divided by its largest."""

    values: Tensor  # (r, k): raised to just above zero where they would underflow, as arithmetic is slow there
    logs: Callable[[slice | Tensor], Tensor]  # the log weights, (…, k), of rows given as a slice or by their indices


def row_scaled_exp(logs: Tensor) -> RowScaledExp:
    """Return exponentials of a table (r, k) that neither overflow nor are all zero in a row."""
    return row_scaled_exp_of(logs.__getitem__, logs)


def row_scaled_exp_of(logs: Callable[[slice | Tensor], Tensor], like: Tensor) -> RowScaledExp:
    """Do the same for a table of the shape and type of ``like`` that is never held whole."""
    values = torch.empty_like(like, memory_format=torch.contiguous_format)
    least = 0.9 * math.log(torch.finfo(values.dtype).tiny)
    for rows in blocks(*values.shape):
        block = logs(rows)
        torch.sub(block, block.amax(-1, keepdim=True), out=values[rows]).clamp_(min=least).exp_()
    return RowScaledExp(values, logs)


class TokenResponsibilities(NamedTuple):
    """Topics of all tokens: q(z = k) of an entry is proportional to weights times words.

    The exception are ``underflowed`` entries, where the document's topics and the word's are so far apart that the
    products have no digits: their tokens by topic are worked out from the logarithms.

    """

    weights: RowScaledExp  # (n, k)
    words: RowScaledExp  # (v, k)
    corpus: Corpus
    ratio: Tensor  # (m,): counts over Σ_k weights words; zero for underflowed entries
    log_norm: Tensor  # Σ counts log Σ_k weights words, without underflowed entries
    underflowed: Tensor  # (l,): indices of entries
    underflowed_tokens: Tensor  # (l, k): their expected tokens with each topic
    underflowed_entropy: Tensor  # of their q(z), in nats

    def document_topics(self) -> Tensor:
        """Return the expected tokens of each document with each topic, (n, k)."""
        return self._add_underflowed(self._products_by_document(), self.corpus.document)

    def expect(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the expected tokens with each topic of each document, (n, k), and word, (v, k), and the entropy.

        The tokens of words overwrite ``words.values``, which are not needed afterwards. The entropy is in nats.
        """
        documents, entropy = self._by_document()
        words = self.words.values
        for rows, sums in self.corpus.sum_by_word(self.ratio, self.weights.values):
            entropy -= multiply(words[rows], sums)
        return documents, self._add_underflowed(words, self.corpus.word), entropy

    def add_to(self, totals: "WordTotals") -> Tensor:
        """Add what these documents say of the words to that of others; return the first of what `expect` does."""
        documents, entropy = self._by_document()
        totals.entropy += entropy
        for rows, sums in self.corpus.sum_by_word(self.ratio, self.weights.values):
            totals.sums[rows] += sums
        if len(self.underflowed):
            known = torch.zeros_like(totals.sums) if totals.underflowed is None else totals.underflowed
            totals.underflowed = self._add_underflowed(known, self.corpus.word)
        return documents

    def _by_document(self) -> tuple[Tensor, Tensor]:
        """Return the tokens of documents, and the part of the entropy that can be told without those of words."""
        documents = self._products_by_document()
        entropy = self.underflowed_entropy + self.log_norm - documents.flatten() @ self.weights.values.log().flatten()
        return self._add_underflowed(documents, self.corpus.document), entropy

    def _products_by_document(self) -> Tensor:
        return self.corpus.sum_by_document(self.ratio, self.words.values).mul_(self.weights.values)

    def _add_underflowed(self, tokens: Tensor, index: Tensor) -> Tensor:
        rows = self.underflowed
        return tokens.index_add_(0, index[rows], self.underflowed_tokens) if len(rows) else tokens


class WordTotals:
    """Expected tokens of words, and the entropy of q(z), added up over parts of a corpus.

    Attributes
    ----------
    sums : Tensor, shape (v, k)
        Σ ratio weights over the words' entries, which the words' own weights are still to be multiplied with.
    underflowed : Tensor, shape (v, k), or None
        Expected tokens of underflowed entries, if there are any.
    entropy : Tensor, scalar
        In nats, without the part for which ``sums`` must be complete.
    """

    def __init__(self, words: RowScaledExp) -> None:
        self._words = words.values
        self.sums = torch.zeros_like(self._words)
        self.underflowed: Tensor | None = None
        self.entropy = self.sums.new_zeros(())

    def finish(self) -> tuple[Tensor, Tensor]:
        """Return the last two of what `TokenResponsibilities.expect` does of all parts; it, too, overwrites words."""
        for rows in blocks(*self._words.shape):
            self.entropy -= multiply(self._words[rows], self.sums[rows])
        if self.underflowed is not None:
            self._words += self.underflowed
        return self._words, self.entropy


def multiply(values: Tensor, sums: Tensor) -> Tensor:
    """Multiply ``values`` by ``sums`` in place, and return Σ values sums log values."""
    logs = values.log()
    return (values.mul_(sums) * logs).sum()


def token_responsibilities(
    weights: RowScaledExp, words: RowScaledExp, corpus: Corpus, workspace: Tensor
) -> TokenResponsibilities:
    """Return the optimal q(z), given expected log weights of documents, (n, k), and of words, (v, k).

    ``workspace``, a tensor like the counts, is overwritten; reusing one for all updates keeps the heap in one piece.
    """
    norm = corpus.scores(weights.values, words.values, workspace)
    underflowed = (norm < torch.finfo(norm.dtype).tiny ** 0.7).nonzero().squeeze(-1)
    tokens, entropy = norm.new_zeros(len(underflowed), weights.values.shape[-1]), norm.new_zeros(())
    for part in chunks(len(underflowed), tokens.shape[-1]):
        entry = underflowed[part]
        scores = weights.logs(corpus.document[entry]) + words.logs(corpus.word[entry])
        responsibilities = scores.softmax(-1)
        tokens[part] = corpus.counts[entry, None] * responsibilities
        entropy += corpus.counts[entry] @ (scores.logsumexp(-1) - (responsibilities * scores).sum(-1))
    norm.index_fill_(0, underflowed, 1.0)
    log_norm = norm.new_zeros(())
    for entries in blocks(len(norm), 1):
        log_norm += corpus.counts[entries] @ norm[entries].log()
    ratio = torch.div(corpus.counts, norm, out=norm).index_fill_(0, underflowed, 0.0)
    return TokenResponsibilities(weights, words, corpus, ratio, log_norm, underflowed, tokens, entropy)


def document_topics(log_weights: Tensor, log_words: Tensor, corpus: Corpus) -> Tensor:
    """Return the expected tokens of documents with each topic, (…, n, k), for q(z = k) ∝ exp(log_weights + log_words).

    ``log_weights`` (…, n, k) and ``log_words`` (…, v, k) may have any dimensions on the left.
    """
    lead = torch.broadcast_shapes(log_weights.shape[:-2], log_words.shape[:-2])
    logs, words = (v.expand(*lead, -1, -1).reshape(-1, *v.shape[-2:]) for v in (log_weights, log_words))
    found = []
    for one, two in zip(map(row_scaled_exp, logs), map(row_scaled_exp, words), strict=True):
        q = token_responsibilities(one, two, corpus, torch.empty_like(corpus.counts))
        found.append(q.document_topics())
    return torch.stack(found).reshape(*lead, *log_weights.shape[-2:])
