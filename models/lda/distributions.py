"""A document's words as a distribution, the topic of each token summed out."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Generator, Size, Tensor
from torch.types import _size

from .._shared.cache import is_transformed
from .corpus import chunks
from .inputs import read


class BagOfWords(TorchDistribution):
    """Counts of the words of documents: log p(x) = Σ_v x_v log Σ_k weights_k topic_words_kv, tokens in one order.

    Parameters
    ----------
    weights : Tensor, shape (…, n, k)
        Topic weights of each document.
    topic_words : Tensor, shape (…, 1, k, v) or (k, v)
        Probabilities of words in each topic, the same for all documents.
    total_count : Tensor, shape (…, n), optional
        Tokens of each document; needed to draw.
    """

    def __init__(
        self, weights: Tensor, topic_words: Tensor, total_count: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self.weights, self.topic_words, self.total_count = weights, topic_words, total_count
        batch = torch.broadcast_shapes(weights.shape[:-1], topic_words.shape[:-2])
        super().__init__(batch, topic_words.shape[-1:], validate_args=validate_args)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters must be."""
        return {"weights": constraints.simplex, "topic_words": constraints.independent(constraints.simplex, 1)}

    @property
    def support(self) -> constraints.Constraint:
        """Whole numbers from zero up."""
        return constraints.independent(constraints.nonnegative_integer, 1)

    def log_prob(self, value: Any) -> Tensor:
        """Return the log density of counts: (n, v), dense or sparse, by nonzero entries; or (…, n, v), dense."""
        shared = self._shared_topics()
        if value.dim() != 2 or is_transformed(value):
            return torch.xlogy(value, self.weights @ shared).sum(-1)
        corpus, words = read(value), shared.mT
        lead = torch.broadcast_shapes(self.weights.shape[:-2], words.shape[:-2])
        width = max(1, lead.numel()) * self.weights.shape[-1]
        terms = []
        for part in chunks(len(corpus.counts), width):
            of_topics = self.weights.index_select(-2, corpus.document[part]) * words.index_select(-2, corpus.word[part])
            terms.append(corpus.counts[part].to(of_topics) * of_topics.sum(-1).log())
        density = self.weights.new_zeros(*lead, corpus.num_rows)
        return density.index_add(-1, corpus.document, torch.cat(terms, -1)) if terms else density

    def _shared_topics(self) -> Tensor:
        return self.topic_words.squeeze(-3) if self.topic_words.dim() > 2 else self.topic_words

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw counts, shape (*sample_shape, …, n, v); ValueError if the totals are not known."""
        if self.total_count is None:
            raise ValueError("lda: to draw documents, give their totals")
        shape = Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            probs = (self.weights @ self._shared_topics()).expand(*shape, -1)
            return draw_words(probs, self.total_count.expand(shape))


def draw_words(probs: Tensor, totals: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw counts (…, v) of ``totals`` (…) tokens with probabilities (…, v), by inverting the cumulative sums."""
    longest = int(totals.max()) if totals.numel() else 0
    cumulative = probs.cumsum(-1)
    shape = (*totals.shape, longest)
    uniform = torch.rand(shape, generator=generator, dtype=probs.dtype, device=probs.device) * cumulative[..., -1:]
    word = torch.searchsorted(cumulative.contiguous(), uniform, right=True).clamp(max=probs.shape[-1] - 1)
    present = (torch.arange(longest, device=probs.device) < totals.unsqueeze(-1)).to(probs)
    return torch.zeros_like(cumulative).scatter_add_(-1, word, present)
