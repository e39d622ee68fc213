"""Data by name and from files: round trips are exact, and each kind of bad input gets one sentence that says where."""

import csv
import io
import math
import os
import re
import zipfile
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import sklearn.preprocessing
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from guidebook import datasets

X = np.array([[0.1, -2.0, 3e-300], [4.0, 5.5, -6e300], [1 / 3, 0.0, 7.0], [2.0, 8.0, math.pi]])
ROWS = "".join(",".join(map(repr, row)) + "\n" for row in X.tolist())


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def save(folder, name, *values, **arrays):
    """A .npy of the one array, or a .npz of the named ones."""
    path = str(folder / name)
    if arrays:
        np.savez(path, **arrays)
    else:
        np.save(path, *values)
    return path


def refusal(kind, source, **options):
    """The one line of the error that loading raises."""
    with pytest.raises(kind) as caught:
        datasets.load(source, **options)
    assert caught.type.__module__ == "builtins"
    message = str(caught.value)
    assert message
    assert message.isprintable()
    return message


def assert_says(message, *parts):
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"


# Bundled data.


@pytest.mark.parametrize("name", ["breast_cancer", "digits", "iris", "wine"])
def test_bundled_features_are_those_of_scikit_learn(name):
    bunch = getattr(sklearn.datasets, f"load_{name}")()
    data = datasets.load(name)
    assert data.name == name
    assert data.x.dtype == torch.float64
    assert np.array_equal(data.x.numpy(), bunch.data)
    assert data.columns == tuple(bunch.feature_names)
    assert all(type(column) is str for column in data.columns)
    assert (data.y, data.classes, data.standardized) == (None, None, False)


def test_breast_cancer_has_the_labels_of_scikit_learn():
    data = datasets.load("breast_cancer", supervised=True)
    bunch: Any = load_breast_cancer()
    assert data.y is not None
    assert data.y.dtype == torch.float64
    assert np.array_equal(data.y.numpy(), bunch.target)
    assert data.classes == ("malignant", "benign")
    assert np.array_equal(data.x.numpy(), bunch.data)


@pytest.mark.parametrize(("name", "classes"), [("iris", "setosa, versicolor, virginica"), ("wine", "class_0")])
def test_three_classes_are_too_many(name, classes):
    message = refusal(ValueError, name, supervised=True)
    assert_says(message, f"{name}: the target has 3 classes ({classes}", "logistic regression needs two")


def test_a_target_of_numbers_is_returned_as_it_is(tmp_path):
    data = datasets.load("diabetes", supervised=True, continuous=True, standardize=True)
    bunch: Any = sklearn.datasets.load_diabetes(scaled=False)
    assert data.y is not None
    assert data.y.dtype == torch.float64
    assert np.array_equal(data.y.numpy(), bunch.target)
    assert (data.classes, data.columns) == (None, tuple(bunch.feature_names))
    np.testing.assert_allclose(data.x.numpy(), sklearn.preprocessing.scale(bunch.data), atol=1e-12)
    message = refusal(ValueError, "diabetes", supervised=True)
    assert_says(message, "214 classes", "logistic regression needs two; linear regression takes a target of numbers")
    file = tmp_path / "mine.csv"
    file.write_text("a,price\n1,2.5\n2,-1e3\n3,7\n")
    data = datasets.load(str(file), target="price", supervised=True, continuous=True)
    assert data.y is not None
    assert data.y.tolist() == [2.5, -1000.0, 7.0]
    file.write_text("a,price\n1,2.5\n2,cheap\n3,7\n")
    message = refusal(ValueError, str(file), target="price", supervised=True, continuous=True)
    assert_says(message, "the target 'price' is 'cheap' in row 1, linear regression needs a number")


def test_bundled_data_take_no_target():
    assert_says(refusal(ValueError, "breast_cancer", target="y"), "breast_cancer", "target", "files")


@pytest.mark.parametrize("standardize", [False, True])
def test_loading_twice_gives_data_of_its_own(standardize):
    first = datasets.load("iris", standardize=standardize)
    expected = first.x.clone()
    first.x.zero_()
    assert torch.equal(datasets.load("iris", standardize=standardize).x, expected)


