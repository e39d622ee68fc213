"""Exact densities: of documents given the sites, of tokens and topics without them, and of tiny corpora whole."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.steps import Params
from .corpus import Corpus, as_counts, check_options, chunks, read
from .distributions import BagOfWords

_MOST_ASSIGNMENTS = 2**22


def log_likelihood(sites: Params, x: Any) -> Float[Tensor, "*batch n"]:
    """Log density of each document given topics and its weights, tokens' topics summed out, in nats.

    Parameters
    ----------
    sites : dict
        ``topic_weights`` (…, n, k) and ``topic_words`` (…, k, v), with any dimensions on the left.
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)

    Returns
    -------
    Tensor, shape (…, n)
        Of the tokens in one order: without the multinomial coefficient.
    """
    words = sites["topic_words"].unsqueeze(-3)
    return BagOfWords(sites["topic_weights"], words, validate_args=False).log_prob(as_counts(x))


def log_joint_collapsed(
    document_topics: Float[Tensor, "*batch n k"],
    topic_words: Float[Tensor, "*batch k v"],
    *,
    alpha: float = 0.1,
    eta: float = 0.01,
) -> Float[Tensor, "*batch"]:
    """Logarithm of p(w, z | alpha, eta), θ and φ integrated out, in nats: Griffiths and Steyvers (2004), eqs 2 and 3.

    Parameters
    ----------
    document_topics : Tensor, shape (…, n, k)
        How many tokens of each document have each topic.
    topic_words : Tensor, shape (…, k, v)
        How many tokens of each topic are each word.
    alpha, eta : float
        Concentrations of the priors.
    """
    return log_dirichlet_ratio(document_topics, alpha).sum(-1) + log_dirichlet_ratio(topic_words, eta).sum(-1)


def log_dirichlet_ratio(counts: Tensor, concentration: float) -> Tensor:
    """Log of B(c + counts) / B(c), (…) from (…, d): labels in one order, their Dirichlet shares integrated out."""
    size = counts.shape[-1]
    constant = math.lgamma(size * concentration) - size * math.lgamma(concentration)
    total = counts.sum(-1) + size * concentration
    return constant + (counts + concentration).lgamma().sum(-1) - total.lgamma()


def log_evidence(x: Any, num_topics: int = 2, *, alpha: float = 0.1, eta: float = 0.01) -> Tensor:
    """Logarithm of p(w | alpha, eta), by summing over every assignment of tokens to topics, in nats, float64.

    Parameters
    ----------
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
        A tiny corpus: `num_topics` to the power of its tokens may not exceed 2²².
    num_topics : int
        K.
    alpha, eta : float
        Concentrations of the priors.

    Raises
    ------
    ValueError
        If there are too many assignments.
    """
    check_options(num_topics, alpha, eta)
    parts = [joint for _, joint in _assignments(read(x), num_topics, alpha, eta)]
    return torch.cat(parts).logsumexp(0)


def same_topic_probability(x: Any, num_topics: int = 2, *, alpha: float = 0.1, eta: float = 0.01) -> Tensor:
    """p(z[s] = z[t] | w) for every two tokens, shape (t, t), float64, by enumeration; no relabelling changes it.

    Tokens stand document by document, and by word within a document. Arguments and errors as for `log_evidence`.
    """
    check_options(num_topics, alpha, eta)
    corpus = read(x)
    evidence = log_evidence(x, num_topics, alpha=alpha, eta=eta)
    tokens = int(corpus.counts.sum())
    together = torch.zeros(tokens, tokens, dtype=torch.float64)
    for topic, joint in _assignments(corpus, num_topics, alpha, eta):
        weight = (joint - evidence).exp()
        for k in range(num_topics):
            member = (topic == k).double()
            together += member.mT @ (weight[:, None] * member)
    return together


def _assignments(corpus: Corpus, num_topics: int, alpha: float, eta: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Assignments (a, t) and their log p(w, z), shape (a,), a chunk at a time."""
    document, word = corpus.tokens()
    length = len(document)
    if length * math.log(num_topics) > math.log(_MOST_ASSIGNMENTS):
        raise ValueError(
            f"lda: enumeration is for tiny corpora: {num_topics} topics and {length} tokens have "
            f"{num_topics}^{length} assignments, more than {_MOST_ASSIGNMENTS}"
        )
    of_document = torch.nn.functional.one_hot(document, corpus.num_rows).double()
    of_word = torch.nn.functional.one_hot(word, corpus.num_features).double()
    power = num_topics ** torch.arange(length)
    for part in chunks(num_topics**length, max(1, num_topics * (length + corpus.num_rows + corpus.num_features))):
        code = torch.arange(part.start, min(part.stop, num_topics**length))
        topic = code[:, None] // power % num_topics
        member = torch.nn.functional.one_hot(topic, num_topics).double().mT
        joint = log_joint_collapsed((member @ of_document).mT, member @ of_word, alpha=alpha, eta=eta)
        yield topic, joint
