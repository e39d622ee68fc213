"""Gibbs sampling of topic models, collapsed and blocked, against enumeration and the formulas of its conditionals."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from zoo.topics import FLAT, PAIRS, TINY, Sites, pair_probability, sites_of

from guidebook.inference import gibbs
from guidebook.inference.diagnostics import ess
from guidebook.models import lda
from guidebook.models.lda import blocked, collapsed
from guidebook.models.lda.inputs import read


def test_gibbs_has_the_exact_pair_probabilities() -> None:
    found = gibbs(lda.gibbs_steps(**FLAT), TINY, num_draws=6000, num_warmup=100, num_chains=2, seed=0, progress=False)
    for pair, known in PAIRS.items():
        values = pair_probability(found.draws, *pair)
        error = float(values.std()) / math.sqrt(float(ess(values)))
        assert error < 0.01
        assert float(values.mean()) == pytest.approx(known, abs=4.5 * error)


@pytest.mark.parametrize("collapses", [True, False])
def test_tokens_share_a_topic_as_often_as_enumeration_says(collapses: bool) -> None:
    """Of 4,000 chains after 40 sweeps, which are independent of each other."""
    steps = lda.gibbs_steps(**FLAT, collapsed=collapses)
    state = steps.init(4000, TINY)
    for _ in range(40):
        state |= steps.conditionals[0](state, TINY)
    for (s, t), known in PAIRS.items():
        share = float((state["z"][:, s] == state["z"][:, t]).double().mean())
        assert share == pytest.approx(known, abs=4.5 * math.sqrt(known * (1 - known) / 4000))


def counts_of(z: np.ndarray, num_topics: int, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Tables (chain, n, k) and (chain, k, v) of assignments (chain, t)."""
    document, word = read(x).tokens
    of_documents = np.zeros((len(z), x.shape[0], num_topics), int)
    of_words = np.zeros((len(z), num_topics, x.shape[1]), int)
    for chain, topic in enumerate(z):
        np.add.at(of_documents[chain], (document, topic), 1)
        np.add.at(of_words[chain], (topic, word), 1)
    return of_documents, of_words