# Finding the source.


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (
            "irsi",
            [
                "unknown data set 'irsi': did you mean iris?",
                ", ".join(datasets.names()),
                ".csv, .npy, .npz or .mtx",
            ],
        ),
        ("Wine", ["unknown data set 'Wine': did you mean wine?"]),
        ("breast-cancer", ["did you mean breast_cancer?"]),
        (
            "housing",
            [f"unknown data set 'housing': bundled are {', '.join(datasets.names())}"],
        ),
        ("", ["unknown data set ''"]),
        ("a\nb", [r"unknown data set 'a\nb'"]),
    ],
)
def test_unknown_name(source, parts):
    message = refusal(ValueError, source)
    assert_says(message, *parts)
    assert ("did you mean" in message) == ("did you mean" in parts[0])


@pytest.mark.parametrize("source", ["irsi.csv", "no/such", "data.xlsx", "no/such/file.npz", "pyproject.toml/x.csv"])
def test_missing_file(source):
    assert refusal(FileNotFoundError, source) == f"no such file: {source}"


def test_folder(tmp_path):
    (tmp_path / "data.csv").mkdir()
    assert_says(refusal(ValueError, str(tmp_path / "data.csv")), str(tmp_path / "data.csv"), "folder", ".npz")


@pytest.mark.parametrize(
    ("name", "part"), [("data.txt", ".txt"), ("data.csv.gz", ".gz"), ("data", "without an ending")]
)
def test_unknown_ending(tmp_path, name, part):
    path = write(tmp_path, name, ROWS)
    assert_says(refusal(ValueError, path), path, part, ".csv, .npy, .npz or .mtx")


def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    assert_says(refusal(ValueError, str(tmp_path / "pipe.csv")), "pipe.csv", "not a regular file")


@pytest.mark.parametrize("name", ["a.csv", "a.npy", "a.npz"])
def test_unreadable_file(tmp_path, monkeypatch, name):
    path = write(tmp_path, name, ROWS)

    def refuse(*_):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", refuse)  # chmod does not stop root
    with pytest.raises(PermissionError) as caught:
        datasets.load(path)
    assert str(caught.value) == f"{path}: cannot be read: Permission denied"


def test_path_too_long():
    assert_says(refusal(OSError, "a" * 5000 + ".csv"), "cannot be read")


# CSV: round trips.


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (ROWS, ("x0", "x1", "x2")),
        ("a,b,c d\n" + ROWS, ("a", "b", "c d")),
        ("a,b,c\n" + ROWS + "\n", ("a", "b", "c")),
        ("a,b,c\n" + ROWS + "\n \n\n", ("a", "b", "c")),
        ("a,b,c\n" + ROWS.rstrip("\n"), ("a", "b", "c")),
        (b"\xef\xbb\xbf" + ROWS.encode(), ("x0", "x1", "x2")),
        (b"\xef\xbb\xbfa,b,c\n" + ROWS.encode(), ("a", "b", "c")),
        (("a,b,c\n" + ROWS).replace("\n", "\r\n"), ("a", "b", "c")),
        (("a,b,c\n" + ROWS).replace("\n", "\r"), ("a", "b", "c")),
        (("a,b,c\n" + ROWS).replace(",", ";"), ("a", "b", "c")),
        (ROWS.replace(",", ";"), ("x0", "x1", "x2")),
        (("a,b,c\n" + ROWS).replace(",", "\t"), ("a", "b", "c")),
        (("a,b,c\n" + ROWS).replace(",", " , "), ("a", "b", "c")),
        ('"a","b, ""B""","c\nc"\n' + ROWS, ("a", 'b, "B"', "c c")),
        ('"a;b","c;d","e;f"\n' + ROWS, ("a;b", "c;d", "e;f")),
        ("a,b,c\n" + re.sub(r"[^,\n]+", r'"\g<0>"', ROWS), ("a", "b", "c")),
        ("längd,β,花\n" + ROWS, ("längd", "β", "花")),
    ],
    ids=[
        "no header", "header", "trailing line", "trailing lines", "no last newline", "BOM", "BOM and header", "CRLF",
        "CR", "semicolon", "semicolon, no header", "tab", "spaces", "quoted names", "quoted semicolons",
        "quoted numbers", "UTF-8",
    ],
)  # fmt: skip
def test_csv_equals_the_array(tmp_path, content, columns):
    path = write(tmp_path, "data.csv", content)
    data = datasets.load(path)
    assert data.name == path
    assert data.columns == columns
    assert data.x.dtype == torch.float64
    assert np.array_equal(data.x.numpy(), X)
    assert (data.y, data.classes, data.standardized) == (None, None, False)


