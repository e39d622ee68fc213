"""Documents that a fit has not seen: their topic weights, and a perplexity for topics from any source."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.steps import Params
from .cavi import log_expectation
from .corpus import Corpus, chunks
from .inputs import check_options, read
from .responsibilities import document_topics

_AT_ONCE = 2**20  # numbers in a batch of draws of the topics


def transform(
    sites: Params, x: Any, *, alpha: float = 0.1, num_steps: int = 200, tol: float = 1e-6
) -> Float[Tensor, "*batch n k"]:
    """Infer topic weights of documents given topics: the mean of q, by the fixed point of Blei, Ng and Jordan, 5.2.

    With known topics, q(topic_weights[n]) is a Dirichlet and q(z) a categorical per token; updates alternate, starting
    from uniform q(z). A document without tokens gets the prior's mean.

    Parameters
    ----------
    sites : dict
        ``topic_words`` (…, k, v), with any dimensions on the left; other sites are ignored.
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
        New documents or old.
    alpha : float
        As for `model`.
    num_steps : int
        Maximum number of updates; they stop when no weight changes by more than ``tol``.
    tol : float

    Raises
    ------
    ValueError
        If topics and documents differ in their number of words.
    """
    check_options(1, alpha)
    words = sites["topic_words"]
    corpus = _same_words(words, read(x))
    corpus = replace(corpus, counts=corpus.counts.to(words))
    weights = [_infer(part, corpus, alpha, num_steps, tol) for part in _batches(words)]
    return torch.cat(weights).reshape(*words.shape[:-2], corpus.num_rows, words.shape[-2])


def perplexity(
    topic_words: Float[Tensor, "*batch k v"], x: Any, *, alpha: float = 0.1, seed: int = 0, observed: float = 0.5
) -> float:
    """Return the held-out perplexity by document completion, Wallach et al. (2009), section 3: lower is better.

    Every document's tokens are split at random: `transform` infers its weights from one part, and the other is scored:
    exp(-Σ log p(token) / tokens), p(token) = Σ_k weights_k topic_words_kv, averaged over draws of the topics. Topics
    may come from any library: rows must sum to one.

    Parameters
    ----------
    topic_words : Tensor, shape (…, k, v)
        Topics, or draws of them, with any dimensions on the left.
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
        Documents to which the topics were not fitted.
    alpha : float
        As for `model`.
    seed, observed
        As for `split_tokens`; weights are inferred from the first part.

    Returns
    -------
    float
        inf if a token is impossible under all topics.

    Raises
    ------
    ValueError
        If no token is left to score, topics do not sum to one, or their number of words differs from the documents'.
    """
    log_density, tokens = completion(topic_words, x, alpha=alpha, seed=seed, observed=observed)
    return float((-log_density.sum() / tokens.sum()).exp())


def completion(
    topic_words: Float[Tensor, "*batch k v"], x: Any, *, alpha: float = 0.1, seed: int = 0, observed: float = 0.5
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return the log density of each document's second part given its first, in nats, and how many tokens it has.

    What `perplexity` is made of, so that models can be compared document by document; arguments and errors as there.
    """
    sums = topic_words.sum(-1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        raise ValueError("lda: topics are probabilities of words, and each must sum to one")
    first, second = split_tokens(x, observed=observed, seed=seed)
    scored = read(second)
    if not len(scored.counts):
        raise ValueError("lda: no token is left to score: the documents are too short, or observed is too near to 1")
    _same_words(topic_words, scored)
    total, draws = topic_words.new_zeros(len(scored.counts)), 0
    for words in _batches(topic_words):
        weights, by_word = transform({"topic_words": words}, first, alpha=alpha), words.mT.contiguous()
        for part in chunks(len(scored.counts), words[..., 0].numel()):
            of_topics = weights.index_select(-2, scored.document[part]) * by_word.index_select(-2, scored.word[part])
            total[part] += of_topics.sum((0, -1))
        draws += len(words)
    zero, document = total.new_zeros(scored.num_rows), scored.document.long()
    counts = scored.counts.to(total)
    return zero.index_add(0, document, counts * (total / draws).log()), zero.index_add(0, document, counts)


def split_tokens(x: Any, *, observed: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split every document's tokens at random into two corpora, sparse tensors of x's shape that add up to it.

    Parameters
    ----------
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
    observed : float
        Fraction of each document's tokens, rounded down, that go to the first; between 0 and 1.
    seed : int
    """
    if not 0 <= observed <= 1:
        raise ValueError(f"lda: observed must lie between 0 and 1, got {observed}")
    corpus = read(x)
    document, word = (index.cpu() for index in corpus.tokens)
    key = torch.rand(len(document), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    order = (document + key).argsort()  # random within a document
    totals = corpus.totals.cpu()
    rank = torch.arange(len(document)) - (totals.cumsum(0) - totals).repeat_interleave(totals.long())
    first = rank < (observed * totals).floor().repeat_interleave(totals.long())

    def gather(chosen: Tensor) -> Tensor:
        index = torch.stack([document[order][chosen], word[order][chosen]]).long()
        ones = torch.ones(index.shape[1], dtype=corpus.counts.dtype)
        shape = (corpus.num_rows, corpus.num_features)
        return torch.sparse_coo_tensor(index, ones, shape, check_invariants=False).coalesce().to(corpus.device)

    return gather(first), gather(~first)


def _infer(words: Tensor, corpus: Corpus, alpha: float, num_steps: int, tol: float) -> Tensor:
    """Return weights (s, n, k) for s draws of the topics, (s, k, v)."""
    logs = words.clamp(min=torch.finfo(words.dtype).tiny).log().mT.contiguous()
    draws, topics, _ = words.shape
    mean = words.new_full((draws, corpus.num_rows, topics), 1 / topics)
    total = (topics * alpha + corpus.totals).unsqueeze(-1)
    concentration = mean * total
    for _ in range(num_steps):
        last, concentration = mean, alpha + document_topics(log_expectation(concentration), logs, corpus)
        mean = concentration / total
        if (mean - last).abs().max() <= tol:
            break
    return mean


def _batches(words: Tensor) -> tuple[Tensor, ...]:
    """Split topics (…, k, v) into batches of draws, (s, k, v), that fit in memory."""
    flat = words.reshape(-1, *words.shape[-2:])
    return flat.split(max(1, _AT_ONCE // flat[0].numel()))


def _same_words(words: Tensor, corpus: Corpus) -> Corpus:
    if words.shape[-1] != corpus.num_features:
        raise ValueError(f"lda: the topics are over {words.shape[-1]} words, the documents over {corpus.num_features}")
    return corpus
