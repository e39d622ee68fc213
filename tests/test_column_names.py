"""Quantities named by the data's own columns: in verdicts, tables, reports and pages of reports."""

from functools import partial
from pathlib import Path

import pytest
import torch
from test_catalog import KINDS, sites_of, small_task, traced
from test_cli import call  # noqa: F401 (a fixture)
from test_compare import by_nuts, by_svi, normal
from zoo import posteriors

from guidebook import datasets
from guidebook.catalog import coords_of
from guidebook.inference import compare
from guidebook.inference.quantities import check_coords, label, labels
from guidebook.models import factor_analysis, gmm, lda, linear, logistic, mixture, ppca
from guidebook.report import write_html
from guidebook.workflow.fit import load_task
from guidebook.workflow.output import comparison_json, read_reports


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_labels_name_the_last_dimensions() -> None:
    coords = {"w": [["bias", "age"]], "loc": [["age", "height"]], "sigma": [["age", "height"]] * 2}
    shapes = {"w": (2,), "loc": (3, 2), "sigma": (1, 2, 2), "tau": ()}
    assert label("w", (1,), coords) == "w[age]"
    assert label("loc", (2, 0), coords) == "loc[2,age]"
    assert label("sigma", (0, 1, 0), coords) == "sigma[0,height,age]"
    assert label("tau", (), coords) == "tau"
    assert label("w", (1,)) == "w[1]"
    assert labels(shapes, coords)[:3] == ["w[bias]", "w[age]", "loc[0,age]"]
    assert len(set(labels(shapes, coords))) == 2 + 6 + 4 + 1


def test_a_comparison_takes_names_everywhere_and_keeps_the_numbers() -> None:
    ref = by_nuts(w=normal(4, 1000, 3))
    narrow = normal(1, 5000, 3) * torch.tensor([1.0, 1.0, 0.3]).double()
    comparison = compare(ref, by_svi(w=narrow), coords={"w": [["bias", "age", "height"]], "elsewhere": [["a"]]})
    assert list(comparison.quantities["nuts"].index) == ["w[bias]", "w[age]", "w[height]"]
    assert comparison.worst("svi:mean_field") == comparison.table.loc["svi:mean_field", "worst"] == "w[height]"
    assert "at w[height] its sd is 0.3" in comparison.verdicts["svi:mean_field"].sentence
    assert comparison.numbered == {"w[bias]": "w[0]", "w[age]": "w[1]", "w[height]": "w[2]"}
    unnamed = compare(ref, by_svi(w=narrow))
    assert all(name == number for name, number in unnamed.numbered.items())


@pytest.mark.parametrize(
    ("coords", "words"),
    [
        ({"w": [["a", "b"]]}, "coords has 2 names for 'w', which has shape (3,)"),
        ({"w": [["a"], ["a", "b", "c"]]}, "coords has 1 × 3 names for 'w', which has shape (3,)"),
        ({"w": [["a", "b", "a"]]}, "coords gives the name 'a' to two entries of 'w'"),
    ],
)
def test_names_that_do_not_fit_are_refused(coords: dict, words: str) -> None:
    fit = by_nuts(w=normal(4, 100, 3))
    with pytest.raises(ValueError, match="compare: ") as error:
        compare(fit, fit, coords=coords)
    assert words in str(error.value)


def test_the_catalogue_knows_which_dimensions_are_columns() -> None:
    x, names = torch.rand(9, 3), ["a", "b", "c"]
    assert coords_of(logistic.model, x, names) == {"w": [["bias", "a", "b", "c"]]}
    assert coords_of(logistic.model, x, ["bias", "b", "c"]) == {"w": [["bias (0)", "bias (1)", "b", "c"]]}
    assert coords_of(linear.model, x, names) == {"w": [["bias", "a", "b", "c"]]}
    for covariance, dims in (("full", 2), ("tied", 2), ("diagonal", 1), ("isotropic", 0)):
        model = partial(gmm.model, num_components=3, covariance=covariance)
        assert coords_of(model, x, names) == {"loc": [names], "covariance": [names] * dims}
    assert coords_of(gmm.model, x, names)["covariance"] == [names] * 2
    assert coords_of(mixture.model, x, names)["probs"] == [names]
    assert coords_of(ppca.latent_model, x, names) == {"loc": [names], "covariance": [names] * 2, "variance": [names]}
    assert coords_of(factor_analysis.model, x, names)["noise_variance"] == [names]
    counts = torch.tensor([[0.0, 5, 1], [1, 4, 1]])
    assert coords_of(lda.model, counts, names) == {"topic_words": [["b", "c", "a"]]}
    for stranger in (None, lambda x: None):
        assert coords_of(stranger, x, names) == {}


