"""Online variational Bayes: topics from documents that come in batches, each of which is read once.

Hoffman, Blei and Bach (2010), Online learning for latent Dirichlet allocation, NeurIPS.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .cavi import expect
from .inputs import check_options, read

_UPDATES = 100  # of a batch's q(z) and q(topic_weights) in turn, given the topics


@torch.no_grad()
def online_update(
    topic_words: Float[Tensor, "k v"],
    x: Any,
    *,
    alpha: float = 0.1,
    eta: float = 0.01,
    num_documents: int | float,
    step_size: float,
) -> Float[Tensor, "k v"]:
    """Return q(topic_words) moved towards what it would be if all documents were like those of a batch: algorithm 2.

    Parameters
    ----------
    topic_words : Tensor, shape (k, v)
        Concentrations of q before.
    x : Tensor, ndarray, or SciPy sparse matrix or array; shape (n, v)
        The batch.
    alpha, eta
        As for `model`.
    num_documents : float
        How many documents there are in all: the batch counts as that many.
    step_size : float
        ρ, between 0 and 1: how far to move. Steps (offset + t)^-decay, decay in (.5, 1], converge.

    Returns
    -------
    Tensor, shape (k, v)

    Raises
    ------
    ValueError
        If an option is out of range, or what is counted is none.
    """
    check_options(len(topic_words), alpha, eta)
    if not 0 < step_size <= 1:
        raise ValueError(f"lda: step_size must lie between 0 and 1, got {step_size}")
    corpus = read(x)
    even = topic_words.new_ones(corpus.num_rows, len(topic_words))
    params = {"topic_words.concentration": topic_words, "topic_weights.concentration": even}
    found = expect(params, corpus, alpha, eta, _UPDATES).topic_words
    implied = eta + num_documents / corpus.num_rows * (found - eta)
    return torch.lerp(topic_words, implied, step_size)
