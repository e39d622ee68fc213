"""Models as tutorials teach them, written by a user and not for us: NUTS beside NumPyro's densities and figures.

``zoo/tutorials.json`` has the figures of NumPyro's long runs, 4 × 10,000 draws each, with their Monte Carlo errors;
``python -m benchmarks.tutorials tests/zoo/tutorials.json`` writes it.
"""

import json
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from zoo.tutorials import TUTORIALS

from guidebook.inference import nuts

pytest.importorskip("numpyro")
ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # benchmarks are no part of the package
from benchmarks import tutorials  # noqa: E402

REFERENCE = json.loads((ROOT / "tests" / "zoo" / "tutorials.json").read_text())
COMPARISONS = sum(2 * len(values["mean"]) for figures in REFERENCE.values() for values in figures.values())
LARGEST_Z = NormalDist().inv_cdf(1 - 0.001 / (2 * COMPARISONS))  # all of them together, in 999 runs of 1000


def test_every_model_has_its_figures_and_its_twin() -> None:
    from benchmarks.peers.tutorials import MODELS

    assert set(TUTORIALS) == set(REFERENCE) == set(MODELS)
    assert COMPARISONS > 200


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_log_density_is_that_of_numpyros_model(name: str) -> None:
    assert tutorials.density_gap(name)["gap"] < 1e-10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:nuts. drew 500 .* divergent transitions")  # the horseshoe's and baseball's funnels
@pytest.mark.parametrize("name", TUTORIALS)
def test_draws_in_compiled_code_have_numpyros_moments(name: str) -> None:
    """In float32, as a user has it; a fall back to Pyro's engine is a warning and so an error."""
    model, data, quantities = (TUTORIALS[name].model(), TUTORIALS[name].data(), TUTORIALS[name].quantities)
    posterior = nuts(model, *data, num_draws=500, num_warmup=500, target_accept=0.9, seed=1, progress=False)
    assert posterior.info.engine == "xla"
    figures = tutorials.figures(quantities(dict(posterior.draws)))
    assert np.abs(tutorials.z_scores(figures, REFERENCE[name])).max() < LARGEST_Z
