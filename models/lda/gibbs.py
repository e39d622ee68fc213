"""Gibbs sampling of the tokens' topics, collapsed or in blocks; topics and documents' weights are drawn given them."""

import warnings

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from .._shared.memory import check_memory
from .._shared.steps import GibbsSteps, Params
from . import blocked
from .collapsed import obstacle, sweep
from .corpus import Corpus
from .inputs import check_options, check_size, read, warn_of_gaps

_PER_TOKEN = 4  # numbers in each chain, of the blocked sampler, which takes more


def gibbs_steps(
    num_topics: int = 20, alpha: float = 0.1, eta: float = 0.01, collapsed: bool | None = None
) -> GibbsSteps:
    """Gibbs sampling of z; topic_words and topic_weights are drawn from their Dirichlets given z, where they are kept.

    The collapsed sampler of Griffiths and Steyvers (2004) has the sites integrated out and draws one token at a time,
    in C++. The blocked one draws the sites given z, then all tokens at once, which are independent given these. Both
    are exact, and both take t k operations per sweep and chain; the collapsed one moves further in a sweep and takes
    less time for it. It works in float32: probabilities are right to within about 1e-6.

    Parameters
    ----------
    num_topics, alpha, eta
        As for `model`.
    collapsed : bool, optional
        Which of the two. Default: collapsed, unless there is no C++ compiler or the data are on a GPU. A seed gives
        other draws with either.

    Returns
    -------
    GibbsSteps
        Every chain starts at random topics of the tokens. The state has ``z`` (chain, t), and its tables of counts
        ``document_topics`` (chain, n, k) and ``topic_word_counts`` (chain, k, v), which `log_joint_collapsed` takes.

    Raises
    ------
    ValueError
        By ``init``, of ``collapsed=True`` where that is not possible, with the reason.

    Warns
    -----
    UserWarning
        By ``init``, if the blocked sampler has to do on a CPU.
    """

    def init(num_chains: int, x: Tensor | Corpus) -> Params:
        check_options(num_topics, alpha, eta)
        corpus = read(x)
        warn_of_gaps(corpus.gaps, corpus.num_rows, corpus.num_features)
        check_size(num_chains * num_topics, corpus.num_rows, corpus.num_features)
        tokens = float(corpus.counts.sum())
        check_memory("lda", f"{tokens:g} tokens", _PER_TOKEN * num_chains * tokens)
        reason = obstacle_to_collapsing(corpus)
        if reason and collapsed:
            raise ValueError(f"lda: tokens cannot be drawn with collapsed=True: {reason}")
        if reason and collapsed is None and corpus.device.type == "cpu":
            message = f"lda: all tokens are drawn at once, which takes several times as long as in turn: {reason}"
            warnings.warn(message, stacklevel=3)
        topic = torch.randint(num_topics, (num_chains, int(tokens)), dtype=torch.int32, device=corpus.device)
        return blocked.count_topics(topic, corpus, num_topics)

    def draw_topics(state: Params, x: Tensor | Corpus) -> Params:
        corpus = read(x)
        if collapsed is not False and not obstacle_to_collapsing(corpus):
            return sweep(state["z"], corpus, num_topics, alpha, eta)
        return blocked.count_topics(blocked.draw_topics(draw_sites(state, corpus), corpus), corpus, num_topics)

    def draw_sites(state: Params, x: Tensor | Corpus) -> Params:
        counts = read(x).counts
        return {
            "topic_words": Dirichlet(state["topic_word_counts"].to(counts) + eta, False).sample(),
            "topic_weights": Dirichlet(state["document_topics"].to(counts) + alpha, False).sample(),
        }

    def obstacle_to_collapsing(corpus: Corpus) -> str:
        return "" if collapsed is False else obstacle(corpus, num_topics, alpha, eta)

    sites = ("topic_words", "topic_weights")
    return GibbsSteps(init, (draw_topics,), sites, prepare=lambda x: (read(x),), draw=draw_sites)