def test_csv_of_one_column(tmp_path):
    data = datasets.load(write(tmp_path, "DATA.CSV", "height\n1.5\n2.5\n"))
    assert data.columns == ("height",)
    assert data.x.tolist() == [[1.5], [2.5]]


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(finite, min_size=width, max_size=width), min_size=2)
    ),
    header=st.booleans(),
    delimiter=st.sampled_from(",;\t"),
    ending=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
@settings(database=None, deadline=None, max_examples=60)
def test_any_finite_floats_come_back(tmp_path_factory, rows, header, delimiter, ending, quoting):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=ending, quoting=quoting)
    writer.writerows([[f"name {index}" for index in range(len(rows[0]))]] * header + rows)
    data = datasets.load(write(tmp_path_factory.getbasetemp(), "any.csv", stream.getvalue()))
    assert data.x.tolist() == rows
    assert data.columns[0] == ("name 0" if header else "x0")


# CSV: labels.

LABELLED = "a,kind,b\n1,yes,2\n3,no,4\n5,yes,7\n"


@pytest.mark.parametrize("target", ["kind", "1", "-2", " kind "])
def test_csv_labels(tmp_path, target):
    path = write(tmp_path, "data.csv", LABELLED)
    data = datasets.load(path, target=target, supervised=True)
    assert data.y is not None
    assert data.y.dtype == torch.float64
    assert data.y.tolist() == [1.0, 0.0, 1.0]
    assert data.classes == ("no", "yes")
    assert data.columns == ("a", "b")
    assert data.x.tolist() == [[1, 2], [3, 4], [5, 7]]
    unsupervised = datasets.load(path, target=target)
    assert torch.equal(unsupervised.x, data.x)
    assert unsupervised.columns == data.columns
    assert (unsupervised.y, unsupervised.classes) == (None, None)


@pytest.mark.parametrize(
    ("labels", "y", "classes"),
    [
        (["10", "9", "9.0"], [1, 0, 0], ("9", "10")),
        (["-0.5", "0.25", "-0.5"], [0, 1, 0], ("-0.5", "0.25")),
        (["10", "9", "b"], None, None),
        ([" b", "a", "b "], [1, 0, 1], ("a", "b")),
        (["True", "False", "True"], [1, 0, 1], ("False", "True")),
        (["10", "9x", "10"], [0, 1, 0], ("10", "9x")),
    ],
)
def test_classes_are_in_order_of_value_or_alphabet(tmp_path, labels, y, classes):
    content = "u,v\n" + "".join(f"{label},{index}\n" for index, label in enumerate(labels))
    path = write(tmp_path, "data.csv", content)
    if y is None:
        message = refusal(ValueError, path, target="u", supervised=True)
        assert_says(message, "the target 'u' has 3 classes (10, 9, b)")
    else:
        data = datasets.load(path, target="u", supervised=True)
        assert data.y is not None
        assert data.y.tolist() == y
        assert data.classes == classes


@pytest.mark.parametrize(
    ("content", "target"),
    [("5.1,3.5,no\n4.9,3,yes\n", "-1"), ("5.1,no,3.5\n4.9,yes,3\n", "x1"), ("5.1,3.5,0\n4.9,3,1\n", "2")],
)
def test_labels_of_a_file_without_header(tmp_path, content, target):
    path = write(tmp_path, "data.csv", content)
    data = datasets.load(path, target=target, supervised=True)
    assert data.y is not None
    assert data.y.tolist() == [0, 1]
    assert data.x.tolist() == [[5.1, 3.5], [4.9, 3.0]]
    assert data.columns == (("x0", "x2") if target == "x1" else ("x0", "x1"))
    assert torch.equal(datasets.load(path, target=target).x, data.x)


