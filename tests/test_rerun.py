"""A run repeated from its folder or its report, and what is said where it does not come out the same."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from guidebook.inference import Posterior
from guidebook.inference.digests import data_sha256
from guidebook.workflow.manifest import MANIFEST, without_targets

FIT = ("run", "gmm", "--method", "em", "--set", "num_components=2", "--seed", "5")
MODEL = """
import pyro, pyro.distributions as dist
def line(t, y=None):
    slope = pyro.sample("slope", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", len(t)):
        pyro.sample("y", dist.Normal(slope * t, 1.0), obs=y)
"""


@pytest.fixture
def fitted(call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert call(*FIT, "--out", "r")[0] == 0
    return tmp_path / "r"


def change(folder: Path, **fields: Any) -> None:
    record = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(record | fields))


@pytest.mark.parametrize("place", ["r", "r/report.html", "alone.html"])
def test_the_same_command_gives_the_same_bits(call: Callable, fitted: Path, place: str) -> None:
    if place == "alone.html":
        (fitted / "report.html").rename("alone.html")
    before = sorted(Path().rglob("*"))
    status, out, err = call("rerun", place)
    assert (status, out) == (0, "the run came out the same, bit for bit.\n"), err
    assert sorted(Path().rglob("*")) == before


def test_another_result_is_told_by_its_largest_difference(call: Callable, fitted: Path) -> None:
    file = fitted / "posterior.safetensors"
    saved = Posterior.load(file)
    loc = saved.draws["loc"].clone()
    loc[0, 0, 1, 2] += 0.25
    Posterior({**saved.draws, "loc": loc}, saved.info, saved.params).save(file)
    change(fitted, results={"posterior": "of another"})
    status, out, _ = call("rerun", fitted, "--json", "-")
    found = json.loads(out)
    assert (status, found["same"]) == (1, False)
    assert found["largest_difference"] == pytest.approx(0.25)
    assert found["quantity"] == "loc (posterior)"
    assert "largest difference is 0.25, in loc" in found["sentence"]


def test_other_versions_and_data_are_named(call: Callable, fitted: Path) -> None:
    versions = json.loads((fitted / MANIFEST).read_text())["versions"]
    change(fitted, versions=versions | {"torch": "1.0"}, data={"sha256": "of others"}, results={"posterior": "another"})
    (fitted / "posterior.safetensors").unlink()  # so that no difference can be told
    status, out, _ = call("rerun", fitted)
    assert status == 1
    assert out.startswith("the run did not come out the same; its data are not those of then; torch was 1.0 and is ")


def test_choices_comparisons_and_calibrations_are_repeated(call: Callable, tmp_path: Path) -> None:
    commands = [
        ("compare", "gmm", "--methods", "em,cavi", "--set", "num_components=2"),
        ("choose", "gmm", "--set", "num_components=1,2", "--method", "em", "--folds", "2"),
        ("calibrate", "linear", "--method", "closed_form", "--simulations", "20", "--rows", "20"),
    ]
    for place, words in enumerate(commands):
        assert call(*words, "--out", tmp_path / str(place))[0] == 0
        assert call("rerun", tmp_path / str(place))[:2] == (0, "the run came out the same, bit for bit.\n")
    choice = tmp_path / "1" / "choice.json"
    record = json.loads(choice.read_text())
    record["values"][1]["elpd"] += 2.0
    choice.write_text(json.dumps(record))
    change(tmp_path / "1", results={"choice": "of another"})
    status, out, _ = call("rerun", tmp_path / "1")
    assert status == 1
    assert "largest difference is 2, in elpd at 2" in out


def test_a_model_of_ones_own_is_run_only_as_it_was(
    call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MODEL)
    Path("line.csv").write_text("t,y\n" + "".join(f"{i},{2 * i + i % 3}\n" for i in range(9)))
    assert (
        call("run", "mine.py:line", "--data", "line.csv", "--method", "laplace", "--steps", "50", "--out", "r")[0] == 0
    )
    monkeypatch.chdir("/")
    assert call("rerun", tmp_path / "r")[0] == 0
    assert Path.cwd() == Path("/")
    page = (tmp_path / "r" / "report.html").read_text()
    assert str(tmp_path) not in re.findall(r'<meta name="guidebook-run"[^>]*>', page)[0]
    (tmp_path / "r" / "mine.py").write_text(MODEL + "\n__import__('pathlib').Path('/tmp/ran').touch()\n")
    change(tmp_path / "r", directory=str(tmp_path / "r"))
    assert "brings its model along" in call("rerun", tmp_path / "r")[2]
    change(tmp_path / "r", directory=str(tmp_path))
    (tmp_path / "mine.py").write_text(MODEL + "# new\n")
    status, _, err = call("rerun", tmp_path / "r")
    assert (status, "has changed since" in err) == (2, True)


@pytest.mark.parametrize(
    "record",
    ["", "[]", "{}", '{"files": {}, "command": ["index", "x"]}', '{"files": {}, "command": "run"}', "[" * 10**5],
)
def test_what_names_no_run_is_refused(call: Callable, tmp_path: Path, record: str) -> None:
    (tmp_path / MANIFEST).write_text(record)
    (tmp_path / "page.html").write_text("<html>")
    for place in (tmp_path, tmp_path / "page.html", tmp_path / "none"):
        status, out, err = call("rerun", place)
        assert (status, out, err.count("\n")) == (2, "", 1)


def test_a_record_cannot_say_where_to_write(call: Callable, fitted: Path, tmp_path: Path) -> None:
    change(fitted, command=[*FIT, "--json", str(tmp_path / "x"), f"--out={tmp_path / 'y'}"])
    assert call("rerun", fitted)[0] == 0
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "y").exists()


def test_targets_are_left_out_of_the_words() -> None:
    words = ["run", "gmm", "--out", "a", "--seed", "1", "--json=b", "--json", "-", "--set", "x=--out"]
    assert without_targets(words) == ["run", "gmm", "--seed", "1", "--set", "x=--out"]
    assert without_targets(["run", "--out"]) == ["run"]


def test_data_are_known_by_bytes_shape_and_type() -> None:
    x = torch.arange(6.0)
    others = [x.view(2, 3), x.double(), x + 1, x.int()]
    found = [data_sha256((value,)) for value in [x, *others]] + [data_sha256((x, 1)), data_sha256((x, 2))]
    assert len({*found}) == 7
    assert data_sha256((x.view(2, 3).T.contiguous().T,)) == data_sha256((x.view(2, 3),))
    assert data_sha256((x.sum().expand(1, 1),)) == data_sha256((x.sum().reshape(1, 1),))
