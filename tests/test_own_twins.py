"""The five models of `zoo.own_models` beside NumPyro's: densities, draws, and what `fit` returns."""

import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from zoo.own_models import OWN

from guidebook.inference import fit, nuts

pytest.importorskip("numpyro")
import jax
from numpyro.infer import MCMC, NUTS
from zoo.own_twins import TWINS

sys.path.append(str(Path(__file__).parents[1]))  # benchmarks are no part of the package
from benchmarks import tutorials

slow = pytest.mark.slow
SAMPLED = ("clinics", "pupils", "accidents", "answers")  # a chain of two_lines may end in a lesser mode
NUM_FIGURES = 2 * (44 + 30 + 3 + 5)  # means and sds of their quantities


@pytest.mark.parametrize("name", OWN)
def test_the_log_density_is_that_of_an_independent_twin(name: str) -> None:
    model, data = OWN[name]

    def tensors() -> tuple[tuple, dict]:
        named = {key: torch.as_tensor(value) for key, value in data().items()}
        return (), {key: value.double() if key in ("ill", "count") else value for key, value in named.items()}

    exact = 1e-6 if name == "accidents" else 1e-10  # NumPyro's negative binomial is right to 3e-7, by SciPy's
    assert tutorials.largest_gap(lambda: model, TWINS[name], tensors) < exact


def moments(draws: Mapping[str, torch.Tensor]) -> dict[str, dict[str, list[float]]]:
    """Means and sds with their Monte Carlo errors; of a factor of correlations, the one entry that is free."""
    free = {name: value[..., 1, 0] if name == "factor" else value for name, value in draws.items()}
    return tutorials.figures(free)


@slow
@pytest.mark.parametrize("name", SAMPLED)
def test_draws_have_the_moments_of_an_independent_twin(name: str) -> None:
    """NumPyro's own NUTS on NumPyro's own model: all figures of the four together, in 999 runs of 1000."""
    model, data = OWN[name]
    with jax.enable_x64(True):
        options = {"num_warmup": 500, "num_samples": 1000, "num_chains": 4, "progress_bar": False}
        chains = MCMC(NUTS(TWINS[name], target_accept_prob=0.9), chain_method="vectorized", **options)
        chains.run(jax.random.PRNGKey(0), **data())
        theirs = {site: torch.tensor(np.array(v)) for site, v in chains.get_samples(group_by_chain=True).items()}
    counts = {"num_draws": 1000, "num_warmup": 500}
    posterior = nuts(model, model_kwargs=data(), **counts, target_accept=0.9, seed=1, progress=False)
    ours = {site: posterior.draws[site] for site in theirs}
    z = tutorials.z_scores(moments(ours), moments(theirs))
    assert np.abs(z).max() < NormalDist().inv_cdf(1 - 0.001 / (2 * NUM_FIGURES))


@slow
@pytest.mark.parametrize("name", ["accidents"])
def test_fit_agrees_with_an_independent_twin(name: str) -> None:
    """Within what `fit` calls good, and four Monte Carlo errors."""
    model, data = OWN[name]
    chains = MCMC(NUTS(TWINS[name]), num_warmup=500, num_samples=4000, progress_bar=False)
    chains.run(jax.random.PRNGKey(0), **data())
    posterior = fit(model, model_kwargs=data(), progress=False)
    for site, theirs in chains.get_samples().items():
        ours, reference = posterior.draws[site].flatten().double().numpy(), np.asarray(theirs, dtype=float)
        error = 4 * reference.std() / np.sqrt(len(reference) / 3)  # autocorrelated, but not by more
        assert abs(ours.mean() - reference.mean()) < 0.1 * reference.std() + error
        assert abs(np.log(ours.std() / reference.std())) < np.log(1.1) + 4 / np.sqrt(len(reference) / 3)
