"""Exact densities: of documents given the sites, of tokens and their topics without them, and of tiny corpora."""

import math
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn.functional import one_hot

from .._shared.steps import Params
from .corpus import chunks
from .distributions import BagOfWords
from .inputs import as_counts, check_options, read

_MOST_ASSIGNMENTS = 2**22


def log_likelihood(sites: Params, x: Any) -> Float[Tensor, "*batch n"]:
    """Return the log density of each document given topics and its weights, (…, n), in nats.

    It is that of the tokens in one order (without the multinomial coefficient), their topics summed out.

    Parameters
    ----------
    sites : dict
        ``topic_weights`` (…, n, k) and ``topic_words`` (…, k, v), with any dimensions on the left.
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
    """
    words = sites["topic_words"].unsqueeze(-3)
    return BagOfWords(sites["topic_weights"], words, validate_args=False).log_prob(as_counts(x))


def log_joint_collapsed(
    document_topics: Num[Tensor, "*batch n k"],
    topic_words: Num[Tensor, "*batch k v"],
    *,
    alpha: float = 0.1,
    eta: float = 0.01,
) -> Float[Tensor, "*batch"]:
    """Return log p(w, z | alpha, eta), θ and φ integrated out, in nats: Griffiths and Steyvers (2004), eqs 2 and 3.

    Parameters
    ----------
    document_topics : Tensor, shape (…, n, k)
        Number of tokens of each document with each topic.
    topic_words : Tensor, shape (…, k, v)
        Number of tokens of each topic that are each word.
    alpha, eta
        As for `model`.
    """
    return log_dirichlet_ratio(document_topics, alpha).sum(-1) + log_dirichlet_ratio(topic_words, eta).sum(-1)


def log_dirichlet_ratio(counts: Tensor, concentration: float) -> Tensor:
    """Return log B(c + counts) / B(c), (…) from (…, d): labels in one order, their probabilities integrated out."""
    counts = counts if counts.is_floating_point() else counts.double()
    size = counts.shape[-1]
    constant = math.lgamma(size * concentration) - size * math.lgamma(concentration)
    total = counts.sum(-1) + size * concentration
    return constant + (counts + concentration).lgamma().sum(-1) - total.lgamma()


def log_evidence(x: Any, num_topics: int = 2, *, alpha: float = 0.1, eta: float = 0.01) -> Tensor:
    """Return log p(w | alpha, eta) by summing over all assignments of tokens to topics, in nats, float64.

    Parameters
    ----------
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
        A tiny corpus: ``num_topics`` to the power of its tokens may not exceed 2²².
    num_topics, alpha, eta
        As for `model`.

    Raises
    ------
    ValueError
        If there are too many assignments.
    """
    check_options(num_topics, alpha, eta)
    corpus, joints = read(x), []
    document, word = corpus.tokens
    length = len(document)
    if length * math.log(num_topics) > math.log(_MOST_ASSIGNMENTS):
        raise ValueError(
            f"lda: enumeration is for tiny corpora: {num_topics} topics and {length} tokens have "
            f"{num_topics}^{length} assignments, more than {_MOST_ASSIGNMENTS}"
        )
    of_document, of_word = one_hot(document, corpus.num_rows).double(), one_hot(word, corpus.num_features).double()
    power = num_topics ** torch.arange(length)
    for part in chunks(num_topics**length, max(1, num_topics * (length + corpus.num_rows + corpus.num_features))):
        code = torch.arange(part.start, min(part.stop, num_topics**length))
        topic = code[:, None] // power % num_topics
        member = one_hot(topic, num_topics).double().mT
        joints.append(log_joint_collapsed((member @ of_document).mT, member @ of_word, alpha=alpha, eta=eta))
    return torch.cat(joints).logsumexp(0)
