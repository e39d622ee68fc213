"""A user's own model, centred and not, through svi, nuts and compare: the verdicts that the literature gives.

Rubin (1981); Gelman et al., Bayesian Data Analysis, section 5.5; Betancourt and Girolami (2015) for the centred form.
"""

import pytest
from zoo.schools import EFFECT, ERROR, centred, non_centred

from guidebook import guides
from guidebook.inference import compare, nuts, svi


@pytest.fixture(scope="module")
def reference():
    return nuts(non_centred, ERROR, EFFECT, target_accept=0.95, seed=1, progress=False)


@pytest.fixture(scope="module")
def centred_nuts():
    with pytest.warns(UserWarning, match="divergent transitions"):
        return nuts(centred, ERROR, EFFECT, seed=1, progress=False)


@pytest.mark.filterwarnings("ignore:svi")
def test_centred_mean_field_is_bad(reference) -> None:
    fast = svi(centred, guides.mean_field, ERROR, EFFECT, num_steps=6000, num_draws=10_000, progress=False)
    comparison = compare(reference, fast, names=["NUTS, non-centred", "mean-field, centred"])
    assert comparison.refused is None
    verdict = comparison.verdicts["mean-field, centred"]
    assert verdict.judgement == "bad"
    assert "too narrow" in verdict.sentence
    assert set(comparison.draws["NUTS, non-centred"]) == {"mu", "tau", *(f"theta[{i}]" for i in range(8))}


def test_centred_nuts_is_refused_as_a_reference(reference, centred_nuts) -> None:
    assert int(centred_nuts.info.divergences.sum()) > 0
    assert not centred_nuts.info.converged
    comparison = compare(centred_nuts, reference, names=["centred", "non-centred"])
    assert "diverged" in (comparison.refused or "")
    assert comparison.verdicts["non-centred"].judgement == "not judged"
    other_way = compare(reference, centred_nuts, names=["non-centred", "centred"])
    assert other_way.verdicts["centred"].judgement == "bad"


def test_the_reference_has_the_published_moments(reference) -> None:
    """Posterior means with this prior: mu 4.4 ± 3.3, tau 3.6 ± 3.2 (posteriordb, eight_schools_noncentered)."""
    mu, tau = reference.draws["mu"], reference.draws["tau"]
    assert float(mu.mean()) == pytest.approx(4.4, abs=0.3)
    assert float(mu.std()) == pytest.approx(3.3, abs=0.2)
    assert float(tau.mean()) == pytest.approx(3.6, abs=0.3)
    assert float(tau.std()) == pytest.approx(3.2, abs=0.4)
