"""Latent Dirichlet allocation against enumeration of assignments, closed forms, scikit-learn and the lda package."""

import math
from dataclasses import replace
from functools import partial
from itertools import permutations, product

import lda as lda_package
import numpy as np
import pyro
import pytest
import scipy.sparse
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from scipy import stats
from scipy.special import digamma, gammaln, softmax
from sklearn.decomposition import LatentDirichletAllocation
from torch.distributions import Dirichlet
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import one_hot
from zoo.topics import EVIDENCE, FLAT, PAIRS, TINY, Sites, pair_probability, sites_of

from guidebook.datasets import bundled as corpora
from guidebook.guides import lda as guides
from guidebook.inference import cavi, evidence, gibbs, nuts, svi
from guidebook.inference.diagnostics import ess
from guidebook.inference.traces.init import InitMessenger
from guidebook.models import lda
from guidebook.models.lda.inputs import read
from guidebook.models.lda.responsibilities import document_topics, row_scaled_exp, token_responsibilities
from guidebook.models.lda.seeds import seeded_topics


@pytest.fixture(scope="module")
def corpus() -> tuple[torch.Tensor, Sites]:
    return lda.simulate(40, num_topics=3, num_features=12, mean_total=15.0, alpha=0.3, eta=0.6, seed=1)


def at(sites: Sites, *index: int) -> Sites:
    return {name: value[index] for name, value in sites.items()}


def by_hand(sites: Sites, x: torch.Tensor) -> np.ndarray:
    """log p(document | sites), one token after the other."""
    words, weights = sites["topic_words"].numpy(), sites["topic_weights"].numpy()
    found = np.zeros(len(x))
    for n, v in product(range(x.shape[0]), range(x.shape[1])):
        for _ in range(int(x[n, v])):
            found[n] += math.log(sum(weights[n, k] * words[k, v] for k in range(len(words))))
    return found


def prior_by_hand(sites: Sites, alpha: float, eta: float) -> float:
    rows = [(row, alpha) for row in sites["topic_weights"].numpy()] + [(r, eta) for r in sites["topic_words"].numpy()]
    return sum(stats.dirichlet.logpdf(row / row.sum(), np.full(len(row), c)) for row, c in rows)


def log_density(model, x: torch.Tensor, sites: Sites) -> torch.Tensor:
    return poutine.trace(poutine.condition(model, sites)).get_trace(x).log_prob_sum()


def bound_model(topics: int = 3, alpha: float = 0.3, eta: float = 0.2):
    return partial(lda.model, num_topics=topics, alpha=alpha, eta=eta)


# Exact answers


def test_enumeration_gives_the_known_evidence_and_pairs() -> None:
    """The evidence, and whether two tokens share a topic, from log p(w, z) of all 2048 assignments."""
    assert float(lda.log_evidence(TINY, **FLAT)) == pytest.approx(EVIDENCE, abs=1e-11)
    document, word = read(TINY).tokens
    z = torch.cartesian_prod(*[torch.arange(2)] * 11)
    member = one_hot(z).double()
    document_topics = torch.einsum("atk,tn->ank", member, one_hot(document).double())
    topic_words = torch.einsum("atk,tv->akv", member, one_hot(word).double())
    joint = lda.log_joint_collapsed(document_topics, topic_words, alpha=0.7, eta=0.4)
    assert float(lda.log_evidence(TINY, 2, alpha=0.7, eta=0.4)) == pytest.approx(float(joint.logsumexp(0)), abs=1e-11)
    posterior = lda.log_joint_collapsed(document_topics, topic_words, alpha=1.0, eta=1.0).softmax(0)
    for (s, t), known in PAIRS.items():
        assert float(posterior @ (z[:, s] == z[:, t]).double()) == pytest.approx(known, abs=1e-6)


def test_enumeration_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidebook.models.lda.exact._MOST_ASSIGNMENTS", 2**11)
    lda.log_evidence(TINY, **FLAT)
    monkeypatch.setattr("guidebook.models.lda.exact._MOST_ASSIGNMENTS", 2**11 - 1)
    with pytest.raises(ValueError, match="2 topics and 11 tokens have 2\\^11 assignments, more than 2047"):
        lda.log_evidence(TINY, **FLAT)


def test_one_topic_leaves_a_dirichlet_multinomial() -> None:
    x, eta = torch.tensor([[3.0, 0.0, 2.0], [1.0, 1.0, 4.0]], dtype=torch.float64), 0.4
    counts = x.sum(0).numpy()
    known = gammaln(3 * eta) - gammaln(3 * eta + counts.sum()) + (gammaln(eta + counts) - gammaln(eta)).sum()
    assert float(lda.log_evidence(x, 1, alpha=0.7, eta=eta)) == pytest.approx(known, rel=1e-13)
    found = cavi(lda.cavi_steps(1, 0.7, eta), x, num_restarts=1, num_draws=1)
    assert found.info.elbo == pytest.approx(known, rel=1e-13)


