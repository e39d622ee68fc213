"""Ten models that a user might write, with data by name, through `fit` and `check`, in Python and by command."""

import json
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