def test_names_may_be_numbers_where_the_target_is_named(tmp_path):
    data = datasets.load(write(tmp_path, "data.csv", "1990,1991,kind\n1,2,a\n3,4,b\n"), target="kind")
    assert data.columns == ("1990", "1991")
    assert data.x.tolist() == [[1, 2], [3, 4]]


def test_ignored_target_may_hold_anything(tmp_path):
    data = datasets.load(write(tmp_path, "data.csv", "a,b\n1,\n2,nan\n3,x\n"), target="b")
    assert data.x.tolist() == [[1], [2], [3]]


@pytest.mark.parametrize(
    ("content", "options", "parts"),
    [
        (LABELLED, {"supervised": True}, ["which column holds the labels", "--target NAME", "a, kind, b"]),
        (LABELLED, {"target": "kin"}, ["no column 'kin'", "did you mean kind?", "a, kind, b"]),
        (LABELLED, {"target": "3"}, ["no column '3'", "a, kind, b"]),
        (LABELLED, {"target": "-4"}, ["no column '-4'", "a, kind, b"]),
        (LABELLED, {"target": "9" * 5000}, ["no column '999", "a, kind, b"]),
        (LABELLED, {"target": ""}, ["no column ''"]),
        ("a,b\n1,x\n2,x\n", {"target": "b", "supervised": True}, ["the target 'b' has 1 class (x)", "needs two"]),
        ("a,b\n1,x\n2,\n", {"target": "b", "supervised": True}, ["line 3", "column 'b'", "missing"]),
        ("a,b\n1,0\n2,nan\n", {"target": "b", "supervised": True}, ["line 3", "column 'b'", "NaN"]),
        ("a,b\n1,0\n2,inf\n", {"target": "b", "supervised": True}, ["line 3", "column 'b'", "infinite"]),
        ("a\n0\n1\n", {"target": "a", "supervised": True}, ["no column is left"]),
        ("a\n0\n1\n", {"target": "0"}, ["no column is left"]),
        ("a,b\n1," + "z" * 9000 + "\n2,y\n3,x\n", {"target": "b", "supervised": True}, ["3 classes (x, y, zzz", "…)"]),
        ("a,b\n1,0\n", {"target": "b", "supervised": True}, ["one row", "two"]),
        (
            "a,b\n" + "".join(f"{k * k},{k}\n" for k in range(50)),
            {"target": "b", "supervised": True},
            ["the target 'b' has 50 classes (0, 1, 2, 3, 4, …)"],
        ),
    ],
)
def test_csv_target_refused(tmp_path, content, options, parts):
    path = write(tmp_path, "data.csv", content)
    message = refusal(ValueError, path, **options)
    assert_says(message, path, *parts)
    assert len(message) < len(path) + 200


# CSV: refusals.

