"""Coordinate ascent on the ELBO with q(topic_words) q(topic_weights) q(z): Dirichlets, and a categorical per token.

Blei, Ng and Jordan (2003), sections 5.2 and 5.4, with a Dirichlet q over topics.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from .._shared.blocks import Blocks, places_among
from .._shared.scratch import table
from .._shared.steps import Params, Steps
from .corpus import Corpus, blocks
from .exact import log_dirichlet_ratio
from .in_blocks import CorpusInBlocks, check_same, documents_of
from .inputs import check_options, check_size, warn_of_gaps
from .responsibilities import (
    TokenResponsibilities,
    WordTotals,
    row_scaled_exp,
    row_scaled_exp_of,
    token_responsibilities,
)
from .seeds import joined_topics, seeded_topics

Documents = Tensor | Corpus | Blocks | CorpusInBlocks

MOST_STARTED_FROM, PER_TOPIC = 10_000, 100  # documents among which topics start; or so many per topic, if that is more

_INNER = 2  # alternating updates of q(z) and q(topic_weights) per update of q(topic_words)
_EARLY_SWEEPS, _EARLY_INNER = 10, 10  # before the first sweep: documents' weights start afresh each time
# A weight close to alpha hardly grows again, since E log of it is about -1 / alpha: documents that keep their weights
# while topics are still vague reach a worse bound (by 10,000 nats on Reuters, K = 20) and predict worse.


class Expectations(NamedTuple):
    """What the M-step and the bound need of q(z).

    Attributes
    ----------
    topic_words, topic_weights : Tensor, shapes (k, v) and (n, k)
        Optimal concentrations: eta or alpha, plus expected tokens.
    entropy : Tensor, scalar
        Of q(z), in nats.
    """

    topic_words: Tensor
    topic_weights: Tensor
    entropy: Tensor


def cavi_steps(num_topics: int = 20, alpha: float = 0.1, eta: float = 0.01) -> Steps:
    """Coordinate ascent for latent Dirichlet allocation, Hoffman, Blei and Bach (2010), equations 3 to 5.

    The E-step updates q(z) and q(topic_weights) in turn, and the M-step q(topic_words). The objective is the ELBO in
    nats, at the q(topic_weights) that is best for the given q(z).

    Parameters
    ----------
    num_topics, alpha, eta
        As for `model`.

    Returns
    -------
    Steps
        Parameters are those of q: ``topic_words.concentration`` (k, v) and ``topic_weights.concentration`` (n, k). They
        start at topics of unlike documents, after a few sweeps. Documents that are read in blocks keep their weights
        from one sweep to the next, in memory or in a file, so that sweeps are those of documents in memory; a fit of
        them returns the topics alone, from which `transform` infers the weights.
    """

    def init(restart: int, x: Documents) -> Params:
        corpus = documents_of(x)
        warn_of_gaps(corpus.gaps, corpus.num_rows, corpus.num_features)
        return start(corpus, num_topics, alpha, eta)

    def e_step(params: Params, x: Documents) -> Expectations:
        return expect(params, documents_of(x), alpha, eta, _INNER)

    def objective(params: Params, expectations: Expectations) -> Tensor:
        words, best = params["topic_words.concentration"].mT, expectations.topic_words.mT
        totals, weights = words.sum(0), expectations.topic_weights
        bound = expectations.entropy.clone()
        for rows in blocks(*weights.shape):
            bound += log_dirichlet_ratio(weights[rows] - alpha, alpha).sum()
        bound -= totals.lgamma().sum() + num_topics * (len(words) * math.lgamma(eta) - math.lgamma(len(words) * eta))
        for rows in blocks(*words.shape):
            bound += words[rows].lgamma().sum()
            surplus = best[rows] - words[rows]
            if surplus.any():  # not after the M-step
                bound += surplus.mul_(words[rows].digamma() - totals.digamma()).sum()
        return bound

    def draw(params: Params, num_draws: int) -> Params:
        return {
            name.removesuffix(".concentration"): Dirichlet(value, validate_args=False).sample(torch.Size([num_draws]))
            for name, value in params.items()
        }

    return Steps(
        init,
        e_step,
        maximise,
        objective,
        prepare=lambda x: (documents_of(x),),
        draw=draw,
        by_blocks=True,
        sparse=True,
        of_rows=("topic_weights.concentration",),
    )


def start(x: Documents, num_topics: int, alpha: float, eta: float, *, seeds: int = 1) -> Params:
    """Return the parameters of q to start from: unlike documents, after sweeps that forget the documents' weights.

    With several ``seeds`` per topic as many topics start from a document each; after some sweeps they are joined, like
    to like, and swept again. With 2 all of 20 topics in 5,000 documents of 64 tokens are found, where one leads to 14
    to 18 of them; it takes 2.4 times as long, and suits fits that start only once. Of more than 10,000 documents, or
    100 per topic, so many are drawn to begin with; all of them take part in the last sweep.
    """
    check_options(num_topics, alpha, eta)
    corpus = documents_of(x)
    few = _some_of(corpus, max(MOST_STARTED_FROM, PER_TOPIC * num_topics))
    rows_held = max(few.num_rows, corpus.num_rows if isinstance(corpus, Corpus) else 0)
    check_size(num_topics, rows_held, corpus.num_features, copies=seeds)
    params = {"topic_words.concentration": seeded_topics(few, seeds * num_topics).add_(eta)}
    if seeds > 1:
        many = _early_sweeps(params, [few] * _EARLY_SWEEPS, alpha, eta)["topic_words.concentration"]
        params = {"topic_words.concentration": joined_topics(many - eta, num_topics).add_(eta)}
    return _early_sweeps(params, [*[few] * (_EARLY_SWEEPS - 1), corpus], alpha, eta)


def _some_of(corpus: Corpus | CorpusInBlocks, most: int) -> Corpus:
    """Return a corpus in memory, or so many of its documents, drawn at random, if it has more."""
    if corpus.num_rows > most:
        return corpus.chosen(places_among(corpus.num_rows, most, corpus.device).sort().values)
    return corpus if isinstance(corpus, Corpus) else corpus.chosen(torch.arange(corpus.num_rows))


def _early_sweeps(params: Params, corpora: Sequence[Corpus | CorpusInBlocks], alpha: float, eta: float) -> Params:
    """Sweep over one corpus after the other, whose documents' weights begin even; return the parameters of the last.

    ``params`` are overwritten, so that the topics before are not held.
    """
    for corpus in corpora:
        params.pop("topic_weights.concentration", None)
        params.update(maximise(expect(params, corpus, alpha, eta, _EARLY_INNER)))
    return params


def expect(
    params: Params, corpus: Corpus | CorpusInBlocks, alpha: float, eta: float, num_updates: int, tol: float = 0.0
) -> Expectations:
    """Update q(z) and q(topic_weights) in turn, ``num_updates`` times, or until they change by ``tol`` on average.

    Weights that are not among ``params`` begin even.
    """
    topics = params["topic_words.concentration"].mT
    total = topics.sum(0).digamma()
    weights = params.get("topic_weights.concentration")
    workspace = topics.new_empty(corpus.most_entries)  # made before the words, which outlast it
    words = row_scaled_exp_of(lambda rows: topics[rows].digamma().sub_(total), topics)

    def responsibilities(weights: Tensor | None, corpus: Corpus) -> TokenResponsibilities:
        scratch = workspace[: len(corpus.counts)]
        weights = corpus.counts.new_ones(corpus.num_rows, len(total)) if weights is None else weights

        def update(weights: Tensor) -> TokenResponsibilities:
            return token_responsibilities(row_scaled_exp(log_expectation(weights)), words, corpus, scratch)

        for _ in range(num_updates - 1):
            last, weights = weights, update(weights).document_topics().add_(alpha)
            if tol and float((weights - last).abs().mean()) < tol:
                break
        return update(weights)

    if isinstance(corpus, Corpus):
        document_topics, word_topics, entropy = responsibilities(weights, corpus).expect()
        return Expectations(word_topics.add_(eta).mT, document_topics.add_(alpha), entropy)
    found, totals = table(corpus.num_rows, len(total)), WordTotals(words)
    for rows, part in corpus.parts():
        before = None if weights is None else weights[rows]
        if before is not None:
            check_same(before.sum(-1) - alpha * len(total), part, rows.start)
        found[rows] = responsibilities(before, part).add_to(totals).add_(alpha)
    word_topics, entropy = totals.finish()
    return Expectations(word_topics.add_(eta).mT, found, entropy)


def maximise(expectations: Expectations, *data: Documents) -> Params:
    """Update q(topic_words), and take over q(topic_weights)."""
    topic_words, topic_weights, _ = expectations
    return {"topic_words.concentration": topic_words, "topic_weights.concentration": topic_weights}


def log_expectation(concentration: Tensor) -> Tensor:
    """Return E log p for p ~ Dirichlet(concentration), both (…, d)."""
    return concentration.digamma().sub_(concentration.sum(-1, keepdim=True).digamma())
