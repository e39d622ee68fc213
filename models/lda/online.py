"""Online variational Bayes: topics from documents that come in batches, each of which is read once.

Hoffman, Blei and Bach (2010), Online learning for latent Dirichlet allocation, NeurIPS.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Dirichlet

from .._shared.steps import OnlineSteps, Params
from .cavi import expect, start
from .heldout import completion
from .inputs import check_options, read

_UPDATES = 100  # of a batch's q(z) and q(topic_weights) in turn, given the topics, at most
_ENOUGH = 1e-3  # tokens by which a document's topics change on average, at which they stop, as in the paper
_SCORED = 100  # documents of a batch whose second halves are predicted


def online_steps(num_topics: int = 20, alpha: float = 0.1, eta: float = 0.01) -> OnlineSteps:
    """Return steps of online variational Bayes, Hoffman, Blei and Bach (2010), algorithm 2.

    Parameters
    ----------
    num_topics, alpha, eta
        As for `model`.

    Returns
    -------
    OnlineSteps
        For batches ``(x,)`` of documents, (n, v), dense or sparse. The parameter is ``topic_words.concentration``
        (k, v). The score is the mean log density of a token in the second halves of the first hundred documents with
        two tokens or more, given their first halves (`completion`), before anything is learned from them; ValueError
        for a batch without any.
    """
    name, options = "topic_words.concentration", {"alpha": alpha, "eta": eta}

    def init(x: Any) -> Params:
        return {name: start(x, num_topics, alpha, eta, seeds=2)[name]}

    def update(params: Params, step_size: float, num_rows: int, x: Any) -> tuple[Params, Tensor]:
        topics = params[name]
        mean = topics / topics.sum(-1, keepdim=True)
        log_density, tokens = completion(mean, _scored(x), alpha=alpha)
        moved = online_update(topics, x, **options, num_documents=num_rows, step_size=step_size, tol=_ENOUGH)
        return {name: moved}, log_density.sum() / tokens.sum()

    def draw(params: Params, num_draws: int) -> Params:
        return {"topic_words": Dirichlet(params[name], validate_args=False).sample(torch.Size([num_draws]))}

    return OnlineSteps(init, update, draw, sparse=True)


def _scored(x: Tensor) -> Tensor:
    """Return the first documents that can be split in two."""
    lengths = x.sum(1)
    rows = (lengths.to_dense() if lengths.is_sparse else lengths).gt(1).nonzero().flatten()[:_SCORED]
    if not len(rows):
        raise ValueError(f"lda: none of the {len(x)} documents of a batch has two tokens: take larger batches")
    return x.index_select(0, rows)


@torch.no_grad()
def online_update(
    topic_words: Float[Tensor, "k v"],
    x: Any,
    *,
    alpha: float = 0.1,
    eta: float = 0.01,
    num_documents: int | float,
    step_size: float,
    tol: float = 0.0,
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
    tol : float
        Tokens by which a document's expected topics change on average, at which their updates stop; default: after a
        hundred.

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
    found = expect(params, corpus, alpha, eta, _UPDATES, tol).topic_words
    implied = eta + num_documents / corpus.num_rows * (found - eta)
    return torch.lerp(topic_words, implied, step_size)