def test_the_collapsed_joint_is_an_urn_drawn_from_token_by_token(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, _ = corpus
    alpha, eta = 0.3, 0.2
    rng = np.random.default_rng(0)
    of_documents, of_words, known = np.zeros((40, 3)), np.zeros((3, 12)), 0.0
    document, word = (index.tolist() for index in read(x).tokens)
    for n, v in zip(document, word, strict=True):
        k = rng.integers(3)
        known += math.log((of_documents[n, k] + alpha) / (of_documents[n].sum() + 3 * alpha))
        known += math.log((of_words[k, v] + eta) / (of_words[k].sum() + 12 * eta))
        of_documents[n, k] += 1
        of_words[k, v] += 1
    tables = torch.tensor(of_documents), torch.tensor(of_words)
    found = lda.log_joint_collapsed(*tables, alpha=alpha, eta=eta)
    assert float(found) == pytest.approx(known, rel=1e-12)
    twice = lda.log_joint_collapsed(*(torch.stack([t, 0 * t]) for t in tables), alpha=alpha, eta=eta)
    assert twice[0] == found
    assert twice[1] == pytest.approx(0, abs=1e-10)


def test_the_collapsed_joint_is_the_lda_packages(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, _ = corpus
    theirs = lda_package.LDA(3, n_iter=5, alpha=0.3, eta=0.2, random_state=0, refresh=5).fit(x.long().numpy())
    tables = torch.tensor(theirs.ndz_).double(), torch.tensor(theirs.nzw_).double()
    assert float(lda.log_joint_collapsed(*tables, alpha=0.3, eta=0.2)) == pytest.approx(theirs.loglikelihood())


# Reading


def test_entries_are_read_block_by_block_as_they_stand() -> None:
    """More entries than one block holds: all are found, and a wrong one is named by its place."""
    x = torch.randint(0, 3, (150, 60), generator=torch.Generator().manual_seed(0)).double()
    found = read(x)
    for ours, known in zip((found.document, found.word, found.counts), (*x.nonzero().mT, x[x != 0]), strict=True):
        torch.testing.assert_close(ours.to(known), known, rtol=0, atol=0)
    for wrong in (0.5, -1.0, math.nan, math.inf):
        bad = x.clone()
        bad[149, 58] = wrong
        with pytest.raises(ValueError, match=f"document 149, word 58 has {wrong:g}, but counts are whole"):
            read(bad)


def test_a_corpus_needs_words() -> None:
    for form in (torch.zeros(3, 0), torch.zeros(3, 0).to_sparse()):
        with pytest.raises(ValueError, match="the corpus has no words"):
            read(form)


def test_counts_changed_through_numpys_memory_are_read_again(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, truth = corpus
    array = x.numpy().copy()
    shared, sparse = torch.from_numpy(array), x.to_sparse()
    chains = {"num_draws": 3, "num_warmup": 2, "num_chains": 1, "progress": False}

    def answers(x: torch.Tensor) -> list[float]:
        elbo = cavi(lda.cavi_steps(3), x, num_steps=3, num_restarts=1, num_draws=1).info.elbo
        topics = gibbs(lda.gibbs_steps(3), x, **chains).draws["topic_words"]
        density = log_density(bound_model(), x, truth)
        return [elbo, float(topics[0, -1, 0, 0]), float(density), float(lda.log_likelihood(truth, x).sum())]

    assert answers(shared) == answers(x)
    array[:20] *= 2
    sparse.values().mul_(3)
    for changed, known in ((shared, torch.tensor(array)), (sparse, 3 * x)):
        now, before = answers(changed), answers(x)
        assert now == pytest.approx(answers(known.clone()), rel=1e-12)
        assert all(one != other for one, other in zip(now, before, strict=True))


def test_steps_take_prepared_data_and_raw_alike(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, _ = corpus
    results = []
    for data in ((x,), lda.cavi_steps(3).prepare(x)):
        torch.manual_seed(0)
        steps, sampler = lda.cavi_steps(3), lda.gibbs_steps(3)
        expectations = steps.e_step(steps.init(0, *data), *data)
        state = sampler.init(2, *data)
        for conditional in sampler.conditionals:
            state |= conditional(state, *data)
        results.append(steps.m_step(expectations, *data) | state)
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


# Densities


def test_density_is_the_products_by_hand(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, truth = corpus
    known = by_hand(truth, x)
    np.testing.assert_allclose(lda.log_likelihood(truth, x).numpy(), known, rtol=1e-12)
    sites = sites_of(40, 3, 12)
    total = by_hand(sites, x).sum() + prior_by_hand(sites, 0.3, 0.2)
    assert float(log_density(bound_model(), x, sites)) == pytest.approx(total, rel=1e-12)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_any_form_of_the_counts_gives_the_same_density(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, truth = corpus
    known = lda.log_likelihood(truth, x)
    forms = [x.long(), x.to_sparse(), x.to_sparse_csr(), x.numpy(), x.int().numpy()]
    forms += [form(x.long().numpy()) for form in (scipy.sparse.csr_matrix, scipy.sparse.coo_array)]
    for form in forms:
        torch.testing.assert_close(lda.log_likelihood(truth, form), known, rtol=0, atol=1e-12)
    for form in (x.long(), x.to_sparse(), lda.as_counts(scipy.sparse.csr_matrix(x.numpy()))):
        torch.testing.assert_close(log_density(bound_model(), form, truth), log_density(bound_model(), x, truth))
        start = cavi(lda.cavi_steps(3), form, num_steps=2, num_restarts=1, num_draws=1).info.elbo
        assert start == pytest.approx(cavi(lda.cavi_steps(3), x, num_steps=2, num_restarts=1, num_draws=1).info.elbo)


def test_work_in_chunks_gives_the_same_numbers(
    corpus: tuple[torch.Tensor, Sites], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, truth = corpus
    steps = lda.cavi_steps(3, 0.3, 0.2)
    params = {
        "topic_words.concentration": 1 + truth["topic_words"],
        "topic_weights.concentration": 1 + truth["topic_weights"],
    }
    whole = lda.log_likelihood(truth, x), *steps.e_step(params, x)
    monkeypatch.setattr("guidebook.models.lda.corpus._ELEMENTS", 30)
    for part, value in zip((lda.log_likelihood(truth, x), *steps.e_step(params, x)), whole, strict=True):
        torch.testing.assert_close(part, value, rtol=1e-12, atol=1e-12)


def test_density_does_not_depend_on_the_order_of_topics_documents_or_words(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, truth = corpus
    base = float(log_density(bound_model(), x, truth))
    for order in permutations(range(3)):
        swapped = {"topic_words": truth["topic_words"][list(order)], "topic_weights": truth["topic_weights"][:, order]}
        assert float(log_density(bound_model(), x, swapped)) == pytest.approx(base, rel=1e-12)
    turned = {"topic_words": truth["topic_words"].flip(1), "topic_weights": truth["topic_weights"].flip(0)}
    assert float(log_density(bound_model(), x.flip(0, 1), turned)) == pytest.approx(base, rel=1e-12)


@pytest.mark.parametrize("latent", [False, True])
def test_a_dimension_on_the_left_gives_each_draw_its_own_density(
    corpus: tuple[torch.Tensor, Sites], latent: bool
) -> None:
    x, _ = corpus
    model = partial(lda.latent_model if latent else lda.model, num_topics=3)
    draws = sites_of(40, 3, 12, 5)
    if latent:
        draws["z"] = torch.randint(3, (5, int(x.sum())))
    batch = draws | {"topic_words": draws["topic_words"].unsqueeze(1)}
    with pyro.plate("draws", 5, dim=-2):
        trace = poutine.trace(poutine.condition(model, batch)).get_trace(x)
    trace.compute_log_prob()
    names = [*draws, "w" if latent else "x"]
    together = sum(trace.nodes[name]["log_prob"].reshape(5, -1).sum(1) for name in names)
    torch.testing.assert_close(together, torch.stack([log_density(model, x, at(draws, d)) for d in range(5)]))
    if not latent:
        nested = {name: value[:4].unflatten(0, (2, 2)) for name, value in draws.items()}
        torch.testing.assert_close(
            lda.log_likelihood(nested, x).flatten(0, 1), lda.log_likelihood(at(draws, slice(4)), x)
        )
        one = torch.vmap(lambda sites: log_density(model, x, sites))
        with pyro.validation_enabled(False):
            torch.testing.assert_close(one(draws), together)


def test_the_potential_can_be_traced_with_counts_inside_or_as_an_argument(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, truth = corpus
    other, fresh = sites_of(40, 3, 12), x.clone()
    with pyro.validation_enabled(False):
        inside = make_fx(lambda sites: log_density(bound_model(), fresh, sites))(truth)
        argument = make_fx(lambda sites, rows: log_density(bound_model(), rows, sites))(truth, x)
        known = float(log_density(bound_model(), x, other))
        assert float(inside(other)) == pytest.approx(known, rel=1e-12)
        flipped = float(log_density(bound_model(), x.flip(0), other))
        assert float(argument(other, x.flip(0))) == pytest.approx(flipped, rel=1e-12)
    assert abs(known - flipped) > 1


def test_gradient_is_that_of_finite_differences(corpus: tuple[torch.Tensor, Sites]) -> None:
    x = corpus[0][:6]
    sites = sites_of(6, 3, 12)

    def density(words: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return lda.log_likelihood({"topic_words": words, "topic_weights": weights}, x).sum()

    assert torch.autograd.gradcheck(density, [value.requires_grad_() for value in sites.values()])


def test_single_precision_gives_the_same_density(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, truth = corpus
    sites = sites_of(40, 3, 12)
    density = log_density(bound_model(), x.float(), {name: value.float() for name, value in sites.items()})
    assert density.dtype == torch.float32
    assert float(density) == pytest.approx(float(log_density(bound_model(), x, sites)), rel=1e-5)
    assert lda.log_likelihood({name: value.float() for name, value in truth.items()}, x).dtype == torch.float32


def test_topics_of_tokens_summed_out_give_the_model() -> None:
    sites = sites_of(3, 2, 3)
    latent = partial(lda.latent_model, num_topics=2, alpha=0.7, eta=0.4)
    enumerating = config_enumerate(poutine.condition(latent, sites))
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(enumerating, lambda x: None, TINY)
    known = by_hand(sites, TINY).sum() + prior_by_hand(sites, 0.7, 0.4)
    assert -loss == pytest.approx(known, rel=1e-12)


# Simulation


def test_draws_have_the_probabilities_of_a_multinomial() -> None:
    sites = sites_of(2, 2, 3)
    totals = torch.tensor([3.0, 0.0])
    torch.manual_seed(0)
    draws = lda.BagOfWords(sites["topic_weights"], sites["topic_words"], totals).sample((40_000,))
    assert draws.shape == (40_000, 2, 3)
    assert not draws[:, 1].any()
    probs = (sites["topic_weights"][0] @ sites["topic_words"]).numpy()
    for outcome in (o for o in product(range(4), repeat=3) if sum(o) == 3):
        mass = stats.multinomial.pmf(outcome, 3, probs)
        seen = (draws[:, 0] == torch.tensor(outcome).double()).all(1).double().mean()
        assert float(seen) == pytest.approx(mass, abs=4.5 * (mass * (1 - mass) / len(draws)) ** 0.5)


@pytest.mark.parametrize("latent", [False, True])
def test_the_models_draw_words_of_their_topics(latent: bool) -> None:
    """Given the sites, the mean count of a word is the total times its probability."""
    sites = sites_of(2, 2, 4)
    model = partial(lda.latent_model if latent else lda.model, num_topics=2, num_rows=2, num_features=4)
    totals = torch.tensor([30_000, 10])
    torch.manual_seed(0)
    x = poutine.condition(model, sites)(totals=totals)
    assert x.sum(1).tolist() == totals.tolist()
    p = sites["topic_weights"][0] @ sites["topic_words"]
    assert ((x[0] - 30_000 * p).abs() < 4.5 * (30_000 * p * (1 - p)).sqrt()).all()


def test_predictions_have_the_datas_lengths_and_the_sites_frequencies(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, truth = corpus
    many = {name: value.expand(2, 200, *value.shape) for name, value in truth.items()}
    drawn = lda.posterior_predictive(many, x, seed=1)
    assert drawn.shape == (2, 200, 40, 12)
    assert (drawn.sum(-1) == x.sum(-1)).all()
    p, tokens = (truth["topic_weights"] @ truth["topic_words"]).numpy(), 400 * x.sum(-1, keepdim=True).numpy()
    total = drawn.sum((0, 1)).numpy()
    tail = np.minimum(stats.binom.cdf(total, tokens, p), stats.binom.sf(total - 1, tokens, p))
    assert tail.min() > 1e-7  # of 480 cells
    assert torch.equal(drawn, lda.posterior_predictive(many, x, seed=1))
    assert not torch.equal(drawn, lda.posterior_predictive(many, x, seed=2))


def test_simulated_corpora_follow_their_options() -> None:
    """The mean length of documents, and E Σ p² = (c + 1) / (d c + 1) for p ~ Dirichlet(c, …, c) of d entries."""
    options = {"num_topics": 40, "num_features": 30, "mean_total": 25.0, "alpha": 0.4, "eta": 0.2}
    x, truth = lda.simulate(3000, **options, seed=1)
    assert x.shape == (3000, 30)
    assert x.sum(1).min() >= 1
    assert abs(x.sum(1).mean() - 25) < 4.5 * (24 / 3000) ** 0.5
    for name, size, c in (("topic_weights", 40, 0.4), ("topic_words", 30, 0.2)):
        square = truth[name].square().sum(1)
        assert abs(square.mean() - (c + 1) / (size * c + 1)) < 4.5 * square.std() / len(square) ** 0.5
    p = truth["topic_weights"] @ truth["topic_words"]
    score = ((x - x.sum(1, keepdim=True) * p) * p).sum(1)  # of mean zero: the words are those of the topics
    assert abs(score.mean()) < 4.5 * score.std() / 3000**0.5
    assert torch.equal(x, lda.simulate(3000, **options, seed=1)[0])
    assert not torch.equal(x, lda.simulate(3000, **options, seed=2)[0])
    assert (lda.simulate(50, mean_total=1.0)[0].sum(1) == 1).all()
    with pytest.raises(ValueError, match="mean_total >= 1"):
        lda.simulate(50, mean_total=0.99)


# Coordinate ascent


def elbo_by_hand(
    words: np.ndarray, weights: np.ndarray, r: np.ndarray, tokens: tuple, alpha: float, eta: float
) -> float:
    """Expected log joint and entropies, a term at a time: concentrations (k, v) and (n, k), q(z) (t, k)."""

    def expected_log(c: np.ndarray) -> np.ndarray:
        return digamma(c) - digamma(c.sum(-1, keepdims=True))

    def log_beta(c: np.ndarray) -> np.ndarray:
        return gammaln(c).sum(-1) - gammaln(c.sum(-1))

    document, word = tokens
    value = (r * (expected_log(weights)[document] + expected_log(words).T[word])).sum() - (r * np.log(r)).sum()
    for c, prior in ((weights, alpha), (words, eta)):
        value += (
            ((prior - c) * expected_log(c)).sum() + log_beta(c).sum() - len(c) * log_beta(np.full(c.shape[1], prior))
        )
    return value


def test_coordinate_ascent_is_blei_ng_and_jordans_and_never_falls() -> None:
    """Every update of every factor, written out by hand, raises the bound written out by hand."""
    alpha, eta = 0.4, 0.3
    tokens = tuple(index.numpy() for index in read(TINY).tokens)
    document, word = tokens
    steps = lda.cavi_steps(2, alpha, eta)
    torch.manual_seed(0)
    params = steps.init(0, TINY)
    words, weights = (params[f"{name}.concentration"].numpy() for name in ("topic_words", "topic_weights"))
    bounds = []
    for _ in range(15):
        for _ in range(2):
            scores = digamma(weights)[document] - digamma(weights.sum(1))[document, None]
            scores = scores + (digamma(words) - digamma(words.sum(1, keepdims=True))).T[word]
            r = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            bounds.append(elbo_by_hand(words, weights, r, tokens, alpha, eta))
            weights = alpha + np.stack([r[document == n].sum(0) for n in range(3)])
            bounds.append(elbo_by_hand(words, weights, r, tokens, alpha, eta))
        expectations = steps.e_step(params, TINY)
        assert float(steps.objective(params, expectations)) == pytest.approx(bounds[-1], rel=1e-12)
        params = steps.m_step(expectations, TINY)
        words = eta + np.stack([r[word == v].sum(0) for v in range(3)], 1)
        bounds.append(elbo_by_hand(words, weights, r, tokens, alpha, eta))
        assert float(steps.objective(params, expectations)) == pytest.approx(bounds[-1], rel=1e-12)
        np.testing.assert_allclose(params["topic_words.concentration"].numpy(), words, rtol=1e-12)
        np.testing.assert_allclose(params["topic_weights.concentration"].numpy(), weights, rtol=1e-12)
    assert np.diff(bounds[1:]).min() > -1e-12
    assert bounds[-1] < float(lda.log_evidence(TINY, 2, alpha=alpha, eta=eta))


def test_coordinate_ascent_finds_the_topics(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, truth = lda.simulate(300, num_topics=3, num_features=20, mean_total=80.0, eta=0.3, seed=2)
    found = cavi(lda.cavi_steps(3, 0.1, 0.3), x, num_restarts=3, num_draws=200)
    quantities = lda.identify(found.draws, {name: value[None, None] for name, value in truth.items()})
    for name, limit in (("topic_words", 0.01), ("topic_weights", 0.06)):
        assert (quantities[name].mean((0, 1)) - truth[name]).abs().mean() < limit


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_responsibilities_hold_however_far_apart_a_document_and_its_words_are(
    corpus: tuple[torch.Tensor, Sites], dtype: torch.dtype
) -> None:
    """By softmax over all cells; logarithms from -3 to -3000 apart, so that products of exponentials are all zero."""
    x, rng = corpus[0], np.random.default_rng(0)
    read_in = replace(read(x), counts=read(x).counts.to(dtype))
    for spread in (1.0, 1000.0):
        weights, words = -spread * rng.exponential(3.0, (2, len(x), 3)), -spread * rng.exponential(3.0, (x.shape[1], 3))
        r = softmax(weights[:, :, None] + words, axis=-1)
        ours = document_topics(torch.tensor(weights, dtype=dtype), torch.tensor(words, dtype=dtype), read_in)
        tokens = (x.numpy()[..., None] * r).sum(2)
        rounding = spread * (1e-12 if dtype == torch.float64 else 2e-4)
        np.testing.assert_allclose(ours.numpy(), tokens, atol=rounding)
    tables = row_scaled_exp(torch.tensor(weights[0])), row_scaled_exp(torch.tensor(words))
    q = token_responsibilities(*tables, read(x), torch.empty_like(read(x).counts))
    of_documents, of_words, entropy = q.expect()
    np.testing.assert_allclose(of_documents, tokens[0], atol=1e-9)
    np.testing.assert_allclose(of_words, (x.numpy()[..., None] * r[0]).sum(0), atol=1e-9)
    logs = np.log(r[0], out=np.zeros_like(r[0]), where=r[0] > 0)
    assert float(entropy) == pytest.approx(-(x.numpy()[..., None] * r[0] * logs).sum(), abs=1e-6)


def test_tiny_concentrations_stay_finite(corpus: tuple[torch.Tensor, Sites]) -> None:
    """E log p is about -1 / c: its exponential is zero in float64 long before the bound is at risk."""
    found = cavi(lda.cavi_steps(3, 1e-4, 1e-4), corpus[0], num_steps=30, num_restarts=1, num_draws=1)
    assert math.isfinite(found.info.elbo)


# NUTS and evidence


def test_nuts_has_the_exact_pair_probabilities() -> None:
    found = nuts(partial(lda.model, **FLAT), TINY, num_draws=800, num_warmup=200, num_chains=1, progress=False)
    for pair, known in PAIRS.items():
        values = pair_probability(found.draws, *pair)
        assert abs(values.mean() - known) < 4.5 * values.std() / ess(values) ** 0.5


@pytest.mark.slow
def test_annealing_in_both_directions_brackets_the_exact_evidence() -> None:
    """With few temperatures the two mean log weights are some eight standard errors from the evidence."""
    model = partial(lda.model, **FLAT)
    draws = gibbs(lda.gibbs_steps(**FLAT), TINY, num_draws=200, num_warmup=50, thin=2, progress=False)
    up = evidence(model, TINY, method="ais", num_draws=400, num_temperatures=12)
    down = evidence(model, TINY, method="reverse_ais", posterior=draws, num_draws=400, num_temperatures=12)
    assert up.diagnostics["mean_log_weight"] < EVIDENCE < down.diagnostics["mean_log_weight"]
    bridge = evidence(model, TINY, method="bridge", posterior=draws)
    for found in (up, down, bridge):
        assert abs(found.estimate - EVIDENCE) < 5 * found.error < 0.6


# Guides


@pytest.mark.filterwarnings("ignore:svi")
def test_the_dirichlet_guides_bound_lies_between_coordinate_ascents_and_the_evidence() -> None:
    """It has the same Dirichlets and no q(z), which the model has summed out."""
    below = cavi(lda.cavi_steps(**FLAT), TINY, num_draws=1).info.elbo
    model, guide = partial(lda.model, **FLAT), partial(guides.mean_field, **FLAT)
    found = svi(model, guide, TINY, num_steps=800, lr=0.03, loss="mean_field", num_draws=4000, progress=False)
    assert found.info.elbo is not None
    assert below + 4 * found.info.elbo_se < found.info.elbo < EVIDENCE - 4 * found.info.elbo_se
    assert {name: tuple(value.shape) for name, value in found.draws.items()} == {
        "topic_words": (1, 4000, 2, 3),
        "topic_weights": (1, 4000, 3, 2),
    }


@pytest.mark.filterwarnings("ignore:svi")
def test_the_encoder_fits_in_minibatches_and_stays_below_the_evidence(corpus: tuple[torch.Tensor, Sites]) -> None:
    model, guide = partial(lda.model, **FLAT), partial(guides.encoder, **FLAT)
    found = svi(model, guide, TINY, num_steps=500, lr=0.01, num_draws=2000, progress=False)
    assert found.info.elbo is not None
    assert EVIDENCE - 1.5 < found.info.elbo < EVIDENCE + 4 * found.info.elbo_se
    x, _ = corpus
    batched = svi(bound_model(), partial(guides.encoder, num_topics=3), x, num_steps=150, batch_size=10, progress=False)
    assert batched.info.losses[-30:].mean() < batched.info.losses[:30].mean()
    assert batched.draws["topic_weights"].shape[2:] == (40, 3)


@pytest.mark.parametrize("seed", range(10))
def test_fits_start_from_unlike_documents(seed: int) -> None:
    """Documents of four vocabularies that share no word: each topic starts with one of them."""
    x = torch.zeros(40, 12, dtype=torch.float64)
    for n in range(39):  # the last document is empty
        x[n, 3 * (n % 4) : 3 * (n % 4) + 3] = (1 + n % 3) * torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    torch.manual_seed(seed)
    topics = seeded_topics(read(x), 4).reshape(4, 4, 3).sum(-1)
    assert sorted(topics.argmax(1).tolist()) == [0, 1, 2, 3]
    assert (topics.max(1).values / topics.sum(1) > 0.4).all()  # its own tokens, and a quarter of all


def test_an_overview_does_not_depend_on_the_order_of_topics() -> None:
    one = sites_of(6, 3, 8)
    orders = [torch.randperm(3, generator=torch.Generator().manual_seed(seed)) for seed in range(10)]
    draws = {
        "topic_words": torch.stack([one["topic_words"][order] for order in orders])[None],
        "topic_weights": torch.stack([one["topic_weights"][:, order] for order in orders])[None],
    }
    words = torch.tensor([7, 0, 3])
    found = lda.overview(draws, words=words)
    among = one["topic_words"][:, words]
    among = among / among.sum(1, keepdim=True)
    assert (among < 1 / 3).any()
    among = torch.where(among < 1 / 3, 0.0, among)  # a topic's rare words are left out
    order = found["share"][0, 0].argsort()
    expected = one["topic_weights"].mean(0)
    torch.testing.assert_close(found["share"][0, :, order], expected.sort().values.expand(10, 3))
    torch.testing.assert_close(found["topic_words"][0, :, order], among[expected.argsort()].expand(10, 3, 3))
    again = lda.overview({name: value[:, :1] for name, value in draws.items()}, found, words=words)
    torch.testing.assert_close(again["share"], found["share"][:, :1])
    assert "share" not in lda.overview({"topic_words": draws["topic_words"]}, found, words=words)


@pytest.mark.parametrize("guide", [guides.mean_field, guides.encoder])
def test_guides_take_a_dimension_on_the_left(corpus: tuple[torch.Tensor, Sites], guide) -> None:
    """Many particles at once have the bound of one after the other."""
    x = corpus[0][:5]
    bound = partial(guide, num_topics=3, alpha=0.3, eta=0.2)
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        together, apart = (
            torch.tensor(
                [
                    Trace_ELBO(n, vectorize_particles=v, max_plate_nesting=1).loss(bound_model(), bound, x)
                    for _ in range(repeats)
                ]
            )
            for n, v, repeats in ((20, True, 20), (1, False, 200))
        )
    error = (together.var() / len(together) + apart.var() / len(apart)).sqrt()
    assert abs(together.mean() - apart.mean()) < 5 * error


def test_the_logistic_normals_jacobian_is_autograds() -> None:
    transform = guides.AdditiveLogRatio()
    x = torch.randn(4, 3, dtype=torch.float64)
    y = transform(x)
    torch.testing.assert_close(y.sum(-1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(transform.inv(y), x)
    for row, density in zip(x, transform.log_abs_det_jacobian(x, y), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda value: transform(value)[:-1], row)
        assert float(torch.linalg.slogdet(jacobian).logabsdet) == pytest.approx(float(density), rel=1e-12)


@pytest.mark.parametrize("model", [lda.model, lda.latent_model])
def test_fits_start_where_coordinate_ascent_does(corpus: tuple[torch.Tensor, Sites], model) -> None:
    """Both sites at the means of one start, which explains the corpus better than the topics it was drawn from."""
    x, truth = corpus
    torch.manual_seed(0)
    params = lda.cavi_steps(3, 0.3, 0.2).init(0, x)
    torch.manual_seed(0)
    trace = poutine.trace(InitMessenger()(partial(model, num_topics=3, alpha=0.3, eta=0.2))).get_trace(x)
    sites = {name: trace.nodes[name]["value"] for name in truth}
    for name, value in sites.items():
        concentration = params[f"{name}.concentration"]
        torch.testing.assert_close(value, concentration / concentration.sum(-1, keepdim=True), rtol=0, atol=1e-12)
    assert lda.log_likelihood(sites, x).sum() > lda.log_likelihood(truth, x).sum() + 10


def test_guides_start_where_coordinate_ascent_does(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, _ = corpus
    options = {"num_topics": 3, "alpha": 0.3, "eta": 0.2}
    torch.manual_seed(0)
    known = lda.cavi_steps(**options).init(0, x)
    for guide, names in (
        (partial(guides.mean_field, **options), list(known)),
        (partial(guides.encoder, **options, hidden_dim=7), ["topic_words.concentration"]),
    ):
        with pyro.get_param_store().scope():
            torch.manual_seed(0)
            guide(x)
            for name in names:
                torch.testing.assert_close(pyro.param(name).detach(), known[name])
            if "topic_weights.concentration" not in names:
                assert pyro.param("encoder.hidden.weight").shape == (7, 12)


# Labels


def test_permuted_draws_are_put_in_one_order(corpus: tuple[torch.Tensor, Sites]) -> None:
    _, truth = corpus
    torch.manual_seed(0)
    draws = {name: Dirichlet(300 * value + 0.1).sample((2, 50)) for name, value in truth.items()}
    anchor = {name: value[None, None] for name, value in truth.items()}
    known = lda.identify(draws, anchor)
    for name, value in draws.items():
        torch.testing.assert_close(known[name], value)
    order = torch.rand(2, 50, 3).argsort(-1)
    mixed = {
        "topic_words": draws["topic_words"].gather(2, order[..., None].expand(2, 50, 3, 12)),
        "topic_weights": draws["topic_weights"].gather(3, order[:, :, None].expand(2, 50, 40, 3)),
    }
    for name, value in lda.identify(mixed, anchor).items():
        torch.testing.assert_close(value, draws[name])
    alone = lda.identify({"topic_words": mixed["topic_words"]})
    assert list(alone) == ["topic_words"]
    assert alone["topic_words"].std((0, 1)).mean() < mixed["topic_words"].std((0, 1)).mean() / 2


def test_topics_are_their_most_probable_words() -> None:
    words = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4]], dtype=torch.float64)
    assert lda.topics({"topic_words": words}, ["a", "b", "c"], 2) == [["b", "c"], ["a", "c"]]
    draws = torch.stack([words, words.flip(0), words])[None]
    assert sorted(lda.topics({"topic_words": draws}, ["a", "b", "c"])) == [["a", "c", "b"], ["b", "c", "a"]]


# Held-out documents


def test_topic_weights_are_scikit_learns(corpus: tuple[torch.Tensor, Sites]) -> None:
    """Its E-step has exp E log topics where ours has topics: give ours those."""
    x, _ = corpus
    theirs = LatentDirichletAllocation(
        3,
        doc_topic_prior=0.3,
        topic_word_prior=0.2,
        random_state=0,
        max_iter=5,
        max_doc_update_iter=2000,
        mean_change_tol=1e-12,
    ).fit(x.numpy())
    ours = lda.transform(
        {"topic_words": torch.tensor(theirs.exp_dirichlet_component_)}, x, alpha=0.3, num_steps=2000, tol=0.0
    )
    np.testing.assert_allclose(ours.numpy(), theirs.transform(x.numpy()), atol=1e-7)
    topics = theirs.components_ / theirs.components_.sum(1, keepdims=True)
    theirs.exp_dirichlet_component_ = topics
    first, second = (part.to_dense().numpy() for part in lda.split_tokens(x, seed=2))
    known = math.exp(-(second * np.log(theirs.transform(first) @ topics)).sum() / second.sum())
    assert lda.perplexity(torch.tensor(topics), x, alpha=0.3, seed=2) == pytest.approx(known, rel=1e-5)


def test_topic_weights_after_one_update_are_the_formulas(corpus: tuple[torch.Tensor, Sites]) -> None:
    """From uniform q(z): r_vk ∝ topic_words_kv, and the mean of Dirichlet(alpha + Σ_v x_v r_v)."""
    x, truth = corpus
    r = truth["topic_words"].mT / truth["topic_words"].sum(0)[:, None]
    concentration = 0.3 + x @ r
    known = concentration / concentration.sum(1, keepdim=True)
    first = lda.transform(truth, x, alpha=0.3, num_steps=1)
    torch.testing.assert_close(first, known)
    assert torch.equal(lda.transform(truth, x, alpha=0.3, tol=1.0), first)  # no change is larger
    assert (lda.transform(truth, x, alpha=0.3, num_steps=2, tol=1e-9) - first).abs().max() > 1e-3


def test_topic_weights_take_any_dimensions_on_the_left(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, _ = corpus
    sites = {"topic_words": sites_of(40, 3, 12, 2, 4)["topic_words"]}
    together = lda.transform(sites, x, alpha=0.3, tol=1e-10)
    assert together.shape == (2, 4, 40, 3)
    torch.testing.assert_close(
        together[1, 2], lda.transform(at(sites, 1, 2), x, alpha=0.3, tol=1e-10), rtol=0, atol=1e-7
    )
    empty = lda.transform(at(sites, 0, 0), 0 * x, alpha=0.3)
    torch.testing.assert_close(empty, torch.full((40, 3), 1 / 3, dtype=torch.float64))


def test_a_split_keeps_every_token_and_halves_every_document(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, _ = corpus
    first, second = (part.to_dense() for part in lda.split_tokens(x, observed=0.5, seed=3))
    assert torch.equal(first + second, x)
    assert torch.equal(first.sum(1), (x.sum(1) / 2).floor())
    again, other = (lda.split_tokens(x, seed=seed)[0].to_dense() for seed in (3, 4))
    assert torch.equal(again, first)
    assert not torch.equal(other, first)
    drawn = torch.stack([lda.split_tokens(TINY, observed=0.75, seed=seed)[0].to_dense()[0] for seed in range(400)])
    expected = TINY[0] * 0.75  # three of its four tokens, each as likely as the other
    assert ((drawn.mean(0) - expected).abs() < 4.5 * drawn.std(0) / 20).all()


def test_perplexity_is_the_definition_and_averages_over_draws(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, _ = corpus
    draws = sites_of(40, 3, 12, 2)["topic_words"]
    for observed in (0.5, 0.8):
        first, second = (part.to_dense() for part in lda.split_tokens(x, seed=5, observed=observed))
        p = torch.stack([lda.transform({"topic_words": words}, first, alpha=0.3) @ words for words in draws]).mean(0)
        known = math.exp(-float((second * p.log()).sum() / second.sum()))
        for forms in (draws, draws[None]):
            found = lda.perplexity(forms, x, alpha=0.3, seed=5, observed=observed)
            assert found == pytest.approx(known, rel=1e-6)
    alone = torch.full((1, 12), 1 / 12, dtype=torch.float64)
    assert lda.perplexity(alone, x) == pytest.approx(12)
    one = torch.tensor([[0.5, 0.25, 0.25, 0.0]], dtype=torch.float64)
    assert lda.perplexity(one, torch.tensor([[2.0, 0, 0, 0]])) == pytest.approx(2)
    assert lda.perplexity(one, torch.tensor([[0.0, 0, 0, 4]])) == math.inf


def test_true_topics_have_the_lower_perplexity(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, truth = corpus
    words = truth["topic_words"] + 1e-3
    words = words / words.sum(-1, keepdim=True)
    torch.manual_seed(0)
    for _ in range(5):
        assert lda.perplexity(words, x, alpha=0.3) < lda.perplexity(words[:, torch.randperm(12)], x, alpha=0.3)


# Bad input, and what is worth a word


def test_bad_input_is_refused_with_a_sentence(corpus: tuple[torch.Tensor, Sites]) -> None:
    x, truth = corpus
    broken = x.clone()
    broken[4, 7] = 0.5
    words = truth["topic_words"]
    for call, sentence in (
        (lambda: lda.check_counts(broken), "lda: document 4, word 7 has 0.5"),
        (lambda: lda.check_counts(-x, list("abcdefghijkl")), "word '.' has -"),
        (lambda: lda.log_likelihood(truth, broken), "document 4"),
        (lambda: cavi(lda.cavi_steps(3), broken), "document 4"),
        (lambda: gibbs(lda.gibbs_steps(3), broken.to_sparse(), progress=False), "document 4"),
        (lambda: lda.as_counts([[1, 2]]), "got list"),
        (lambda: lda.as_counts(x[0]), "of shape \\(12,\\)"),
        (lambda: lda.model(x, num_topics=0), "num_topics must be at least 1"),
        (lambda: lda.model(x, alpha=0.0), "alpha must be positive"),
        (lambda: cavi(lda.cavi_steps(3, eta=-1.0), x), "eta must be positive"),
        (lambda: lda.model(num_rows=3), "give num_rows=, num_features= and totals="),
        (lambda: lda.BagOfWords(truth["topic_weights"], words).sample(), "give their totals"),
        (lambda: lda.log_evidence(x, 2), "tiny corpora"),
        (lambda: lda.perplexity(1.00012 * words, x), "each must sum to one"),
        (lambda: lda.perplexity(words, x, observed=1.0), "no token is left"),
        (lambda: lda.split_tokens(x, observed=1.5), "between 0 and 1"),
        (lambda: lda.transform(truth, x[:, :5]), "over 12 words, the documents over 5"),
        (lambda: lda.topics(truth, ["a"]), "the vocabulary has 1"),
        (lambda: lda.split_tokens(x, observed=-0.01), "between 0 and 1"),
        (lambda: lda.simulate(0), "simulate needs"),
        (lambda: guides.encoder(x, num_topics=1), "take mean_field"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
    assert math.isfinite(lda.perplexity(1.00009 * words, x))
    with pyro.get_param_store().scope():
        guides.mean_field(x, num_topics=3)
        with pytest.raises(ValueError, match="parameters for 40 documents and was given 10"):
            guides.mean_field(x[:10], num_topics=3)


@pytest.mark.filterwarnings("ignore:gibbs.*not mixed")  # of a short run
def test_empty_documents_and_unused_words_work_and_are_said() -> None:
    x = torch.zeros(4, 5, dtype=torch.float64)
    x[:3, :3] = TINY
    with pytest.warns(UserWarning, match="1 of 4 documents are empty and 2 of 5 words are unused") as caught:
        found = cavi(lda.cavi_steps(2, 0.5, 0.5), x, num_restarts=1, num_draws=1)
    assert len(caught) == 1
    torch.testing.assert_close(
        found.params["topic_weights.concentration"][3], torch.full((2,), 0.5, dtype=torch.float64)
    )
    unused = found.params["topic_words.concentration"][:, 3:]
    torch.testing.assert_close(unused, torch.full_like(unused, 0.5))
    with pytest.warns(UserWarning, match="1 of 4 documents are empty"):
        gibbs(lda.gibbs_steps(2, 0.5, 0.5), x, num_draws=5, num_warmup=5, num_chains=1, progress=False)
    sites = sites_of(4, 2, 5)
    assert lda.log_likelihood(sites, x)[3] == 0
    assert (lda.log_likelihood(sites, 0 * x) == 0).all()


def test_reuters_is_the_corpus_of_the_lda_package() -> None:
    counts, vocabulary, titles = corpora.reuters()
    assert counts.shape == (395, 4258)
    assert counts.sum() == 84_010
    assert (counts.sum(0) > 0).all()
    assert vocabulary[:3] == ("church", "pope", "years")
    assert titles[1].startswith("1 GERMANY: Historic Dresden church")
    lda.check_counts(counts, vocabulary)
    assert len(vocabulary) == 4258
    assert len(titles) == 395