HEAD = "one,two\n1,2\n3,4\n5,6\n7,8\n9,10\n"  # six lines


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["empty"]),
        ("\n\n", ["empty"]),
        (b"\xef\xbb\xbf", ["empty"]),
        ("one,two\n", ["header (one, two)", "no row"]),
        ("one,two\n\n", ["header (one, two)", "no row"]),
        ("one,two\n1,2\n", ["one row", "two"]),
        ("1,2\n", ["one row", "two"]),
        (HEAD + "1\n", ["line 7", "1 of 2 cells", "column 'two'"]),
        (HEAD + "1,2,3\n", ["line 7", "3 cells, not 2", "column, 'two'"]),
        (HEAD + "1,2\n\n3,4\n", ["line 8", "blank"]),
        ("\n" + HEAD, ["line 1", "blank"]),
        (HEAD + "1,abc\n", ["line 7", "column 'two'", "'abc' is not a number"]),
        (HEAD + '"4\n2",5\n1,abc\n', ["line 7", "column 'one'", r"'4\n2' is not a number"]),
        ('one,"two\n2"\n1,2\n3,abc\n', ["line 4", "column 'two 2'", "'abc'"]),
        (HEAD + "1," + "z" * 9000 + "\n", ["line 7", "column 'two'", "zzz…' is not a number"]),
        (HEAD + "1_000,2\n", ["line 7", "column 'one'", "'1_000' is not a number"]),
        (HEAD + "0x10,2\n", ["line 7", "column 'one'", "'0x10' is not a number"]),
        (HEAD + "NA,2\n", ["line 7", "column 'one'", "'NA' stands for a missing value (1 row has gaps)"]),
        (HEAD + "1,\n", ["line 7", "column 'two'", "missing"]),
        (HEAD + " ,2\n", ["line 7", "column 'one'", "missing"]),
        (HEAD + ",\n", ["line 7", "column 'one'", "missing"]),
        (HEAD + "1,nan\n", ["line 7", "column 'two'", "'nan' stands for a missing value"]),
        (HEAD + "1,-inf\n", ["line 7", "column 'two'", "'-inf' is infinite"]),
        (HEAD + "1e400,1\n", ["line 7", "column 'one'", "'1e400' is infinite"]),
        ((HEAD + "1,abc\n").replace("\n", "\r\n"), ["line 7", "column 'two'", "'abc'"]),
        ("1,2\n3,4\n5,\n", ["line 3", "column 'x1'", "missing"]),
        ("1,,3\n4,5,6\n", ["line 1", "column 'x1'", "missing"]),
        ("nan,2\n3,4\n", ["line 1", "column 'x0'", "'nan' stands for a missing value"]),
        ("1,abc,3\n4,5,6\n", ["line 1", "column 'x1'", "'abc'", "not a number", "--target INDEX"]),
        ("one,two,one\n1,2,3\n4,5,6\n", ["line 1", "two columns", "'one'"]),
        ("one, one\n1,2\n4,5\n", ["line 1", "two columns", "'one'"]),
        ("one,,three\n1,2,3\n4,5,6\n", ["line 1", "column 2 of 3 has no name"]),
        ("one;two\n1,5;2\n2.5;3\n", ["line 3", "column 'one'", "'2.5' has a point", "'1,5' in line 2 a decimal comma"]),
        ("one;two\n1,5;2\n2,5,0;3\n", ["line 3", "column 'one'", "'2,5,0' is not a number"]),
        (HEAD.encode() + b"1,\xe9\n", ["line 7", "UTF-8", "0xe9"]),
        (HEAD.encode("utf-16"), ["line 1", "UTF-16", "save it as UTF-8"]),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", ["line 1", "not UTF-8"]),
        (HEAD + '1,"2\n3,4\n', ["line 7", "not well-formed"]),
        (HEAD + '1,"2"3\n', ["line 7", "not well-formed"]),
        (HEAD + "\x00,2\n", ["line 7", "column 'one'", r"'\x00' is not a number"]),
        (HEAD + "1," + "2" * 200_000 + "\n", ["line 7", "field limit"]),
    ],
)
def test_csv_refused(tmp_path, content, parts):
    path = write(tmp_path, "data.csv", content)
    message = refusal(ValueError, path)
    assert_says(message, path + ": ", *parts)
    assert len(message) < len(path) + 250


def test_the_first_flaw_is_the_one_named(tmp_path):
    path = write(tmp_path, "data.csv", HEAD + "1,inf\nabc,2\n3,\n")
    assert_says(refusal(ValueError, path), "line 7", "column 'two'", "infinite")
    path = write(tmp_path, "data.csv", HEAD + "1,inf\nabc,2\n3,\n1\n")  # the shape of the table comes before cells
    assert_says(refusal(ValueError, path), "line 10", "1 of 2 cells")


# Arrays.


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "f4", "f2", "g", "i8", "u1", "?"])
def test_npy_equals_the_array(tmp_path, dtype, order):
    values = np.array([[0, 1, 1], [1, 0, 0]], dtype=dtype, order=order)
    path = save(tmp_path, "data.npy", values)
    data = datasets.load(path)
    assert data.x.dtype == torch.float64
    assert data.x.is_contiguous()
    assert np.array_equal(data.x.numpy(), values)
    assert (data.name, data.columns, data.y, data.classes) == (path, ("x0", "x1", "x2"), None, None)


