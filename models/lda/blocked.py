"""The blocked Gibbs sampler: the topics of all tokens at once, given topics' words and documents' weights."""

import torch
from torch import Tensor

from .._shared.steps import Params
from .corpus import Corpus, chunks


def draw_topics(sites: Params, corpus: Corpus) -> Tensor:
    """Draw every token's topic given the sites, (chain, t): given these, tokens are independent."""
    document, word = corpus.tokens
    least = torch.finfo(corpus.counts.dtype).tiny ** 0.49  # products of less take many times as long
    weights, words = sites["topic_weights"].clamp(min=least), sites["topic_words"].mT.clamp(min=least).contiguous()
    chains, _, num_topics = weights.shape
    topic = torch.empty(chains, len(document), dtype=torch.int32, device=corpus.device)
    for part in chunks(len(document), chains * num_topics):
        joint = weights.index_select(1, document[part]) * words.index_select(1, word[part])
        cumulative = joint.cumsum(-1)
        uniform = torch.rand_like(cumulative[..., :1]) * cumulative[..., -1:]
        topic[:, part] = (uniform > cumulative[..., :-1]).sum(-1)
    return topic


def count_topics(topic: Tensor, corpus: Corpus, num_topics: int) -> Params:
    """Return topics of tokens, (chain, t), as ``z``, with their tables by document and by word."""
    document, word = corpus.tokens
    chains, one = len(topic), torch.ones((), dtype=torch.int32, device=corpus.device).expand_as(topic)
    document_topics = one.new_zeros(chains, corpus.num_rows * num_topics)
    topic_words = one.new_zeros(chains, num_topics * corpus.num_features)
    document_topics.scatter_add_(1, document * num_topics + topic, one)
    topic_words.scatter_add_(1, topic * corpus.num_features + word, one)
    return {
        "z": topic,
        "document_topics": document_topics.unflatten(1, (-1, num_topics)),
        "topic_word_counts": topic_words.unflatten(1, (num_topics, -1)),
    }
