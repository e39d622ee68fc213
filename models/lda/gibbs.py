"""Gibbs sampling in two exact blocks: the topics of all tokens, then topics and documents' weights given them."""

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from .._shared.steps import GibbsSteps, Params
from .corpus import check_options, chunks, read, warn_of_gaps

SITES = ("topic_words", "topic_weights")


def gibbs_steps(num_topics: int = 20, alpha: float = 0.1, eta: float = 0.01) -> GibbsSteps:
    """Full conditionals of z and of (topic_words, topic_weights), each drawn at once, all chains together.

    Given topics and weights the tokens are independent, and given the tokens' topics all Dirichlets are: a sweep has
    no loop over tokens. It costs t k operations a chain, as one of the collapsed sampler of Griffiths and Steyvers
    (2004) does, which moves further in a sweep but one token at a time.

    Parameters
    ----------
    num_topics : int
        K.
    alpha, eta : float
        Concentrations of the priors over a document's topics and over a topic's words.

    Returns
    -------
    GibbsSteps
        Every chain starts at random topics of the tokens. The state has the sites, ``z`` (chain, t), and z's tables of
        counts ``document_topics`` (chain, n, k) and ``topic_word_counts`` (chain, k, v), which `log_joint_collapsed`
        takes.
    """

    def init(num_chains: int, x: Tensor) -> Params:
        check_options(num_topics, alpha, eta)
        corpus = read(x)
        warn_of_gaps(corpus)
        topic = torch.randint(num_topics, (num_chains, int(corpus.counts.sum())), device=corpus.counts.device)
        state = _tables(topic, x)
        return state | draw_sites(state, x)

    def draw_topics(state: Params, x: Tensor) -> Params:
        corpus = read(x)
        document, word = corpus.tokens()
        least = torch.finfo(corpus.counts.dtype).tiny ** 0.49  # products of less take many times as long
        weights, words = state["topic_weights"].clamp(min=least), state["topic_words"].mT.clamp(min=least).contiguous()
        topic = torch.empty_like(state["z"])
        for part in chunks(len(document), len(weights) * num_topics):
            joint = weights.index_select(1, document[part]) * words.index_select(1, word[part])
            cumulative = joint.cumsum(-1)
            uniform = torch.rand_like(cumulative[..., :1]) * cumulative[..., -1:]
            topic[:, part] = (uniform > cumulative[..., :-1]).sum(-1)
        return _tables(topic, x)

    def draw_sites(state: Params, x: Tensor) -> Params:
        return {
            "topic_words": Dirichlet(state["topic_word_counts"] + eta, False).sample(),
            "topic_weights": Dirichlet(state["document_topics"] + alpha, False).sample(),
        }

    def _tables(topic: Tensor, x: Tensor) -> Params:
        corpus = read(x)
        document, word = corpus.tokens()
        chains, one = len(topic), corpus.counts.new_ones(()).expand_as(topic)
        of_documents = one.new_zeros(chains, corpus.num_rows * num_topics)
        of_words = one.new_zeros(chains, num_topics * corpus.num_features)
        of_documents.scatter_add_(1, document * num_topics + topic, one)
        of_words.scatter_add_(1, topic * corpus.num_features + word, one)
        return {
            "z": topic,
            "document_topics": of_documents.unflatten(1, (-1, num_topics)),
            "topic_word_counts": of_words.unflatten(1, (num_topics, -1)),
        }

    return GibbsSteps(init, (draw_topics, draw_sites), SITES)