@pytest.mark.parametrize(("name", "settings"), KINDS)
def test_every_models_quantities_are_named_by_its_columns(name: str, settings: list[str]) -> None:
    """Sites drawn from the model itself: every last dimension as long as the data's columns has their names."""
    task = small_task(name, settings=settings, used=("nuts",))
    nodes = traced(task).nodes
    draws = {site: nodes[site]["value"][None, None] for site in sites_of(traced(task))}
    if task.row.add_quantities:
        params = {site: node["value"] for site, node in nodes.items() if node["type"] == "param"}
        draws |= {site: value[None, None] for site, value in task.row.add_quantities(params).items()}
    shapes = {site: value.shape[2:] for site, value in task.identify(draws).items()}
    check_coords(task.coords, shapes)
    columns = len(task.data.columns)
    for site, shape in shapes.items():
        along_columns = [size for size in shape if size in (columns, columns + 1)]
        assert len(along_columns) <= len(task.coords.get(site, [])), f"{name}: {site} has no names: see coords"
    assert any(site in task.coords for site in shapes), f"{name}: coords names no quantity"


def test_a_task_has_the_names_of_its_data(tmp_path: Path) -> None:
    columns = datasets.load("breast_cancer").columns
    assert load_task("logistic").coords == {"w": [["bias", *columns]]}
    file = tmp_path / "mine.csv"
    file.write_text("age,height,ill\n" + "".join(f"{20 + i},{150 + i * i},{i % 2}\n" for i in range(12)))
    task = load_task("logistic", str(file), ["target=ill"])
    assert task.coords == {"w": [["bias", "age", "height"]]}
    assert load_task("lda", "three_documents").coords["topic_words"][0][0].startswith("word ")


def test_json_keeps_its_keys_and_says_the_names_beside_them(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("age,height,ill\n" + "".join(f"{20 + i},{150 + i * i},{i % 2}\n" for i in range(12)))
    task = load_task("logistic", str(file), ["target=ill"])
    fits = posteriors.by_nuts({"w": normal(4, 1000, 3)}), posteriors.by_svi({"w": 0.5 * normal(1, 1000, 3)})
    comparison = compare(*fits, identify=task.identify, coords=task.coords)
    record = comparison_json(task, comparison)
    method = record["methods"][1]
    assert list(method["quantities"]) == ["w[0]", "w[1]", "w[2]"]
    assert method["worst"]["quantity"] in method["quantities"]
    assert method["worst"]["label"] in ("w[bias]", "w[age]", "w[height]")
    assert method["worst"]["label"] in method["verdict"]

    import json

    (tmp_path / "comparison.json").write_text(json.dumps(record))
    write_html(comparison, tmp_path / "report.html", model=task.model, data=task.args, columns=task.data.columns)
    (report,) = read_reports([tmp_path], tmp_path)
    assert report["rows"][1]["worst"] == method["worst"]["label"]
    assert report["rows"][0]["worst"] is None
    del method["worst"]["label"]  # as earlier versions wrote it
    (tmp_path / "comparison.json").write_text(json.dumps(record))
    assert read_reports([tmp_path], tmp_path)[0]["rows"][1]["worst"] == method["worst"]["quantity"]
    page = (tmp_path / "report.html").read_text()
    assert "w[height]" in page
    assert "w[2]" not in page


def test_a_run_prints_the_names_of_columns(call, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "mine.csv"
    file.write_text("age,height\n" + "".join(f"{20 + i % 7},{150 + i * i % 11}\n" for i in range(40)))
    ran = call("run", "gmm", "--method", "em", "--data", file, "--set", "num_components=2")
    assert ran.status == 0, ran.err
    assert "loc[0,age]" in ran.out
    assert "covariance[1,height,age]" in ran.out
    assert "weights[1]" in ran.out
    ran = call("run", "linear", "--method", "em", "--data", file, "--set", "target=height")
    assert ran.status == 0, ran.err
    assert "w[bias]" in ran.out  # no mark-up
    assert "w[age]" in ran.out


def test_long_names_are_cut_in_the_titles_of_figures_only(tmp_path: Path) -> None:
    from guidebook.plots.style import short

    assert short("a" * 10, 10) == "a" * 10
    assert short("abcdefghijk", 10) == "abcde…hijk"
    fit = posteriors.by_nuts({"w": normal(4, 100, 2)})
    name = "the number of square metres of the plot of land"
    comparison = compare(fit, fit, names=["a", "b"], coords={"w": [["bias", name]]})
    page = write_html(comparison, tmp_path / "p.html").read_text()
    assert f"w[{name}]" in page
    assert short(f"w[{name}]", 44) in page
