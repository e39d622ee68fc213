"""Ten models that a user might write, with data by name, through `fit` and `check`, in Python and by command."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from zoo import own_models
from zoo.own_models import OWN
from zoo.tutorials import TUTORIALS

from guidebook.inference import check, fit

slow = pytest.mark.slow
SLOW = [pytest.param(name, marks=slow) for name in ("pupils", "two_lines")]
FROM_TUTORIALS = ("item response", "Gaussian process", "hidden Markov", "neural network", "zero-inflated Poisson")


@pytest.mark.parametrize("name", ["clinics", "accidents", "answers", *SLOW])
def test_fit_and_check_with_data_by_name(name: str) -> None:
    model, data = OWN[name]
    options = {"model_kwargs": data(), "progress": False}
    posterior = fit(model, **options)
    assert posterior.info.judgement == "good", posterior.info.message
    assert check(posterior, model, **options).judgement in ("good", "usable")


@slow
@pytest.mark.parametrize("name", FROM_TUTORIALS)
def test_fit_and_check_of_the_tutorials_kind(name: str) -> None:
    make, data, _ = TUTORIALS[name]
    model = make()
    arrays = [value.numpy() for value in data()]
    posterior = fit(model, *arrays, progress=False)
    assert posterior.info.judgement == "good", posterior.info.message


@pytest.mark.parametrize("name", ["clinics", "accidents"])
def test_the_command_finds_what_python_finds(call, name: str, tmp_path: Path) -> None:
    model, data = OWN[name]
    np.savez(tmp_path / "data.npz", **data())
    file = f"{own_models.__file__}:{name}"
    status, out, err = call("run", file, "--data", tmp_path / "data.npz", "--out", tmp_path / "r", "--json", "-")
    assert status == 0, err
    record = json.loads(out)
    posterior = fit(model, model_kwargs=data(), progress=False)
    assert record["judgement"] == posterior.info.judgement
    for site, figures in record["parameters"].items():
        ours = posterior.draws[site].flatten(0, 1).double()
        shift = (np.array(figures["mean"]) - ours.mean(0).numpy()) / ours.std(0).numpy()
        assert np.abs(shift).max() < 0.1, site
    status, out, err = call("check", tmp_path / "r", "--json", "-")
    assert status == 0, err
    assert json.loads(out)["judgement"] in ("good", "usable")


@slow
def test_fit_agrees_with_an_independent_twin() -> None:
    """NumPyro's own NUTS on NumPyro's own negative binomial."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jax
        import numpyro
        import numpyro.distributions as ndist
        from numpyro.infer import MCMC, NUTS

    def twin(traffic, count):
        a = numpyro.sample("a", ndist.Normal(0.0, 2.0))
        b = numpyro.sample("b", ndist.Normal(0.0, 1.0))
        concentration = numpyro.sample("concentration", ndist.Gamma(2.0, 0.5))
        mean = jax.numpy.exp(a + b * traffic)
        numpyro.sample("count", ndist.NegativeBinomial2(mean, concentration), obs=count)

    model, data = OWN["accidents"]
    chains = MCMC(NUTS(twin), num_warmup=500, num_samples=4000, progress_bar=False)
    chains.run(jax.random.PRNGKey(0), **data())
    posterior = fit(model, model_kwargs=data(), progress=False)
    for site, theirs in chains.get_samples().items():
        ours, reference = posterior.draws[site].flatten().double().numpy(), np.asarray(theirs, dtype=float)
        error = 4 * reference.std() / np.sqrt(len(reference) / 3)  # autocorrelated, but not by more
        assert abs(ours.mean() - reference.mean()) < 0.1 * reference.std() + error
        assert abs(np.log(ours.std() / reference.std())) < np.log(1.1) + 4 / np.sqrt(len(reference) / 3)