@pytest.mark.parametrize("target", ["1", "-2", "x1"])
def test_npy_labels(tmp_path, target):
    path = save(tmp_path, "data.npy", np.array([[1.5, 7, 2], [2.5, 3, 4]]))
    data = datasets.load(path, target=target, supervised=True)
    assert data.y is not None
    assert data.y.tolist() == [1, 0]
    assert data.classes == ("3", "7")
    assert data.columns == ("x0", "x2")
    assert data.x.tolist() == [[1.5, 2], [2.5, 4]]
    unsupervised = datasets.load(path, target=target)
    assert torch.equal(unsupervised.x, data.x)
    assert unsupervised.y is None


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (np.array([1, 0, 0, 1]), ("0", "1")),
        (np.array([2.5, -1, -1, 2.5]), ("-1", "2.5")),
        (np.array([True, False, False, True]), ("False", "True")),
        (np.array(["b", "a", "a", "b"]), ("a", "b")),
    ],
)
@pytest.mark.parametrize("key", ["y", "kind"])
def test_npz_labels(tmp_path, key, y, classes):
    path = save(tmp_path, "data.npz", x=X, **{key: y})
    target = None if key == "y" else key
    data = datasets.load(path, target=target, supervised=True)
    assert data.y is not None
    assert data.y.tolist() == [1, 0, 0, 1]
    assert data.classes == classes
    assert np.array_equal(data.x.numpy(), X)
    unsupervised = datasets.load(path, target=target)
    assert np.array_equal(unsupervised.x.numpy(), X)
    assert unsupervised.y is None


@pytest.mark.parametrize(
    "arrays",
    [{"x": X}, {"values": X}, {"x": X, "other": X + 1}, {"values": X, "weights": np.ones(4)}, {"values": X, "y": X}],
)
def test_npz_matrix(tmp_path, arrays):
    assert np.array_equal(datasets.load(save(tmp_path, "data.npz", **arrays)).x.numpy(), X)


def test_npz_labels_never_reach_x(tmp_path):
    path = save(tmp_path, "data.npz", values=X, y=X + 1, kind=np.array([0, 1, 1, 0]))
    for target in (None, "kind"):
        assert np.array_equal(datasets.load(path, target=target).x.numpy(), X)


def test_npz_target_may_be_a_column(tmp_path):
    path = save(tmp_path, "data.npz", x=np.array([[1.0, 0], [2, 1]]))
    data = datasets.load(path, target="-1", supervised=True)
    assert data.x.tolist() == [[1], [2]]
    assert data.y is not None
    assert data.y.tolist() == [0, 1]


def test_ignored_column_may_hold_nan(tmp_path):
    path = save(tmp_path, "data.npy", np.array([[1, np.nan], [2, 0]]))
    assert datasets.load(path, target="1").x.tolist() == [[1], [2]]


def holding(value, row, column):
    values = np.ones((5, 3))
    values[row, column] = value
    return values


