"""Names of entries in verdicts: a frame's columns and index, categories, and plates."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

from guidebook.inference import Posterior, check, compare, coords, dadvi, fit
from guidebook.inference.info import SviInfo

SCHOOLS = ["Choate", "Deerfield", "Exeter", "Hotchkiss"]


def regression(x, clinic, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("clinics", int(clinic.max()) + 1):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.deterministic("odds", a.exp())
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((x * w[..., None, :]).sum(-1) + a[..., clinic], 1.0), obs=y)


def schools(error, effect):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("schools", len(error)):
        theta = pyro.sample("theta", dist.Normal(mu, 5.0))
        pyro.sample("effect", dist.Normal(theta, error), obs=effect)


def _frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(30, 3)), columns=["age", "dose", "y"])
    return frame.assign(clinic=pd.Categorical(np.array(["Bonn", "Ulm"])[np.arange(30) % 2]))


def _wrong(posterior: Posterior, site: str, entry: int) -> Posterior:
    """A posterior with one entry's draws shifted by two units, as a guide's."""
    value = posterior.draws[site].clone()
    value[..., entry] += 2.0
    info = SviInfo(seed=0, seconds=0.0, converged=True, message="", losses=torch.zeros(1))
    return Posterior(draws={**posterior.draws, site: value}, info=info)


def test_check_names_what_frames_name() -> None:
    frame = _frame()
    data = (frame[["age", "dose"]], frame["clinic"], frame["y"])
    good = dadvi(regression, *data, progress=False)
    found = check(_wrong(good, "w", 1), regression, *data, progress=False)
    assert found.judgement == "bad"
    assert "at w[dose]" in found.sentence
    assert set(found.table.index) == {"w[age]", "w[dose]", "a[Bonn]", "a[Ulm]", "odds[Bonn]", "odds[Ulm]"}
    by_name = {"x": data[0], "clinic": data[1], "y": data[2]}
    again = check(good, regression, model_kwargs=by_name, coords={"a": [["b", "u"]]}, progress=False)
    assert {"w[0]", "a[b]", "odds[0]"} <= set(again.table.index)  # what is given is all there is


def test_an_index_of_words_names_the_rows() -> None:
    data = pd.DataFrame({"error": [1.0, 2, 1, 2], "effect": [1.0, 5, -2, 3]}, index=SCHOOLS)
    arguments = (data["error"], data["effect"])
    assert coords(schools, *arguments) == {"theta": [SCHOOLS]}
    assert coords(schools, *(column.reset_index(drop=True) for column in arguments)) == {}
    posterior = fit(schools, *arguments, progress=False)
    found = check(_wrong(posterior, "theta", 2), schools, *arguments, progress=False)
    assert "at theta[Exeter]" in found.sentence


def test_plates_are_named() -> None:
    error, effect = torch.tensor([1.0, 2, 1, 2]), torch.tensor([1.0, 5, -2, 3])
    named = coords(schools, error, effect, plates={"schools": SCHOOLS})
    assert named == {"theta": [SCHOOLS]}
    good = dadvi(schools, error, effect, progress=False)
    wrong = _wrong(good, "theta", 3)
    found = check(wrong, schools, error, effect, coords={"schools": SCHOOLS}, progress=False)
    assert "at theta[Hotchkiss]" in found.sentence
    assert "theta[Exeter]" in compare(good, wrong, coords=named).quantities["svi"].index
    tree = good.to_datatree(
        schools, (error, effect), groups=["posterior", "observed_data"], coords={"schools": SCHOOLS}
    )
    assert list(tree["posterior"]["theta"].coords["schools"].to_numpy()) == SCHOOLS


def test_deterministic_sites_and_events_in_a_plate_are_named() -> None:
    def model():
        with pyro.plate("groups", 2):
            w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
            pyro.deterministic("sum", w.sum(-1))

    named = coords(model, plates={"groups": ["a", "b"]})
    assert named == {"w": [["a", "b"], ["0", "1", "2"]], "sum": [["a", "b"]]}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"schools": ["a", "b"]}, "check: coords has 2 names for the plate 'schools', which has 4 entries"),
        ({"theta": [["a", "b"]]}, "check: coords has 2 names for 'theta', which has shape"),
        ({"theta": [["a", "b", "a", "c"]]}, "check: coords gives the name 'a' to two entries of 'theta'"),
    ],
)
def test_names_that_do_not_fit_are_refused(given: dict, sentence: str) -> None:
    error, effect = torch.tensor([1.0, 2, 1, 2]), torch.tensor([1.0, 5, -2, 3])
    good = dadvi(schools, error, effect, progress=False)
    with pytest.raises(ValueError, match=sentence):
        check(good, schools, error, effect, coords=given, progress=False)


def test_a_plate_that_is_not_there_is_refused() -> None:
    error, effect = torch.tensor([1.0, 2, 1, 2]), torch.tensor([1.0, 5, -2, 3])
    with pytest.raises(ValueError, match="coords: the model has no plate 'school'"):
        coords(schools, error, effect, plates={"school": SCHOOLS})


def test_sites_whose_size_is_an_option_are_named_by_what_the_data_depend_on() -> None:
    """Effects of two kinds of group of one size, and weights of columns that constants centre."""

    def model(x, clinic, ward, t, y=None, *, num_clinics=2, num_wards=2):
        base = pyro.sample("base", dist.Normal(0.0, 1.0))
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        cut = pyro.sample("cut", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with pyro.plate("clinics", num_clinics):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            level = pyro.deterministic("level", 2.0 * a)
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0).expand([2, num_wards]).to_event(2))
        mean = base + (x[:, 0] - 50) * w[0] + (x[:, 1] - 1) * w[1] + level[clinic] + slope[0, ward] + slope[1, ward] * t
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean + cut.sum(), 1.0), obs=y)

    frame = _frame()
    frame["t"] = np.linspace(0, 1, 30)
    ward = pd.Series(pd.Categorical(np.array(["u", "v"])[np.arange(30) // 3 % 2]))
    named = coords(model, frame[["age", "dose"]], frame["clinic"], ward, frame["t"], frame["y"])
    clinics = ["Bonn", "Ulm"]
    assert named == {"w": [["age", "dose"]], "a": [clinics], "level": [clinics], "slope": [["0", "1"], ["u", "v"]]}
    tree = dadvi(model, frame[["age", "dose"]], frame["clinic"], ward, frame["y"], progress=False).to_datatree(
        model, (frame[["age", "dose"]], frame["clinic"], ward, frame["t"], frame["y"]), groups="posterior"
    )
    assert list(tree["posterior"]["a"].coords["clinics"].to_numpy()) == clinics
