"""Models that take numbers out of their data run in compiled code: only numbers out of draws stand in its way."""

import pytest
from zoo.idioms import IDIOMS, data, posterior

from guidebook.inference import nuts
from guidebook.inference.diagnostics import mcse

pytest.importorskip("numpyro")


@pytest.mark.slow
@pytest.mark.parametrize("name", IDIOMS)
def test_numbers_of_the_data_do_not_stop_compilation(name: str) -> None:
    y, *others = data()
    found = nuts(IDIOMS[name], y, *others, num_draws=250, num_warmup=250, seed=1, engine="xla", progress=False)
    mu = found.draws["mu"].reshape(4, 250)
    mean, sd = posterior(y)
    assert abs(float(mu.mean()) - mean) < 4 * float(mcse(mu))
    assert abs(float(mu.std()) - sd) < 4 * float(mcse(mu, "sd"))
