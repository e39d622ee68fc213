"""New rows for a fit of a user's own model: against exact predictive distributions, and what is refused."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from guidebook.inference import Posterior

SOURCE = """
import pyro
import pyro.distributions as dist
import torch


def line(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 5.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("rows", len(x)):
        mean = pyro.deterministic("mean", (x * w[..., None, :]).sum(-1))
        pyro.sample("y", dist.Normal(mean, 0.7), obs=y)


def cities(city, y=None):
    with pyro.plate("cities", int(city.max()) + 1):
        a = pyro.sample("a", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", len(city)):
        pyro.sample("y", dist.Normal(a[..., city], 0.5), obs=y)


def counted(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 5.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("rows", y.numel()):
        pyro.sample("y", dist.Normal((x * w[..., None, :]).sum(-1), 0.7), obs=y)


def schools(sd, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("schools", len(sd)):
        theta = pyro.sample("theta", dist.Normal(mu, 2.0))
        pyro.sample("y", dist.Normal(theta, sd), obs=y)


def halves(x, y=None, *, apart=3.0):
    a = pyro.sample("a", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.25))
        pyro.sample("y", dist.Normal(a * x + apart * z, 1.0), obs=y)


def series(y):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y) - 1):
        pyro.sample("y", dist.Normal(a * y[:-1], 1.0), obs=y[1:])


def towns(level, town, y=None):
    b = pyro.sample("b", dist.Normal(0.0, 5.0))
    doubled = pyro.deterministic("doubled", 2 * b * level)
    with pyro.plate("rows", len(town)):
        pyro.sample("y", dist.Normal(doubled[..., town], 1.0), obs=y)


def pair(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x[:, None] * w, 1.0).to_event(1), obs=y)


