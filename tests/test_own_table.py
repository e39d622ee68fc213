"""Tables for a user's own model: decimal commas, gaps, identifiers and categories, from the file to predictions."""

import json
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from guidebook.datasets import Selection
from guidebook.workflow.own.data import read_arguments

SOURCE = """
import pyro
import pyro.distributions as dist


def line(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 5.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((x * w[..., None, :]).sum(-1), 0.7), obs=y)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path


def _frame(count: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, count)).round(2)
    frame = pd.DataFrame({"name": [f"N{k}" for k in range(count)], "a": a, "b": b})
    frame["y"] = (1.5 * a - b + 0.7 * rng.normal(size=count)).round(2)
    return frame


def _german(frame: pd.DataFrame) -> str:
    return "\ufeff" + frame.to_csv(index=False, sep=";", decimal=",", na_rep="")


def test_decimal_commas_gaps_and_identifiers(call, here: Path) -> None:
    """A German table with gaps is fitted and predicted as an English one without these rows is."""
    frame, new = _frame(30, 0), _frame(4, 1).drop(columns="y")
    frame.loc[3, "a"], frame.loc[[3, 7], "y"], frame.loc[9, "name"], new.loc[1, "b"] = np.nan, np.nan, np.nan, np.nan
    (here / "de.csv").write_text(_german(frame), encoding="utf-8")
    (here / "new_de.csv").write_text(_german(new), encoding="utf-8")
    frame.dropna(subset=["a", "b", "y"]).to_csv("en.csv", index=False)
    new.dropna().to_csv("new_en.csv", index=False)
    status, _, err = call("run", "mine.py:line", "--data", "de.csv", "--method", "dadvi", "--id", "name")
    assert (status, err.count("\n")) == (2, 1)
    assert "de.csv: line 5, column 'a': the value is missing (2 rows have gaps): --missing drop leaves such" in err
    tables = {}
    for language in ("de", "en"):
        words = ("--method", "dadvi", "--id", "name", "--missing", "drop", "--out", language)
        status, out, err = call("run", "mine.py:line", "--data", f"{language}.csv", *words)
        assert status == 0, err
        assert ("2 rows with gaps are left out" in out) == (language == "de")
        status, out, err = call("predict", language, "--data", f"new_{language}.csv")
        assert status == 0, err
        tables[language] = pd.read_csv(f"{language}/rows.csv"), pd.read_csv(StringIO(out))
    assert tables["de"][0]["row"].tolist() == [k for k in range(30) if k not in (3, 7)]
    assert tables["de"][1]["row"].tolist() == [0, 2, 3]
    assert tables["de"][1]["name"].tolist() == ["N0", "N2", "N3"]
    for german, english in zip(tables["de"], tables["en"], strict=True):
        pd.testing.assert_frame_equal(german.drop(columns="row"), english.drop(columns="row"))
    assert json.loads(Path("de/result.json").read_text())["reading"] == "2 rows with gaps are left out"


def test_columns_are_chosen_dropped_and_taken_as_categories(here: Path) -> None:
    (here / "all.csv").write_text("id;u;v;kind;y\n7;1,5;4;10;0\n8;2;5;9;1\n9;?;6;10;NA\n")
    asked = Selection(id=("id",), drop=("v",), categories=("kind",), missing="drop")
    found = read_arguments("all.csv", ["x", "kind", "y"], selection=asked)
    assert torch.equal(found.values["x"], torch.tensor([[1.5], [2.0]], dtype=torch.float64))
    assert torch.equal(found.values["kind"], torch.tensor([1, 0]))  # numbers by size: 9 before 10
    assert found.values["y"].dtype == torch.int64
    assert found.names == {"x": ("u",), "kind": ("9", "10")}
    assert (dict(found.ids), list(found.rows), found.left_out, found.unused) == ({"id": ["7", "8"]}, [0, 1], 1, ())
    named = read_arguments("all.csv", ["x", "kind"], selection=Selection(columns=("v", "id")))
    assert named.names["x"] == ("v", "id")
    assert named.unused == ("u", "y")


@pytest.mark.parametrize(
    ("text", "selection", "sentence"),
    [
        ("t,y\n1,2\n?,3\n", Selection(), "line 3, column 't': '?' stands for a missing value (1 row has gaps)"),
        ("t,y\n,2\n,3\n", Selection(missing="drop"), "every row has a gap in a column that the model takes"),
        ("t;y\n1,5;2\n2.5;3\n", Selection(), "'2.5' has a point, and '1,5' in line 2 a decimal comma"),
        ('t,y\n"1,5",2\n"2,5",3\n', Selection(), "column 't': '1,5' looks like a number with a separator or a unit"),
        ("t,y\n2024-01-02,2\n2024-01-03,3\n", Selection(), "column 't' holds dates: give numbers instead"),
        ("t,y\n1,2\ninf,3\n", Selection(), "column 't', line 3: 'inf' is infinite"),
        ("t,y\n1,2\n2a,3\n", Selection(), "'2a' is not a number, as others are; --categories t takes categories"),
        ("t,y\n1,2\n3,3\n", Selection(id=("name",)), "no column 'name': columns are t, y"),
        ("t,y,u\n1,2,3\n3,3,4\n", Selection(categories=("u",)), "column 'u' is to be a category, and is no argument"),
        ("t,y\n1,2\n3,3\n", Selection(columns=("t",)), "columns are chosen for an argument x, and the model has none"),
    ],
)
def test_what_a_column_holds_is_read_or_refused_by_name(
    here: Path, text: str, selection: Selection, sentence: str
) -> None:
    (here / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_arguments("t.csv", ["t", "y"], selection=selection)


def test_an_identifier_is_no_column_of_the_matrix_unasked(here: Path) -> None:
    rows = "\n".join(f"{100 + k},{k % 7}.5" for k in range(30))
    (here / "t.csv").write_text(f"customer_id,a\n{rows}\n")
    with pytest.raises(ValueError, match="column 'customer_id' looks like an identifier: --id customer_id keeps it"):
        read_arguments("t.csv", ["x"])
    assert read_arguments("t.csv", ["x"], selection=Selection(id=("customer_id",))).names == {"x": ("a",)}


def test_a_column_with_a_name_without_end_is_refused_in_a_short_sentence(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{'a' * 5000},y\n1.5,2\n2.5x,3\n")
    with pytest.raises(ValueError, match=r"as others are; --categories 'a{59}…' takes categories$") as found:
        read_arguments(str(tmp_path / "t.csv"), ["x", "y"])
    assert len(str(found.value)) < 1000
