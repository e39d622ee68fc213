"""The explorer: what is stored of comparisons, what is read again, and the page."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_error_picture import _compared, _fit
from torch import Tensor
from zoo.posteriors import by_em, by_nuts, by_svi

from guidebook.inference import compare
from guidebook.plots import marginals
from guidebook.report import marginal_curves, write_explorer
from guidebook.report.explorer import MOST_QUANTITIES
from guidebook.workflow.stored import read_stored

DOCS = Path(__file__).parents[1] / "docs"


def _record(name: str = "mine", **changed) -> dict:
    """What ``compare --json`` prints of a reference and a method whose mean is 0.3 sd and whose sd is 1.25² off."""
    off = {"mean_shift_in_sd": 0.3, "sd_ratio": 1.5625, "mcse_in_sd": 0.01}
    none = {"mean_shift_in_sd": 0.0, "sd_ratio": 1.0, "mcse_in_sd": 0.01}
    reference = {"name": "nuts", "seconds": 2.0, "judgement": "reference", "verdict": "nuts is the reference."}
    reference |= {"elbo": None, "k_hat": None, "worst": {"quantity": "w"} | none, "quantities": {"w": none, "v": none}}
    method = {"name": "svi", "seconds": 0.5, "judgement": "bad", "verdict": "svi is bad."}
    method |= {"elbo": -3.0, "k_hat": 0.2, "worst": {"quantity": "w"} | off, "quantities": {"v": none, "w": off}}
    methods = [reference, method]
    return {"model": name, "data": "x", "reference": "nuts", "headline": "svi is off.", "methods": methods} | changed


def _data(page: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def _normals(count: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"w": torch.randn(4, 1000, count).double()}


def test_curves_are_the_densities_and_points_are_where_they_are() -> None:
    draws = _normals()
    narrow = by_svi({"w": 0.5 * draws["w"].flatten(0, 1)[None]})
    point = by_em({"w": torch.tensor([[[0.1, 0.2, 0.3]]]).double()})
    comparison = compare(by_nuts(draws), narrow, point, names=["nuts", "svi", "em"])
    curves = {curve["quantity"]: curve for curve in marginal_curves(comparison)}
    assert set(curves) == {"w[0]", "w[1]", "w[2]"}
    found = curves["w[1]"]
    assert found["points"] == {"em": 0.2}
    assert max(found["curves"]["nuts"]) == 1000
    grid = np.linspace(found["low"], found["high"], len(found["curves"]["nuts"]))
    for name, sd in (("nuts", 1.0), ("svi", 0.5)):
        heights = np.array(found["curves"][name])
        mean = (grid * heights).sum() / heights.sum()
        assert mean == pytest.approx(0, abs=0.06)
        assert np.sqrt(((grid - mean) ** 2 * heights).sum() / heights.sum()) == pytest.approx(sd, rel=0.06)
    assert max(found["curves"]["svi"]) == pytest.approx(2000, rel=0.05)
    assert json.loads(json.dumps(list(curves.values()))) == list(curves.values())


def test_a_density_integrates_to_the_share_of_draws_that_it_stands_for() -> None:
    comparison = _compared({"svi": _fit(0.0, 1.0, 1.0)})
    label = next(iter(comparison.numbered))
    grid, found = marginals(comparison, label)
    for marginal in found.values():
        assert marginal.density is not None
        assert np.trapezoid(marginal.density, grid) == pytest.approx(1, abs=0.02)


def test_many_quantities_are_those_that_differ_most() -> None:
    draws = _normals(MOST_QUANTITIES + 5)
    moved = draws["w"].flatten(0, 1)[None].clone()
    moved[..., -1] += 1.0
    curves = marginal_curves(compare(by_nuts(draws), by_svi({"w": moved})))
    assert len(curves) == MOST_QUANTITIES
    assert curves[0]["quantity"] == f"w[{MOST_QUANTITIES + 4}]"


def test_the_page_has_errors_as_the_picture_and_takes_records_without_curves(tmp_path: Path) -> None:
    page = write_explorer([_record(), _record(), _record("other")], tmp_path / "e.html")
    found = _data(page)
    assert list(found["entries"]) == ["mine on x", "mine on x (2)", "other on x"]
    entry = found["entries"]["mine on x"]
    assert [quantity["quantity"] for quantity in entry["quantities"]] == ["w", "v"]
    reference, method = entry["methods"]
    assert reference["error"] is None
    assert method["error"] == pytest.approx(0.5)  # an sd off by 25 % twice over
    assert method["shifts"] == [0.3, 0.0]
    assert method["ratios"] == [1.5625, 1.0]
    unjudged = _record()
    unjudged["methods"][1]["judgement"] = "not judged"
    assert _data(write_explorer([unjudged], page))["entries"]["mine on x"]["methods"][1]["error"] is None


def test_names_cannot_end_the_script_and_nothing_is_fetched(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    text = (page := write_explorer([_record(name)], tmp_path / "e.html")).read_text()
    assert list(_data(page)["entries"]) == [f"{name} on x"]
    assert "alert(1)</script>" not in text
    assert not re.search(r"(?:src|href)=|@import|url\(|innerHTML|fetch\(", text)


def test_a_fit_adds_its_ladder(tmp_path: Path) -> None:
    rung = {"method": "dadvi", "seconds": 1.0, "judgement": "good", "error": 0.03, "sentence": "dadvi is good."}
    fit = {"model": "mine", "data": "x", "chosen": "dadvi", "sentence": "dadvi is good.", "rungs": [rung]}
    found = _data(write_explorer([_record()], tmp_path / "e.html", ladders=[fit, fit | {"model": "alone"}]))
    assert found["entries"]["mine on x"]["ladder"]["rungs"] == [rung]
    assert found["entries"]["alone on x"]["methods"] == []


def test_two_ladders_of_one_model_are_both_shown(tmp_path: Path) -> None:
    rung = {"method": "dadvi", "seconds": 1.0, "judgement": "good", "error": 0.03, "sentence": "dadvi is good."}
    fits = [{"model": "mine", "data": "x", "chosen": "dadvi", "sentence": f"fit {k}", "rungs": [rung]} for k in (1, 2)]
    found = _data(write_explorer([_record()], tmp_path / "e.html", ladders=fits))["entries"]
    assert {title: entry["ladder"]["sentence"] for title, entry in found.items()} == {
        "mine on x": "fit 1",
        "mine on x (2)": "fit 2",
    }


@pytest.mark.parametrize(("quantity", "method"), [("w", "svi"), ("gone", "svi"), ("w", "gone")])
def test_curves_of_an_earlier_comparison_are_left_out(tmp_path: Path, quantity: str, method: str) -> None:
    """Of a quantity or a method that the comparison has not: then as without curves."""
    curve = {"quantity": quantity, "label": quantity, "low": 0.0, "high": 1.0}
    curve |= {"curves": {"nuts": [1] * 81, method: [2] * 81}, "points": {}}
    found = _data(write_explorer([_record(marginals=[curve])], tmp_path / "e.html"))["entries"]["mine on x"]
    if (quantity, method) == ("w", "svi"):
        assert found["quantities"] == [curve]
    else:
        assert found["quantities"] == [{"quantity": "w", "label": "w"}, {"quantity": "v", "label": "v"}]


def test_folders_folders_of_folders_and_files_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "all" / "a"
    folder.mkdir(parents=True)
    (folder / "comparison.json").write_text(json.dumps(_record()))
    (folder / "marginals.json").write_text("[]")
    (tmp_path / "all" / "b").mkdir()
    (tmp_path / "all" / "b" / "result.json").write_text(json.dumps({"model": "gmm", "method": "em"}))  # by run
    (tmp_path / "one.json").write_text(json.dumps(_record("one")))
    found = read_stored([tmp_path / "all", folder, tmp_path / "one.json"])
    assert [record["model"] for record in found.comparisons] == ["mine", "mine", "one"]
    assert ["marginals" in record for record in found.comparisons] == [True, True, False]
    assert found.fits == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "holds no comparison: make one with guidebook compare --out"),
        ("{", "is no JSON"),
        ("[1]", "is neither a comparison nor a fit"),
        (json.dumps(_record(methods=[{"name": "a"}])), "is neither a comparison nor a fit"),
    ],
)
def test_a_mistake_gets_one_sentence(call: Callable, tmp_path: Path, content: str | None, sentence: str) -> None:
    place = tmp_path / "x.json" if content else tmp_path
    if content:
        place.write_text(content)
    status, out, err = call("explore", place, "--out", tmp_path / "e.html")
    assert (status, out) == (2, "")
    assert err.startswith("guidebook: explore: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert not (tmp_path / "e.html").exists()
    assert "no such file or folder" in call("explore", tmp_path / "none", "--out", tmp_path / "e.html")[2]


def test_the_command_writes_the_stored_comparisons(call: Callable, tmp_path: Path) -> None:
    page = tmp_path / "e.html"
    assert call("explore", DOCS / "compared", "--out", page) == (0, f"{page}\n", "")
    assert page.stat().st_size < 1_000_000
    assert "logistic on breast_cancer" in _data(page)["entries"]


def test_a_reference_alone_is_what_is_shown(tmp_path: Path) -> None:
    """The script picks a method to begin with: where there is no other, the reference."""
    page = write_explorer([_record(methods=_record()["methods"][:1])], tmp_path / "e.html")
    assert [method["name"] for method in _data(page)["entries"]["mine on x"]["methods"]] == ["nuts"]
    assert "|| entry.methods[0];" in page.read_text()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_can_be_read(tmp_path: Path) -> None:
    text = write_explorer([_record()], tmp_path / "e.html").read_text()
    (tmp_path / "e.js").write_text(re.findall(r"<script>(.*?)</script>", text, re.DOTALL)[0])
    subprocess.run(["node", "--check", tmp_path / "e.js"], check=True)