def two(x, z, y=None):
    b = pyro.sample("b", dist.Normal(0.0, 5.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(b * (x + z), 1.0), obs=y)


def grades(x, grade=None):
    b = pyro.sample("b", dist.Normal(0.0, 2.0))
    cut = pyro.sample("cut", dist.Normal(torch.tensor([-1.0, 1.0]), 0.1).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("grade", dist.OrderedLogistic(b * x, cut.unsqueeze(-2)), obs=grade)


def yes(x, bought=None):
    b = pyro.sample("b", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("bought", dist.Bernoulli(logits=b * x), obs=bought)


def smooth(t, y=None):
    covariance = (-0.5 * (t[:, None] - t) ** 2).exp() + 0.01 * torch.eye(len(t))
    f = pyro.sample("f", dist.MultivariateNormal(torch.zeros(len(t)), covariance))
    with pyro.plate("rows", len(t)):
        pyro.sample("y", dist.Normal(f, 0.5), obs=y)


def whitened(t, y=None):
    covariance = (-0.5 * (t[:, None] - t) ** 2).exp() + 0.01 * torch.eye(len(t))
    with pyro.plate("rows", len(t)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    f = pyro.deterministic("f", (torch.linalg.cholesky(covariance) @ z.unsqueeze(-1)).squeeze(-1))
    with pyro.plate("data", len(t)):
        pyro.sample("y", dist.Normal(f, 0.5), obs=y)


def walk(t, y=None):
    step = pyro.sample("step", dist.Normal(0.0, 1.0).expand([len(t)]).to_event(1))
    with pyro.plate("rows", len(t)):
        pyro.sample("y", dist.Normal(step.cumsum(-1), 0.5), obs=y)


def apart(t, y=None):
    effect = pyro.sample("effect", dist.Normal(0.0, 2.0).expand([len(t)]).to_event(1))
    with pyro.plate("rows", len(t)):
        pyro.sample("y", dist.Normal(effect, 0.5), obs=y)


def total(y, *, sd=1.0):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(mean, sd).expand([2]).to_event(1), obs=y)
"""
N = 60
DRAWS = 4000  # at least, behind each figure


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the models, with data of each, and with new rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, N))
    _write("line.csv", a=a, b=b, y=1.5 * a - b + 0.7 * rng.normal(size=N))
    city = np.array(["Bonn", "Köln", "Ulm"])[np.arange(N) % 3]
    _write("city.csv", city=city, y=np.arange(N) % 3 * 4 - 3 + 0.5 * rng.normal(size=N))
    _write("number.csv", city=np.arange(N) % 3, y=np.arange(N) % 3 * 4 - 3 + 0.5 * rng.normal(size=N))
    sd = rng.uniform(0.5, 1.5, N)
    _write("schools.csv", sd=sd, y=3 + 2 * rng.normal(size=N) + sd * rng.normal(size=N))
    _write("halves.csv", x=a, y=2 * a + 3.0 * (rng.uniform(size=N) < 0.25) + rng.normal(size=N))
    return tmp_path


def _write(file: str, **columns: np.ndarray | list) -> None:
    pd.DataFrame(columns).to_csv(file, index=False)


def _fit(call, model: str, data: str, *more: str) -> None:
    status, _, err = call("run", f"mine.py:{model}", "--data", data, "--method", "dadvi", "--out", "r", *more)
    assert status == 0, err


def _predict(call, data: str, *more: str) -> pd.DataFrame:
    status, out, err = call("predict", "r", "--data", data, *more)
    assert status == 0, err
    return pd.read_csv(StringIO(out))


def _close(table: pd.DataFrame, site: str, mean: np.ndarray, sd: np.ndarray) -> None:
    """Compare with a normal distribution, within five standard errors of its draws; quantiles are noisier."""
    error = 5 / np.sqrt(DRAWS)
    np.testing.assert_array_less(abs(table[f"{site}_mean"] - mean), error * sd + 1e-9)
    np.testing.assert_allclose(table[f"{site}_sd"], sd, rtol=error)
    for figure, sign in (("low", -1), ("high", 1)):
        away = table[f"{site}_{figure}"] - (mean + sign * 1.6449 * sd)
        np.testing.assert_array_less(abs(away), 2.2 * error * sd)


def _line(new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of the line at new rows (Gelman et al. 2013, section 14.3), without noise."""
    data = pd.read_csv("line.csv")
    x, y = data[["a", "b"]].to_numpy(), data["y"].to_numpy()
    covariance = np.linalg.inv(x.T @ x / 0.49 + np.eye(2) / 25)
    return new @ covariance @ x.T @ y / 0.49, np.sqrt(np.einsum("ij,jk,ik->i", new, covariance, new))


def test_a_regression_is_predicted_as_in_closed_form(call, here: Path) -> None:
    _fit(call, "line", "line.csv")
    new = np.array([[0.5, -1.0], [3.0, 2.0], [-10.0, 8.0]])
    _write("new.csv", note=["p", "q", "r"], b=new[:, 1], a=new[:, 0])  # another order, and one column more
    table = _predict(call, "new.csv")
    mean, sd = _line(new)
    assert list(table["row"]) == [0, 1, 2]
    _close(table, "mean", mean, sd)
    _close(table, "y", mean, np.sqrt(sd**2 + 0.49))
    np.savez("new.npz", x=new)
    pd.testing.assert_frame_equal(_predict(call, "new.npz"), table)
    assert call("predict", "r", "--data", "new.csv", "--out", "new/out.csv")[0] == 0
    pd.testing.assert_frame_equal(pd.read_csv("new/out.csv"), table)


def test_a_run_keeps_its_leave_one_out_score_and_rows_with_gaps_are_counted(call, here: Path) -> None:
    """Each row's density given all others is normal (Sundararajan and Keerthi 2001, equation 5)."""
    _fit(call, "line", "line.csv", "--missing", "drop")
    data = pd.read_csv("line.csv")
    x, y = data[["a", "b"]].to_numpy(), data["y"].to_numpy()
    precision = np.linalg.inv(25 * x @ x.T + 0.49 * np.eye(len(y)))
    variance = 1 / np.diag(precision)
    elpd = -np.sum(np.log(2 * np.pi * variance) + (precision @ y) ** 2 * variance) / 2
    score = json.loads(Path("r", "result.json").read_text())["loo"]
    assert abs(score["elpd"] - elpd) < 0.1
    assert score["num_unreliable"] == 0
    assert score["sentence"].startswith("elpd −")
    assert "Leave-one-out" in Path("r", "report.html").read_text()
    _write("new.csv", a=[1.0, np.nan, 2.0], b=[2.0, 1.0, 0.0])
    status, out, err = call("predict", "r", "--data", "new.csv")
    assert (status, len(out.splitlines())) == (0, 3)
    assert "predict: new.csv: 1 row with a gap is left out" in err


def test_what_is_observed_is_not_looked_at(call, here: Path) -> None:
    _fit(call, "line", "line.csv")
    _write("new.csv", a=[1.0], b=[2.0])
    _write("seen.csv", y=["?"], a=[1.0], b=[2.0])
    pd.testing.assert_frame_equal(_predict(call, "seen.csv"), _predict(call, "new.csv"))


def test_the_rows_fitted_are_predicted_likewise(call, here: Path) -> None:
    _fit(call, "line", "line.csv")
    mean, sd = _line(pd.read_csv("line.csv")[["a", "b"]].to_numpy())
    table = pd.read_csv("r/rows.csv")
    assert list(table) == ["row", *(f"{site}_{f}" for site in ("mean", "y") for f in ("mean", "sd", "low", "high"))]
    _close(table, "y", mean, np.sqrt(sd**2 + 0.49))


def _city_means() -> pd.DataFrame:
    found = pd.read_csv("city.csv").groupby("city")["y"].agg(["sum", "size"])
    precision = found["size"] / 0.25 + 1 / 9
    return pd.DataFrame({"mean": found["sum"] / 0.25 / precision, "sd": np.sqrt(1 / precision + 0.25)})


@pytest.mark.parametrize("cities", [["Köln", "Bonn"], ["Ulm"], ["Bonn"], ["Köln", "Köln", "Ulm", "Bonn"]])
def test_categories_are_those_of_the_fit(call, here: Path, cities: list[str]) -> None:
    _fit(call, "cities", "city.csv")
    _write("new.csv", city=cities)
    expected = _city_means().loc[cities]
    table = _predict(call, "new.csv")
    assert len(table) == len(cities)
    _close(table, "y", expected["mean"].to_numpy(), expected["sd"].to_numpy())


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean and variance of the slope through the origin, given a prior sd of 5 and noise of 1."""
    variance = 1 / (x @ x + 1 / 25)
    return variance * (x @ y), variance


def test_arguments_that_belong_to_groups_have_no_rows(call, here: Path) -> None:
    """And neither has a site for each group, which is left out of the table."""
    rng = np.random.default_rng(1)
    level, town = np.array([1.0, -0.5, 2.0]), np.arange(N) % 3
    y = 3 * level[town] + rng.normal(size=N)
    np.savez("towns.npz", level=level, town=town, y=y)
    _fit(call, "towns", "towns.npz")
    np.savez("new.npz", level=level, town=[1, 0])
    table = _predict(call, "new.npz")
    mean, variance = _slope(2 * level[town], y)
    x = 2 * level[[1, 0]]
    assert list(table) == ["row", "y_mean", "y_sd", "y_low", "y_high"]
    _close(table, "y", x * mean, np.sqrt(x**2 * variance + 1))


def test_several_numbers_per_row_have_columns_each(call, here: Path) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=N)
    y = np.stack([x, -2 * x], 1) + rng.normal(size=(N, 2))
    np.savez("pair.npz", x=x, y=y)
    _fit(call, "pair", "pair.npz")
    new = np.array([3.0, -1.0])
    np.savez("new.npz", x=new)
    table = _predict(call, "new.npz")
    for place in (0, 1):
        mean, variance = _slope(x, y[:, place])
        _close(table, f"y[{place}]", new * mean, np.sqrt(new**2 * variance + 1))


def test_new_rows_have_latent_sites_of_their_own(call, here: Path) -> None:
    """As many schools as were fitted, but new ones: theta is drawn about mu; those fitted keep theirs."""
    _fit(call, "schools", "schools.csv")
    data = pd.read_csv("schools.csv")
    sd, y = data["sd"].to_numpy(), data["y"].to_numpy()
    weights = 1 / (sd**2 + 4)
    precision = weights.sum() + 1 / 25
    mean, spread = (weights * y).sum() / precision, np.sqrt(1 / precision)
    _close(_predict(call, "schools.csv"), "y", np.full(N, mean), np.sqrt(spread**2 + 4 + sd**2))
    shrunk = 4 / (4 + sd**2)
    own = np.sqrt(shrunk * sd**2 + ((1 - shrunk) * spread) ** 2)
    _close(pd.read_csv("r/rows.csv"), "y", shrunk * y + (1 - shrunk) * mean, np.sqrt(own**2 + sd**2))


def test_discrete_sites_of_new_rows_come_from_their_prior(call, here: Path) -> None:
    _fit(call, "halves", "halves.csv")
    slope = json.loads(Path("r/result.json").read_text())["parameters"]["a"]["mean"]
    _write("new.csv", x=[0.0, 1.0, 1.0], y=[100.0, 0.0, 9.0])
    table = _predict(call, "new.csv")
    sd = np.sqrt(1 + 9 * 0.25 * 0.75)
    np.testing.assert_allclose(table["y_mean"], [0.75, slope + 0.75, slope + 0.75], atol=5 * sd / np.sqrt(DRAWS))
    np.testing.assert_allclose(table["y_sd"][0], sd, rtol=0.08)


def test_choose_sums_out_discrete_sites(call, here: Path) -> None:
    words = ["mine.py:halves", "--data", "halves.csv", "--method", "dadvi", "--set", "apart=0.01,3", "--json", "-"]
    status, out, err = call("choose", *words)
    assert status == 0, err
    assert json.loads(out)["chosen"] == 3.0


def test_choose_needs_densities_of_rows(call, here: Path) -> None:
    Path("total.json").write_text('{"y": [1.5, 2.5]}')
    words = ("choose", "mine.py:total", "--data", "total.json", "--method", "dadvi", "--set", "sd=1,2")
    status, _, err = call(*words)
    assert status == 2
    assert "choose: y has one density for all rows, so that none can be left out" in err


def test_a_model_that_needs_what_it_observes_says_so(call, here: Path) -> None:
    _fit(call, "counted", "line.csv")
    _write("new.csv", a=[1.0, 2.0], b=[2.0, 0.0])
    status, _, err = call("predict", "r", "--data", "new.csv")
    assert (status, err.count("\n")) == (2, 2)  # and that the file is run
    assert "predict: mine.py:counted does not run on new.csv with y=None" in err.replace(f"{here}/", "")
    _write("full.csv", y=[0.0, 0.0], a=[1.0, 2.0], b=[2.0, 0.0])
    mean, sd = _line(np.array([[1.0, 2.0], [2.0, 0.0]]))
    _close(_predict(call, "full.csv"), "y", mean, np.sqrt(sd**2 + 0.49))


def test_a_file_that_has_changed_is_not_run_unless_it_is_named(call, here: Path) -> None:
    _fit(call, "line", "line.csv")
    _write("new.csv", a=[1.0], b=[2.0])
    (here / "mine.py").write_text(SOURCE + "\n__import__('pathlib').Path('ran').touch()\n")
    status, _, err = call("predict", "r", "--data", "new.csv")
    assert (status, err.count("\n")) == (2, 1)
    assert "mine.py has changed since it was fitted in r: give --model FILE.py:FUNCTION" in err
    assert not (here / "ran").exists()
    _predict(call, "new.csv", "--model", "mine.py:line")
    assert (here / "ran").exists()


@pytest.mark.parametrize(
    ("model", "data", "new", "sentence"),
    [
        (
            "cities",
            "city.csv",
            "city\nUlm\nTrier\n",
            "column 'city': 'Trier' is none of the categories of the fit",
        ),
        ("cities", "city.csv", "town\nUlm\n", "has no data for the argument 'city' of"),
        ("line", "line.csv", "a,c\n1,2\n", "new.csv: no column 'b' of numbers, which the fit used for x"),
        ("schools", "schools.csv", "sd\nlow\nhigh\n", "new.csv: 'sd' holds text, and numbers in the fit"),
        ("cities", "number.csv", "city\n0\n3\n", "site 'a' has shape (3,) in the fit and (4,) with these rows"),
        ("cities", "number.csv", "city\n0\n1.5\n", "'city' holds numbers, and whole numbers in the fit"),
        ("schools", "schools.csv", "sd\n1\n\n2\n", "new.csv: line 3 is blank"),
    ],
)
def test_new_rows_that_do_not_go_with_the_fit_are_refused(
    call, here: Path, model: str, data: str, new: str, sentence: str
) -> None:
    _fit(call, model, data)
    (here / "new.csv").write_text(new)
    status, _, err = call("predict", "r", "--data", "new.csv")
    assert status == 2
    assert sentence in err


def test_arrays_that_do_not_go_together_are_refused(call, here: Path) -> None:
    np.savez("two.npz", x=np.arange(3.0), z=np.arange(3.0), y=np.arange(3.0) + 0.5)
    _fit(call, "two", "two.npz")
    for x, z, sentence in (
        (np.arange(2.0), np.arange(3.0), "predict: new.npz: arguments have different numbers of rows: x 2, z 3"),
        (np.ones((2, 2)), np.arange(2.0), "predict: new.npz: 'x' has shape (2, 2), and the fit had shape (3,)"),
        (np.zeros(0), np.zeros(0), "predict: new.npz has no rows"),
    ):
        np.savez("new.npz", x=x, z=z)
        status, _, err = call("predict", "r", "--data", "new.npz")
        assert status == 2
        assert sentence in err


@pytest.mark.parametrize("model", ["total", "series"])
def test_a_model_without_rows_says_nothing_of_them(call, here: Path, model: str) -> None:
    Path("total.json").write_text('{"y": [1.5, 2.5]}')
    _fit(call, model, "total.json")
    assert not Path("r/rows.csv").exists()
    status, _, err = call("predict", "r", "--data", "total.json")
    assert status == 2
    assert "says nothing of single rows" in err


def test_model_is_for_fits_of_own_models(call, here: Path) -> None:
    status, _, err = call("run", "gmm", "--data", "iris", "--method", "em", "--out", "g")
    assert status == 0, err
    status, _, err = call("predict", "g", "--data", "line.csv", "--model", "mine.py:line")
    assert (status, err.count("\n")) == (2, 1)
    assert "predict: --model FILE.py:FUNCTION is for fits of such a model, and g is of gmm" in err


def test_categories_have_probabilities_each(call, here: Path) -> None:
    """Of an ordered outcome, against quadrature over the draws; of a binary one, by the names in the data."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=N)
    grade = (1.5 * x + rng.logistic(size=N) > np.array([[-1.0], [1.0]])).sum(0)
    _write("grades.csv", x=x, grade=np.array(["a low", "b middle", "c high"])[grade])
    _fit(call, "grades", "grades.csv")
    new = np.array([-2.0, 0.0, 3.0])
    _write("new.csv", x=new)
    table = _predict(call, "new.csv")
    names = ["a low", "b middle", "c high"]
    assert list(table) == ["row", "grade", *(f"grade_probability_of_{name}" for name in names)]
    draws = Posterior.load(here / "r" / "posterior.safetensors").samples
    below = 1 / (1 + np.exp(draws["b"].numpy()[:, None, None] * new[:, None] - draws["cut"].numpy()[:, None]))
    expected = np.diff(np.pad(below, ((0, 0), (0, 0), (1, 1)), constant_values=((0, 0), (0, 0), (0, 1)))).mean(0)
    found = table[[f"grade_probability_of_{name}" for name in names]].to_numpy()
    np.testing.assert_allclose(found, expected, atol=2.5 / np.sqrt(DRAWS))
    assert table["grade"].tolist() == [names[k] for k in expected.argmax(1)]

    _write("yes.csv", x=x, bought=np.where(rng.uniform(size=N) < 1 / (1 + np.exp(-2 * x)), "yes", "no"))
    _fit(call, "yes", "yes.csv")
    table = _predict(call, "new.csv")
    assert list(table) == ["row", "bought", "bought_probability_of_no", "bought_probability_of_yes"]
    assert table["bought"].tolist()[::2] == ["no", "yes"]
    assert pd.read_csv("r/rows.csv").columns.tolist() == list(table)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("smooth", "site 'f' draws its values for all rows at once, as in a Gaussian process"),
        ("whitened", "site 'z' has values that other rows depend on"),
        ("walk", "site 'step' has values that other rows depend on"),
    ],
)
def test_rows_that_depend_on_one_another_are_not_drawn_anew(call, here: Path, model: str, sentence: str) -> None:
    t = np.linspace(0, 5, 12)
    _write("t.csv", t=t, y=np.sin(t))
    _fit(call, model, "t.csv")
    assert Path("r/rows.csv").exists()  # those fitted have values of their own
    _write("new.csv", t=[0.5, 6.0])
    status, _, err = call("predict", "r", "--data", "new.csv")
    assert status == 2
    assert f"predict: {sentence}" in err


def test_effects_that_rows_have_by_themselves_need_no_plate(call, here: Path) -> None:
    _write("t.csv", t=np.arange(8) + 0.5, y=np.linspace(-3, 3, 8))
    _fit(call, "apart", "t.csv")
    _write("new.csv", t=[0.5, 6.0])
    _close(_predict(call, "new.csv"), "y", np.zeros(2), np.full(2, np.sqrt(4.25)))