@pytest.mark.parametrize(
    ("num_topics", "alpha"),
    [(2, 0.3), (8, 0.3), (9, 0.3), (23, 0.3), (64, 0.3), (65, 0.3), (150, 0.3), (3, 1e-32), (66, 1e-32)],
)
def test_a_collapsed_sweep_draws_each_token_given_all_others(num_topics: int, alpha: float) -> None:
    """Against Griffiths and Steyvers' equation 5: how often a topic is drawn, kept, and how likely it was."""
    eta, chains = 0.2, 3000
    x = torch.tensor([[3.0, 0, 1, 2], [0, 0, 0, 0], [0, 2, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)
    document, word = (index.numpy() for index in read(x).tokens)
    steps = lda.gibbs_steps(num_topics, alpha, eta, collapsed=True)
    torch.manual_seed(0)
    before = torch.randint(num_topics, (chains, len(word)))
    drawn = steps.conditionals[0]({"z": before}, x)
    z, after = before.numpy().copy(), drawn["z"].numpy()
    every = np.arange(chains)
    of_documents, of_words = counts_of(z, num_topics, x)
    excess, variance = np.zeros((2, len(word), num_topics + 3))
    for t in range(len(word)):
        of_documents[every, document[t], z[:, t]] -= 1
        of_words[every, z[:, t], word[t]] -= 1
        weight = (of_words[:, :, word[t]] + eta) * (of_documents[:, document[t]] + alpha)
        weight /= of_words.sum(-1) + x.shape[1] * eta
        p = weight / weight.sum(-1, keepdims=True)
        kept = np.arange(num_topics) == z[:, t, None]
        for column, figure in enumerate((kept, p, np.sqrt(p))):
            mean = (p * figure).sum(-1)
            excess[t, column] = (figure[every, after[:, t]] - mean).sum()
            variance[t, column] = ((p * np.square(figure)).sum(-1) - mean**2).sum()
        excess[t, 3:] = ((after[:, t, None] == np.arange(num_topics)) - p).sum(0)
        variance[t, 3:] = (p * (1 - p)).sum(0)
        z[:, t] = after[:, t]
        of_documents[every, document[t], z[:, t]] += 1
        of_words[every, z[:, t], word[t]] += 1
    assert np.abs(excess.sum(0) / np.sqrt(variance.sum(0))).max() < 5  # of up to 153 figures
    often = variance > 25  # where a sum of ones and zeros is near to normal
    assert np.abs(excess[often] / np.sqrt(variance[often])).max(initial=0) < 5.5  # of up to 1,000
    for table, known in zip(("document_topics", "topic_word_counts"), (of_documents, of_words), strict=True):
        np.testing.assert_array_equal(drawn[table].numpy(), known)


def test_collapsed_sweeps_repeat_with_a_seed_and_leave_the_state_alone() -> None:
    x, _ = lda.simulate(30, num_topics=3, num_features=12, mean_total=40.0, eta=1.0, seed=1)
    steps = lda.gibbs_steps(30, collapsed=True)
    state = {"z": steps.init(1, x)["z"].expand(3, -1)}
    before, results = state["z"].clone(), []
    for threads, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            results.append(steps.conditionals[0](state, x)["z"])
        finally:
            torch.set_num_threads(1)
    assert torch.equal(state["z"], before)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert not torch.equal(results[0][0], results[0][1])


def test_the_blocked_sampler_draws_tokens_from_their_conditional_and_counts_them() -> None:
    sites = sites_of(3, 2, 3)
    state = {name: value.expand(20_000, *value.shape) for name, value in sites.items()}
    torch.manual_seed(0)
    drawn = blocked.draw_topics(state, read(TINY))
    document, word = read(TINY).tokens
    share = sites["topic_weights"][document] * sites["topic_words"].mT[word]
    share = share[:, 1] / share.sum(1)
    z = (drawn.double().mean(0) - share) / (share * (1 - share) / 20_000).sqrt()
    assert z.abs().max() < 4.5
    known = counts_of(drawn[:3].numpy(), 2, TINY)
    for name, table in zip(("document_topics", "topic_word_counts"), known, strict=True):
        np.testing.assert_array_equal(blocked.count_topics(drawn[:3], read(TINY), 2)[name].numpy(), table)


def test_sites_are_drawn_from_their_dirichlets() -> None:
    """Mean and variance of every entry, with concentrations that differ."""
    alpha, eta = 0.5, 2.0
    state = {
        "document_topics": torch.tensor([[3, 1], [0, 4], [1, 2]], dtype=torch.int32),
        "topic_word_counts": torch.tensor([[2, 1, 1], [1, 3, 3]], dtype=torch.int32),
    }
    state = {name: value.expand(40_000, -1, -1) for name, value in state.items()}
    torch.manual_seed(0)
    draw = lda.gibbs_steps(2, alpha, eta).draw
    assert draw is not None
    drawn: Sites = draw(state, TINY)
    for name, table, prior in (("topic_weights", "document_topics", alpha), ("topic_words", "topic_word_counts", eta)):
        assert drawn[name].dtype == torch.float64
        c = state[table][0] + prior
        total = c.sum(-1, keepdim=True)
        mean = c / total
        square = (drawn[name] - mean).square()
        for values, known in ((drawn[name], mean), (square, mean * (1 - mean) / (total + 1))):
            z = (values.mean(0) - known) / (values.std(0) / 200)
            assert z.abs().max() < 5, name  # of 24 comparisons


def test_the_collapsed_joint_takes_the_tables_of_the_state() -> None:
    steps = lda.gibbs_steps(**FLAT, collapsed=True)
    state = steps.conditionals[0](steps.init(2, TINY), TINY)
    tables = state["document_topics"], state["topic_word_counts"]
    joint = lda.log_joint_collapsed(*tables, alpha=1.0, eta=1.0)
    assert joint.dtype == torch.float64
    torch.testing.assert_close(
        joint, lda.log_joint_collapsed(*(table.double() for table in tables), alpha=1.0, eta=1.0)
    )


def test_without_a_compiler_tokens_are_drawn_at_once_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapsed, "_library", lambda: "there is no C++ compiler")
    short: dict[str, Any] = {"num_draws": 3, "num_warmup": 2, "num_chains": 1, "progress": False}
    with pytest.warns(UserWarning, match="lda: all tokens are drawn at once.*: there is no C"):
        automatic = gibbs(lda.gibbs_steps(**FLAT), TINY, **short)
    plain = gibbs(lda.gibbs_steps(**FLAT, collapsed=False), TINY, **short)
    assert torch.equal(automatic.draws["topic_words"], plain.draws["topic_words"])
    with pytest.raises(ValueError, match="lda: tokens cannot be drawn with collapsed=True: there is no C"):
        gibbs(lda.gibbs_steps(**FLAT, collapsed=True), TINY, **short)


def test_concentrations_that_float32_cannot_hold_are_left_to_the_blocked_sampler() -> None:
    """TINY has 11 tokens and 3 words; weights from 1.2e-35 are left to the collapsed one."""
    least = 1.1755e-35 * (11 + 3 * 0.01) / 0.01
    assert collapsed.obstacle(read(TINY), 2, 1.01 * least, 0.01) == ""
    assert "and eta=0.01 are too small" in collapsed.obstacle(read(TINY), 2, 0.99 * least, 0.01)
    assert "and eta=1e+06 are too small" in collapsed.obstacle(read(TINY), 2, 3e-29, 1e6)


def test_chains_go_on_from_those_of_the_other_sampler() -> None:
    short: dict[str, Any] = {"num_draws": 3, "num_chains": 2, "progress": False}
    for one, other in ((True, False), (False, True)):
        first = gibbs(lda.gibbs_steps(**FLAT, collapsed=one), TINY, num_warmup=5, **short)
        more = gibbs(lda.gibbs_steps(**FLAT, collapsed=other), TINY, num_warmup=0, init=first, **short)
        assert more.draws["topic_words"].shape == (2, 3, 2, 3)
        assert not torch.equal(more.draws["topic_words"], first.draws["topic_words"])