@pytest.mark.parametrize(
    ("values", "options", "parts"),
    [
        (np.ones(4), {}, ["(4,)", "(rows, columns)"]),
        (np.float64(1), {}, ["()", "(rows, columns)"]),
        (np.ones((2, 3, 4, 5)), {}, ["(2, 3, 4, 5)", "(rows, columns)"]),
        (np.ones((0, 3)), {}, ["(0, 3)", "no rows"]),
        (np.ones((3, 0)), {}, ["(3, 0)", "no columns"]),
        (np.ones((1, 3)), {}, ["one row", "two"]),
        (np.ones((2, 2), complex), {}, ["complex128", "real numbers"]),
        (np.array([["a", "b"], ["c", "d"]]), {}, ["<U1", "real numbers"]),
        (np.ones((2, 2), "M8[s]"), {}, ["datetime64", "real numbers"]),
        (np.ones((2, 2), [("a", "f8")]), {}, ["real numbers"]),
        (np.array([[1, None], [2, 3]]), {}, ["Python objects"]),
        (holding(np.nan, 3, 1), {}, ["row 3, column 1", "NaN"]),
        (holding(-np.inf, 4, 2), {}, ["row 4, column 2", "infinite"]),
        (holding(np.inf, 3, 2), {"target": "0"}, ["row 3, column 2", "infinite"]),
        (holding(np.nan, 3, 1), {"target": "1", "supervised": True}, ["row 3, column 1", "NaN"]),
        (np.full((2, 2), np.finfo(np.longdouble).max), {}, ["row 0, column 0", "infinite"]),
        (X, {"supervised": True}, ["--target NAME", "x0, x1, x2"]),
        (X, {"target": "3"}, ["no column '3'", "x0, x1, x2"]),
        (X, {"target": "0", "supervised": True}, ["the target 'x0' has 4 classes"]),
        (np.ones((2, 1)), {"target": "0"}, ["no column is left"]),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_array_refused(tmp_path, values, options, parts, suffix):
    if values.dtype == np.longdouble and np.finfo(np.longdouble).max == np.finfo(float).max:
        pytest.skip("long doubles are doubles here")
    if suffix == ".npy":
        path = save(tmp_path, "data.npy", values)
    else:
        path = save(tmp_path, "data.npz", x=values)
        if options:
            parts = [part.replace("x0, x1, x2", "arrays are x").replace("column '", "array '") for part in parts]
    assert_says(refusal(ValueError, path, **options), path + ": ", *parts)


@pytest.mark.parametrize(
    ("arrays", "options", "parts"),
    [
        ({"a": X, "b": X}, {}, ["call the matrix of data x", "a of shape (4, 3)", "b of shape (4, 3)"]),
        ({"a": X[0]}, {}, ["call the matrix of data x", "a of shape (3,)"]),
        ({"y": X}, {}, ["call the matrix of data x", "no array besides the labels"]),
        ({"x": X, "z": X[:, 0]}, {"supervised": True}, ["which array", "--target NAME", "x, z"]),
        ({"x": X, "z": X[:, 0]}, {"target": "w"}, ["no array 'w'", "x, z"]),
        ({"x": X, "y": X[:3, 0]}, {"supervised": True}, ["array 'y'", "(3,)", "4 rows of 'x'"]),
        ({"x": X, "y": X[:, :1]}, {"supervised": True}, ["array 'y'", "(4, 1)", "4 rows of 'x'"]),
        ({"x": X, "y": np.array([0, 1, np.nan, 1])}, {"supervised": True}, ["array 'y'", "row 2", "NaN"]),
        ({"x": X, "y": np.array(["a", "b", "", "a"])}, {"supervised": True}, ["array 'y'", "row 2", "missing"]),
        ({"x": X, "y": np.array([0, 1, 2, 1])}, {"supervised": True}, ["the target 'y' has 3 classes (0, 1, 2)"]),
        ({"x": X, "y": np.array([0, 1, 1, 1j])}, {"supervised": True}, ["array 'y'", "complex128"]),
        ({"x": X, "y": np.array([0, 1, 1, None])}, {"supervised": True}, ["array 'y'", "Python objects"]),
        ({"x": holding(np.nan, 3, 1), "y": np.ones(5)}, {"supervised": True}, ["array 'x'", "row 3, column 1", "NaN"]),
    ],
)
def test_npz_refused(tmp_path, arrays, options, parts):
    path = save(tmp_path, "data.npz", **arrays)
    assert_says(refusal(ValueError, path, **options), path + ": ", *parts)


def content_of(kind):
    """Bytes that some program would call a file of this kind."""
    stream = io.BytesIO()
    if kind == "npy":
        np.save(stream, X)
    elif kind == "npz":
        np.savez(stream, x=X)
    elif kind == "empty npz":
        np.savez(stream)
    return {
        "npy": stream.getvalue(),
        "npz": stream.getvalue(),
        "empty npz": stream.getvalue(),
        "nothing": b"",
        "text": ROWS.encode(),
        "PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        "random": np.random.default_rng(0).bytes(500),
        "pickle": b"\x80\x04]\x94.",
    }[kind]


@pytest.mark.parametrize(
    ("name", "kind", "parts"),
    [
        ("a.npy", "nothing", ["empty"]),
        ("a.npy", "text", ["not a .npy file"]),
        ("a.npy", "PNG", ["not a .npy file"]),
        ("a.npy", "random", ["not a .npy file"]),
        ("a.npy", "pickle", ["not a .npy file"]),
        ("a.npy", "npz", ["not a .npy file", "looks like a .npz"]),
        ("a.npz", "nothing", ["empty"]),
        ("a.npz", "text", ["not a .npz file"]),
        ("a.npz", "PNG", ["not a .npz file"]),
        ("a.npz", "random", ["not a .npz file"]),
        ("a.npz", "pickle", ["not a .npz file"]),
        ("a.npz", "npy", ["not a .npz file", "looks like a .npy"]),
        ("a.npz", "empty npz", ["no array"]),
        ("a.csv", "npy", ["not UTF-8"]),
        ("a.csv", "npz", ["not UTF-8"]),
    ],
)
def test_file_is_not_what_its_name_says(tmp_path, name, kind, parts):
    path = write(tmp_path, name, content_of(kind))
    assert_says(refusal(ValueError, path), path + ": ", *parts)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_cut_short(tmp_path, kind):
    whole = content_of(kind)
    for length in (7, 30, len(whole) // 2, len(whole) - 1):
        path = write(tmp_path, f"a.{kind}", whole[:length])
        assert_says(refusal(ValueError, path), path + ": ", "damaged or cut short")


def test_header_that_promises_too_much(tmp_path):
    content = content_of("npy").replace(b"(4, 3), }" + b" " * 15, b"(4, 3000000000000000), }")
    assert b"3000000000000000" in content
    assert_says(refusal(ValueError, write(tmp_path, "a.npy", content)), "damaged or cut short")


def test_npz_with_something_else_in_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x", "hello")
    assert_says(refusal(ValueError, str(tmp_path / "a.npz")), "array 'x'", "not an array")


# Standardizing.


def test_purchases_come_from_their_segments():
    """Means of each segment within four standard errors of its rates, and variances near them, as Poisson has it."""
    counts, segment = datasets.purchases(20_000, seed=3)
    assert (counts == counts.round()).all()
    assert (counts >= 0).all()
    for k, name in enumerate(datasets.SEGMENTS):
        rows = counts[segment == k]
        assert len(rows) > 2000, name
        error = np.sqrt(rows.mean(0) / len(rows))
        variance = rows.var(0)
        assert (np.abs(variance - rows.mean(0)) < 8 * error * np.sqrt(rows.mean(0) + 1) + 0.05).all(), name
    loaded = datasets.load("purchases")
    assert loaded.columns == datasets.CATEGORIES
    assert np.array_equal(loaded.x.numpy(), datasets.purchases()[0])
    assert_says(refusal(ValueError, "purchases", supervised=True), "4 classes (budget, gourmet, tech, family)")


@pytest.mark.parametrize("name", [name for name in datasets.names() if name != "digits"])
def test_standardized_as_scikit_learn_does(name):
    raw, data = datasets.load(name), datasets.load(name, standardize=True)
    assert data.standardized
    assert data.x.dtype == torch.float64
    np.testing.assert_allclose(data.x.numpy(), StandardScaler().fit_transform(raw.x.numpy()), rtol=1e-10, atol=1e-12)


def test_a_constant_column_becomes_zeros(tmp_path):
    path = write(tmp_path, "data.csv", "a,b\n1,0.1\n2,0.1\n3,0.1\n")
    data = datasets.load(path, standardize=True)
    np.testing.assert_allclose(
        data.x.numpy(), StandardScaler().fit_transform([[1, 0.1], [2, 0.1], [3, 0.1]]), atol=1e-12
    )
    assert (data.x[:, 1].abs() < 1e-12).all()


def test_labels_are_not_standardized(tmp_path):
    path = write(tmp_path, "data.csv", "a,b\n1,0\n3,0\n5,1\n")
    data = datasets.load(path, target="b", supervised=True, standardize=True)
    assert data.y is not None
    assert data.y.tolist() == [0, 0, 1]
    assert data.x.squeeze(1).tolist() == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5)])


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("a,b\n1,1e308\n2,-1e308\n", ["column 'b'", "range"]),
        ("a,b\n1,1e-300\n2,2e-300\n", ["column 'b'", "range"]),
    ],
)
def test_column_without_a_usable_spread(tmp_path, content, parts):
    path = write(tmp_path, "data.csv", content)
    assert datasets.load(path).columns == ("a", "b")
    assert_says(refusal(ValueError, path, standardize=True), path + ": ", *parts)


def test_many_cells(tmp_path):
    values = np.random.default_rng(0).normal(size=(10_000, 30))
    path = str(tmp_path / "data.csv")
    np.savetxt(path, values, delimiter=",", fmt="%.17g")
    data = datasets.load(path)
    assert np.array_equal(data.x.numpy(), values)
