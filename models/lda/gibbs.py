"""Gibbs sampling in two exact blocks: the topics of all tokens, then topics and documents' weights given them."""

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from .._shared.memory import check_memory
from .._shared.steps import GibbsSteps, Params
from .corpus import Corpus, chunks
from .inputs import check_options, check_size, read, warn_of_gaps

_PER_TOKEN = 4  # numbers in each chain


def gibbs_steps(num_topics: int = 20, alpha: float = 0.1, eta: float = 0.01) -> GibbsSteps:
    """Full conditionals of z and of (topic_words, topic_weights), each drawn as one block, all chains together.

    Given topics and weights, tokens are independent; given the tokens' topics, all Dirichlets are. So a sweep has no
    loop over tokens. It costs t k operations per chain, like one of the collapsed sampler of Griffiths and Steyvers
    (2004), which moves further in a sweep but one token at a time.

    Parameters
    ----------
    num_topics, alpha, eta
        As for `model`.

    Returns
    -------
    GibbsSteps
        Every chain starts at random topics of the tokens. The state has the sites, ``z`` (chain, t), and z's tables of
        counts ``document_topics`` (chain, n, k) and ``topic_word_counts`` (chain, k, v), which `log_joint_collapsed`
        takes.
    """

    def init(num_chains: int, x: Tensor | Corpus) -> Params:
        check_options(num_topics, alpha, eta)
        corpus = read(x)
        warn_of_gaps(corpus)
        check_size(num_chains * num_topics, corpus.num_rows, corpus.num_features)
        check_memory(
            "lda", f"{float(corpus.counts.sum()):g} tokens", _PER_TOKEN * num_chains * float(corpus.counts.sum())
        )
        topic = torch.randint(num_topics, (num_chains, int(corpus.counts.sum())), device=corpus.device)
        state = count_topics(topic, corpus)
        return state | draw_sites(state, corpus)

    def draw_topics(state: Params, x: Tensor | Corpus) -> Params:
        corpus = read(x)
        document, word = corpus.tokens
        least = torch.finfo(corpus.counts.dtype).tiny ** 0.49  # products of less take many times as long
        weights, words = state["topic_weights"].clamp(min=least), state["topic_words"].mT.clamp(min=least).contiguous()
        topic = torch.empty_like(state["z"])
        for part in chunks(len(document), len(weights) * num_topics):
            joint = weights.index_select(1, document[part]) * words.index_select(1, word[part])
            cumulative = joint.cumsum(-1)
            uniform = torch.rand_like(cumulative[..., :1]) * cumulative[..., -1:]
            topic[:, part] = (uniform > cumulative[..., :-1]).sum(-1)
        return count_topics(topic, corpus)

    def draw_sites(state: Params, x: Tensor | Corpus) -> Params:
        return {
            "topic_words": Dirichlet(state["topic_word_counts"] + eta, False).sample(),
            "topic_weights": Dirichlet(state["document_topics"] + alpha, False).sample(),
        }

    def count_topics(topic: Tensor, corpus: Corpus) -> Params:
        document, word = corpus.tokens
        chains, one = len(topic), corpus.counts.new_ones(()).expand_as(topic)
        document_topics = one.new_zeros(chains, corpus.num_rows * num_topics)
        topic_words = one.new_zeros(chains, num_topics * corpus.num_features)
        document_topics.scatter_add_(1, document * num_topics + topic, one)
        topic_words.scatter_add_(1, topic * corpus.num_features + word, one)
        return {
            "z": topic,
            "document_topics": document_topics.unflatten(1, (-1, num_topics)),
            "topic_word_counts": topic_words.unflatten(1, (num_topics, -1)),
        }

    return GibbsSteps(init, (draw_topics, draw_sites), ("topic_words", "topic_weights"), prepare=lambda x: (read(x),))
