"""A user's own model on the command line: FILE.py:FUNCTION, its data by argument name, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pyro import poutine

from guidebook.inference import Posterior
from guidebook.workflow.fit import load_task
from guidebook.workflow.own.data import read_arguments
from guidebook.workflow.resolve import find_row

SOURCE = """
import math
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample


@dataclass
class Prior:
    scale: "float"


def line(t, y=None, *, scale=10.0, robust=False):
    w = pyro.sample("w", dist.Normal(0.0, Prior(scale).scale).expand([2]).to_event(1))
    t = t - t.mean()
    noise = dist.StudentT if robust else dist.Normal
    options = (3.0,) if robust else ()
    with pyro.plate("rows", len(t)):
        pyro.sample("y", noise(*options, w[0] + w[1] * t, 1.0), obs=y)


def guide(t, *, scale=10.0):
    loc = pyro.param("loc", torch.zeros(2))
    sd = pyro.param("sd", torch.ones(2), constraint=dist.constraints.positive)
    pyro.sample("w", dist.Normal(loc, sd).to_event(1))


def cities(X, city, *, ill):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("cities", int(city.max()) + 1):
        a = pyro.sample("a", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", len(ill)):
        pyro.sample("ill", dist.Bernoulli(logits=X @ w + a[city]), obs=ill)


class Linear(PyroModule):
    def __init__(self):
        super().__init__()
        self.w = PyroSample(dist.Normal(0.0, 10.0).expand([2]).to_event(1))

    def forward(self, X, y=None):
        mean = X @ self.w
        with pyro.plate("rows", len(X)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def sized(num_rows: int, y):
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    with pyro.plate("rows", num_rows):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def broken(t, y=None):
    return pyro.sample("a", dist.Normal(0.0, 1.0)) + undefined


two = 2
"""
N = 40


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models and with data: y = 1 - 2 (t - mean t) + noise, whole numbers of which some are indices."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    t = rng.normal(size=N).round(3)
    y = (1 - 2 * (t - t.mean()) + rng.normal(size=N)).round(3)
    city = rng.choice(["Bonn", "Köln", "Ulm"], N)
    ill = (rng.uniform(size=N) < 1 / (1 + np.exp(-t - 2.0 * (city == "Ulm")))).astype(int)
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "line.csv").write_text("t,y\n" + "".join(f"{a},{b}\n" for a, b in zip(t, y, strict=True)))
    rows = zip(t, city, ill, rng.integers(20, 80, N), strict=True)
    (tmp_path / "ill.csv").write_text("dose,city,ill,age\n" + "".join(f"{a},{b},{c},{d}\n" for a, b, c, d in rows))
    np.savez(tmp_path / "line.npz", X=np.stack([np.ones(N), t - t.mean()], 1), y=y)
    (tmp_path / "line.json").write_text(json.dumps({"num_rows": N, "y": y.tolist()}))
    return tmp_path


def line_posterior(prior_scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of the weights in closed form."""
    t, y = np.loadtxt("line.csv", delimiter=",", skiprows=1).T
    x = np.stack([np.ones(N), t - t.mean()], 1)
    covariance = np.linalg.inv(x.T @ x + np.eye(2) / prior_scale**2)
    return covariance @ x.T @ y, np.sqrt(np.diag(covariance))


@pytest.mark.parametrize("scale", [10.0, 0.1])
def test_run_finds_the_posterior_in_closed_form(call, here: Path, scale: float) -> None:
    status, out, err = call(
        *("run", "mine.py:line", "--data", "line.csv", "--set", f"scale={scale}", "--json", "-", "--out", "r")
    )
    assert status == 0, err
    record = json.loads(out)
    mean, sd = line_posterior(scale)
    np.testing.assert_allclose(record["parameters"]["w"]["mean"], mean, atol=0.02 * sd.max())
    np.testing.assert_allclose(record["parameters"]["w"]["sd"], sd, rtol=0.05)
    assert (record["model"], record["method"], record["judgement"]) == ("mine.py:line", "fit", "good")
    assert record["file"]["path"] == str(here / "mine.py")
    assert record["file"]["function"] == "line"
    assert len(record["file"]["sha256"]) == 64


def test_a_module_and_keys_of_an_npz(call, here: Path) -> None:
    status, out, err = call("run", "mine.py:Linear", "--data", "line.npz", "--method", "dadvi", "--json", "-")
    assert status == 0, err
    mean, sd = line_posterior(10.0)
    np.testing.assert_allclose(json.loads(out)["parameters"]["w"]["mean"], mean, atol=0.02 * sd.max())


def test_a_json_gives_sizes_as_whole_numbers(here: Path) -> None:
    task = load_task("mine.py:sized", "line.json")
    assert [value.shape for value in task.args] == [(N,)]
    assert task.own.keywords == {"num_rows": N}
    assert poutine.trace(task.model).get_trace(*task.args).nodes["y"]["value"].shape == (N,)


@pytest.mark.slow
def test_a_guide_of_the_file_and_one_of_pyros_classes(call, here: Path) -> None:
    words = ["run", "mine.py:line", "--data", "line.csv", "--steps", "1500", "--set", "lr=0.05", "--json", "-"]
    mean, sd = line_posterior(10.0)
    for guide in ("guide", "AutoNormal"):
        status, out, err = call(*words, "--method", f"svi:mine.py:{guide}")
        assert status == 0, err
        record = json.loads(out)
        assert record["guide"] == guide
        np.testing.assert_allclose(record["parameters"]["w"]["mean"], mean, atol=0.3 * sd.max())


def test_columns_and_categories_name_the_quantities(call, here: Path) -> None:
    status, out, err = call("run", "mine.py:cities", "--data", "ill.csv", "--method", "dadvi")
    assert status == 0, err
    for name in ("w[dose]", "w[age]", "a[Bonn]", "a[Köln]", "a[Ulm]"):
        assert name in out


def test_whole_numbers_are_indices_only_where_the_model_wants_them(here: Path) -> None:
    task = load_task("mine.py:cities", "ill.csv")
    kinds = dict(zip(task.own.arguments, (value.dtype for value in task.args), strict=True))
    assert kinds == {"X": torch.float64, "city": torch.int64, "ill": torch.float64}
    (here / "whole.csv").write_text("t,y\n1,2\n2,4\n4,7\n")
    assert [value.dtype for value in load_task("mine.py:line", "whole.csv").args] == [torch.float64] * 2


@pytest.mark.slow
def test_compare_judges_without_a_reference(call, here: Path) -> None:
    words = ["mine.py:line", "--data", "line.csv", "--methods", "svi:mine.py:guide,dadvi", "--steps", "3000"]
    status, out, err = call("compare", *words, "--set", "lr=0.05", "--out", here / "c", "--json", "-")
    assert status == 0, err
    found = {method["name"]: method["judgement"] for method in json.loads(out)["methods"]}
    assert found == {"svi:mine.py:guide": "good", "dadvi": "good"}
    page = (here / "c" / "report.html").read_text()
    assert "mine.py:line (scale=10.0, robust=False)" in page
    assert f"t: {N}, y: {N}" in page
    assert (here / "c" / "svi-mine.py-guide.safetensors").is_file()


def test_choose_varies_an_option(call, here: Path) -> None:
    words = ["mine.py:line", "--data", "line.csv", "--set", "scale=0.01,10", "--method", "dadvi"]
    status, out, err = call("choose", *words, "--json", "-")
    assert status == 0, err
    assert json.loads(out)["chosen"] == 10.0


def test_check_runs_the_file_of_a_saved_fit_only_if_it_is_unchanged_and_elsewhere(call, here: Path) -> None:
    fitted = ("run", "mine.py:line", "--data", "line.csv", "--method", "dadvi", "--out")
    assert call(*fitted, "r")[0] == 0
    status, out, err = call("check", "r")
    assert (status, "is good" in out) == (0, True), err
    assert f"running {here / 'mine.py'}:line, unchanged since the fit" in err

    (here / "mine.py").write_text(SOURCE + "\n__import__('pathlib').Path('ran').touch()\n")
    status, _, err = call("check", "r")
    assert (status, err.count("\n")) == (2, 1)
    assert "mine.py has changed since it was fitted in r: give --model FILE.py:FUNCTION" in err
    assert not (here / "ran").exists()
    status, out, err = call("check", "r", "--model", "mine.py:line")
    assert (status, "is good" in out) == (0, True), err
    assert (here / "ran").exists()

    (here / "mine.py").unlink()
    status, _, err = call("check", "r")
    assert (status, err.count("\n")) == (2, 1)
    assert "there is no such file now" in err


@pytest.mark.parametrize("place", ["r/mine.py", "r/deeper/../mine.py", "link.py", "mine.py"])
def test_a_model_that_a_folder_brings_along_is_never_run(call, here: Path, place: str) -> None:
    assert call("run", "mine.py:line", "--data", "line.csv", "--method", "dadvi", "--out", "r")[0] == 0
    record = json.loads((here / "r" / "result.json").read_text())
    (here / "r" / "deeper").mkdir()
    text = SOURCE + "\n__import__('pathlib').Path('ran').touch()\n"
    (here / "r" / "mine.py").write_text(text)
    (here / "link.py").symlink_to(here / "r" / "mine.py")
    task = find_row(f"{here / 'link.py'}:line")
    (here / "ran").unlink()
    record["file"] = {"path": str(here / place), "function": "line", "sha256": task.own.sha256}
    if place == "mine.py":  # one that is not said to be elsewhere
        record["file"]["path"] = "r/mine.py"
    (here / "r" / "result.json").write_text(json.dumps(record))
    status, _, err = call("check", "r")
    assert (status, err.count("\n")) == (2, 1)
    assert "what lies in a folder of fits is not run" in err
    assert not (here / "ran").exists()


def test_a_folder_that_names_a_file_without_saying_what_it_was_holds_no_fit(call, here: Path) -> None:
    assert call("run", "mine.py:line", "--data", "line.csv", "--method", "dadvi", "--out", "r")[0] == 0
    record = json.loads((here / "r" / "result.json").read_text())
    del record["file"]
    (here / "r" / "result.json").write_text(json.dumps(record))
    (here / "mine.py").write_text("__import__('pathlib').Path('ran').touch()\n" + SOURCE)
    status, _, err = call("check", "r")
    assert (status, err.count("\n")) == (2, 1)
    assert not (here / "ran").exists()


MISTAKES = [
    ("run none.py:line", "no such file: none.py"),
    ("run mine.py", "mine.py: name the function, as in mine.py:Prior; it has Prior, line, guide"),
    ("run mine.py:lin", "unknown function 'lin': did you mean line? there is Prior, line, guide"),
    ("run mine.py:two", "mine.py:two is no function: it is of type int"),
    ("run syntax.py:f", "syntax.py, line 2: "),
    ("run imports.py:f", "imports.py cannot be run: No module named 'nowhere' (imports.py, line 1: import nowhere)"),
    ("run leaves.py:f", "leaves.py cannot be run: 3 (leaves.py, line 2: sys.exit(3))"),
    ("run mine.py:line", "mine.py:line takes t: give --data FILE, with them by name"),
    ("run mine.py:line --data none.csv", "no such file: none.csv"),
    ("run mine.py:line --data line.npz", "line.npz has no data for the argument 't' of mine.py:line; it holds X"),
    ("run mine.py:line --data typo.csv", "typo.csv has no data for the argument 'y' of mine.py:line; it holds yy"),
    ("run mine.py:sized --data more.json", "more.json: it holds more, which is no argument of sized"),
    ("run mine.py:sized --data ragged.json", "ragged.json: 'y' is ragged"),
    ("run mine.py:line --data iris", "takes its data from a .csv, .npz or .json file, by argument name"),
    ("run mine.py:sized --data short.json --method dadvi", "broadcast"),
    ("run mine.py:broken --data line.csv --method dadvi", "name 'undefined' is not defined (mine.py, line "),
    ("run mine.py:line --data line.csv --set scal=1", "unknown option of mine.py:line 'scal': did you mean scale?"),
    ("run mine.py:line --data line.csv --set robust=1", "robust must be true or false, got '1'"),
    ("run mine.py:line --data line.csv --set standardize=true", "unknown option of mine.py:line 'standardize'"),
    ("run mine.py:line --data line.csv --method em", "mine.py:line has no em: its steps are mathematics"),
    ("run mine.py:line --data line.csv --method svi:mine.py:guid", "unknown function 'guid': did you mean guide?"),
    ("run mine.py:line --data mixed.csv", "mixed.csv: column 't', line 3: '2a' is not a number, as others are"),
    ("run mine.py:line --data gaps.csv", "gaps.csv: line 3, column 't': the value is missing"),
    ("run mine.py:line --data bare.csv", "bare.csv: line 1 has numbers: name the columns there"),
    ("check mine.py:line --model mine.py:line", "--model names the model of a saved fit"),
    ("choose mine.py:line --data line.csv --set scale=1,2 --folds 41", "between 2 and the number of rows, 40; got 41"),
    ("run mine.py:line --data gaps.csv --missing impute", "mine.py:line: cannot impute missing values: --missing drop"),
    ("run mine.py:line --data line.npz --missing drop", "line.npz: columns are chosen, and rows with gaps dropped, in"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES)
def test_a_mistake_is_one_sentence(call, here: Path, words: str, sentence: str) -> None:
    files = {
        "syntax.py": "\ndef f(:\n",
        "imports.py": "import nowhere\ndef f(): pass\n",
        "leaves.py": "import sys\nsys.exit(3)\ndef f(): pass\n",
        "typo.csv": "t,yy\n1,2\n2,3\n",
        "more.json": '{"num_rows": 2, "y": [1, 2], "more": 3}',
        "ragged.json": '{"num_rows": 2, "y": [[1], [2, 3]]}',
        "short.json": '{"num_rows": 3, "y": [1.5, 2.5]}',
        "mixed.csv": "t,y\n1,2\n2a,3\n",
        "gaps.csv": "t,y\n1,2\n,3\n",
        "bare.csv": "1,2\n2,3\n",
    }
    for name, text in files.items():
        (here / name).write_text(text)
    status, _, err = call(*words.split())
    assert (status, err.count("\n")) == (2, 1), err
    assert sentence in err


def test_options_and_data_that_go_unused_are_said(call, here: Path) -> None:
    text = (here / "line.csv").read_text().splitlines()
    (here / "wide.csv").write_text("\n".join(f"{line},{n or 'note'}" for n, line in enumerate(text)) + "\n")
    status, _, err = call("run", "mine.py:line", "--data", "wide.csv", "--method", "dadvi")
    assert status == 0
    assert "data: wide.csv has columns that are not used: note" in err
    (here / "alone.csv").write_text("t\n1.5\n2.5\n4\n")
    status, _, err = call("run", "mine.py:line", "--data", "alone.csv", "--method", "dadvi")
    assert "data: y of mine.py:line has no data and stays None" in err


def test_arguments_of_a_csv(here: Path) -> None:
    (here / "all.csv").write_text("a,flag,x1,kind,x2\n1,true,2,u,0.5\n2,False,3,v,1.5\n")
    found = read_arguments("all.csv", ["a", "flag", "x", "kind"])
    assert found.names == {"x": ("x1", "x2"), "kind": ("u", "v")}
    assert torch.equal(found.values["x"], torch.tensor([[2.0, 0.5], [3.0, 1.5]], dtype=torch.float64))
    assert torch.equal(found.values["flag"], torch.tensor([True, False]))
    assert torch.equal(found.values["kind"], torch.tensor([0, 1]))
    assert found.values["a"].dtype == torch.int64
    named = read_arguments("all.csv", ["x1", "kind"])
    assert (set(named.values), named.unused) == ({"x1", "kind"}, ("a", "flag", "x2"))
    (here / "x.csv").write_text("x,b\n1,2\n3,4\n")
    assert read_arguments("x.csv", ["x"]).values["x"].shape == (2,)  # a column of that name is meant by it


def test_a_saved_posterior_of_an_own_model_is_read_as_any_other(call, here: Path) -> None:
    assert call("fit", "mine.py:line", "--data", "line.csv", "--out", "r")[0] == 0
    assert Posterior.load(here / "r" / "posterior.safetensors").draws["w"].shape[2:] == (2,)
