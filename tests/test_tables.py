"""Tables as people have them: categories, gaps, decimal commas, identifiers and dates; documents and images."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer

from guidebook import datasets
from guidebook.catalog import ROWS
from guidebook.datasets import Selection, load, load_like
from guidebook.datasets.cells import comma_number, is_date, is_identifier, is_written_number
from guidebook.datasets.encoding import read_encoding

PLANS = (
    "id,plan,age,joined\nc1,pro,31,2024-01-05\nc2,basic,45,2023-11-30\nc3,plus,28,2024-02-01\nc4,basic,39,2022-07-19\n"
)


def write(folder, content, name="data.csv"):
    path = folder / name
    path.write_text(content)
    return str(path)


def refused(path, *parts, **options):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (its message is looked at)
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


# Columns and categories.


def test_categories_are_pandas_dummies_without_the_first_level(tmp_path):
    path = write(tmp_path, PLANS)
    data = load(path, selection=Selection(drop=("joined",), id=("id",)))
    frame = pd.read_csv(path)
    dummies = pd.get_dummies(frame["plan"], prefix="plan", prefix_sep="=", drop_first=True, dtype=float)
    assert data.columns == (*dummies.columns, "age")
    assert np.array_equal(data.x.numpy(), np.column_stack([dummies, frame["age"]]))
    assert data.ids == {"id": ["c1", "c2", "c3", "c4"]}
    assert list(data.rows) == [0, 1, 2, 3]


def test_columns_are_those_asked_for_in_that_order(tmp_path):
    path = write(tmp_path, "a,b,c\n1,2,x\n3,4,y\n")
    assert load(path, selection=Selection(columns=("b", "a"))).x.tolist() == [[2, 1], [4, 3]]
    assert load(path, selection=Selection(drop=("c",))).columns == ("a", "b")
    array = str(tmp_path / "a.npy")
    np.save(array, np.arange(6.0).reshape(2, 3))
    assert load(array, selection=Selection(drop=("x1",))).x.tolist() == [[0, 2], [3, 5]]
    assert load(array, selection=Selection(columns=("x2", "x0"))).x.tolist() == [[2, 0], [5, 3]]
    refused(array, "read from a .csv", selection=Selection(id=("x0",)))
    refused(array, "no column 'x7'", selection=Selection(drop=("x7",)))


def test_codes_may_be_categories_in_order_of_their_numbers(tmp_path):
    path = write(tmp_path, "size,y\n10,1\n9,2\nXL,3\n10,4\n")
    refused(path, "line 4, column 'size': 'XL' is not a number", "--categories size")
    data = load(path, selection=Selection(categories=("size",)))
    assert data.columns == ("size=10", "size=XL", "y")
    assert data.x.tolist() == [[1, 0, 1], [0, 0, 2], [0, 1, 3], [1, 0, 4]]


@pytest.mark.parametrize(
    ("selection", "parts"),
    [
        (Selection(drop=("agee",)), ["no column 'agee': did you mean age?", "id, plan, age, joined"]),
        (Selection(id=("age",), drop=("age",)), ["'age' is given both as drop and as id"]),
        (Selection(columns=("age",), categories=("plan",)), ["'plan' is to be a category, and is not used"]),
        (Selection(id=("id",)), ["column 'joined' holds dates", "--drop joined"]),
    ],
)
def test_selections_that_cannot_be(tmp_path, selection, parts):
    refused(write(tmp_path, PLANS), *parts, selection=selection)


def test_bundled_data_and_folders_take_no_selection(tmp_path):
    refused("iris", "choose columns of files only", selection=Selection(drop=("a",)))
    write(tmp_path, "one two", "a.txt")
    refused(str(tmp_path), "a folder has no columns", selection=Selection(drop=("a",)))


# Columns that are no data.


def rows_of(count, line):
    return "".join(line.format(k=k, other=(7 * k) % 5) + "\n" for k in range(count))


@pytest.mark.parametrize(
    ("name", "cell", "count", "said"),
    [
        ("customer_id", "{k}", 10, True),
        ("customer_id", "{k}", 9, False),
        ("customerID", "1{k}3", 10, True),
        ("width", "1{k}3", 10, False),
        ("grid", "{k}", 19, False),
        ("first", "{k}", 20, True),
        ("first", "{k}", 19, False),
        ("customer_id", "{other}", 30, False),
        ("customer_id", "{k}.5", 30, False),
        ("code", "c{k}", 10, True),
        ("code", "c{k}", 9, False),
    ],
)
def test_an_identifier_is_said(tmp_path, name, cell, count, said):
    path = write(tmp_path, f"{name},b\n" + rows_of(count, cell + ",{other}"))
    if not said:
        load(path)
        return
    refused(path, f"column '{name}' looks like an identifier", f"--id {name} keeps it", f"--drop {name}")
    data = load(path, selection=Selection(id=(name,)))
    assert data.columns == ("b",)
    assert len(data.ids[name]) == count
    if not cell.startswith("c"):
        assert load(path, selection=Selection(columns=(name, "b"))).columns == (name, "b")


def test_the_index_that_pandas_writes_is_one(tmp_path):
    frame = pd.DataFrame({"a": np.arange(30) % 7, "b": np.arange(30) % 4})
    path = str(tmp_path / "data.csv")
    frame.to_csv(path)
    refused(path, "column 'index' looks like an identifier")
    assert np.array_equal(load(path, selection=Selection(id=("index",))).x.numpy(), frame)


@pytest.mark.parametrize(
    ("levels", "taken"), [(60, True), (61, False)], ids=["as many categories as are taken", "one more"]
)
def test_categories_may_have_so_many_levels(tmp_path, levels, taken):
    path = write(tmp_path, "a,b\n" + "".join(f"c{k % levels},{k % 3}\n" for k in range(200)))
    if taken:
        assert load(path).x.shape == (200, levels)
    else:
        refused(path, "looks like an identifier")


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("2024-01-0{k}", ["column 'a' holds dates", "--drop a"]),
        ("0{k}.12.2023 08:15", ["column 'a' holds dates"]),
        ("the quick brown fox jumped over {k} dogs", ["column 'a' holds free text", "--text a counts its words"]),
        ('"1,23{k}.50"', ["'1,230.50' looks like a number with a separator or a unit", "1234.5"]),
        ("{k} %", ["'0 %' looks like a number with a separator or a unit"]),
        ("same", ["column 'a' is 'same' in every row", "--drop a"]),
        ("NA", ["column 'a' is empty", "--drop a"]),
    ],
)
def test_columns_that_are_no_data_are_named(tmp_path, cell, parts):
    path = write(tmp_path, "b,a\n" + "".join(f"{k % 3},{cell.format(k=k)}\n" for k in range(10)))
    refused(path, *parts)
    assert load(path, selection=Selection(drop=("a",))).columns == ("b",)


def test_several_are_named_at_once(tmp_path):
    refused(
        write(tmp_path, "a,b,c\n2024-01-01,1,08:15\n2024-01-02,2,09:30\n"),
        "columns 'a', 'c' hold dates",
        "leave them out with --drop a,c",
    )


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    """With what settles it: typed in, it does."""
    rows = [
        f"C{k},{2000 + k}-01-02,ok,{'' if k in (3, 7) else k % 4},{'' if k == 5 else 'yn'[k % 2]}" for k in range(12)
    ]
    path = write(tmp_path, "\n".join(["name,since,the status,n,left", *rows]) + "\n")
    refused(
        path,
        "column 'name' looks like an identifier: --id name keeps it",
        "; column 'since' holds dates",
        "; column 'the status' is 'ok' in every row",
        "; line 5, column 'n': the value is missing (2 rows have gaps)",
        "; line 7, column 'left': the value is missing (1 row has no label)",
        "All at once: --id name --drop since,'the status' --missing drop",
        target="left",
        supervised=True,
    )
    settled = Selection(id=("name",), drop=("since", "the status"), missing="drop")
    assert load(path, target="left", supervised=True, selection=settled).left_out == 3


def test_what_is_given_already_stays_in_what_to_type(tmp_path):
    path = write(tmp_path, "a,b,c,d\n" + "".join(f"{k},2024-01-0{k},x,\n" for k in (1, 2)))
    refused(path, "All at once: --drop a,b,c,d", selection=Selection(drop=("a",)))


def test_no_shortcut_leaves_out_numbers_that_can_be_mended(tmp_path):
    path = write(tmp_path, "a,b,c,d\n" + "".join(f'"1,{k}00.5",ok,{k},{k}\n' for k in range(9)) + '"1,9",ok,x,y\n')
    with pytest.raises(ValueError, match=r"column 'a': '1,000\.5' looks like a number with") as caught:
        load(path)
    assert "All at once" not in str(caught.value)
    assert "line 11, column 'c': 'x' is not a number: --drop c leaves the column out" in str(caught.value)
    assert "line 11, column 'd': 'y' is not a number" in str(caught.value)


def test_of_many_bad_cells_the_first_few_are_quoted(tmp_path):
    names = "abcdef"
    path = write(tmp_path, "\n".join([",".join(names), *[",".join("123456")] * 3, ",".join("uvwxyz")]) + "\n")
    refused(path, "'u' is not a number", "'w' is not a number", "; 3 more columns have such cells")
    with pytest.raises(ValueError, match="column 'a'") as caught:
        load(path)
    assert "'x' is not" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "yes", "no"),
    [
        (
            is_date,
            ["2024-01-31", "31.1.24", "1/31/2024", "2024-01", "2024-01-31T10:00:00Z", "10:15"],
            ["2024", "1-2", "a"],
        ),
        (is_written_number, ["1,234", "$5", "12 %", "1'000.5"], ["a", "5 apples", "%", "-"]),
        (is_identifier, ["id", "ID", "customer_id", "customerId", "user.uuid", "row index"], ["paid", "width", "idle"]),
    ],
)
def test_what_cells_and_names_look_like(function, yes, no):
    assert [text for text in yes if not function(text)] == []
    assert [text for text in no if function(text)] == []


# Decimal commas.


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,5", 1.5), ("-0,25", -0.25), ("1.234,5", 1234.5), ("1.234.567", 1234567.0), ("2,5e3", 2500.0)]
    + [(text, None) for text in ("1,2,3", "1.5", "a,b", ",", "1.23,4")],
)
def test_decimal_commas(text, value):
    assert comma_number(text) == value


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("header", ["length;price\n", ""])
def test_european_numbers(tmp_path, delimiter, header):
    content = "\ufeff" + header + "1,5;1.234,50\n2;999,5\n2,25;7\n"
    data = load(write(tmp_path, content.replace(";", delimiter)))
    assert data.x.tolist() == [[1.5, 1234.5], [2, 999.5], [2.25, 7]]


def test_points_and_commas_do_not_mix(tmp_path):
    path = write(tmp_path, "a;b\n1,5;2\n1;2.500\n")
    refused(path, "'2.500' has a point", "write all numbers in one way, this one as 2,500 or 2500")
    refused(write(tmp_path, "a;b\n1,5;2\n1;2.5\n"), "line 3, column 'b': '2.5' has a point", "'1,5' in line 2")


# Missing values.

GAPS = "a,kind,b\n1,x,2\n,y,4\n5,NA,7\n9,x,1\n"


def test_gaps_are_refused_with_what_to_do(tmp_path):
    path = write(tmp_path, GAPS)
    gaps = "line 3, column 'a': the value is missing (2 rows have gaps)"
    refused(path, gaps, "--missing drop", "--missing impute fills them in, for gmm, ppca and factor_analysis")
    with pytest.raises(ValueError, match=r"--missing impute fills them in$"):
        load(path, selection=Selection(imputable=True))
    with pytest.raises(ValueError, match=r"--missing drop leaves such rows out$"):
        load(path, selection=Selection(imputable=False))


def test_gaps_in_new_rows_are_not_answered_by_an_option_that_predict_does_not_have(tmp_path):
    fitted = load(write(tmp_path, "a,b\n1,2\n3,5\n"))
    with pytest.raises(ValueError, match=r"\(1 row has gaps\): the fit was made without gaps, so fill in or leave out"):
        load_like(write(tmp_path, "a,b\n1,\n3,5\n"), fitted.encoding)


def test_rows_with_gaps_are_dropped_if_asked_for(tmp_path):
    data = load(write(tmp_path, GAPS), selection=Selection(missing="drop", id=("b",)))
    assert data.x.tolist() == [[1, 0], [9, 0]]
    assert (list(data.rows), data.left_out, data.ids) == ([0, 3], 2, {"b": ["2", "1"]})
    refused(write(tmp_path, "a,b\n1,\n,2\n"), "every row has a gap", selection=Selection(missing="drop"))


def test_rows_without_a_label_are_dropped_if_asked_for(tmp_path):
    path = write(tmp_path, "a,b\n1,no\n2,\n3,yes\n")
    refused(path, "line 3, column 'b': the value is missing", target="b", supervised=True)
    data = load(path, target="b", supervised=True, selection=Selection(missing="drop"))
    assert data.y is not None
    assert (data.x.tolist(), data.y.tolist()) == ([[1], [3]], [0, 1])


def test_gaps_are_left_to_be_imputed(tmp_path):
    data = load(write(tmp_path, GAPS), selection=Selection(missing="impute"), standardize=True)
    a, kind = data.x[:, 0], data.x[:, 1]
    assert a.isnan().tolist() == [False, True, False, False]
    assert kind.isnan().tolist() == [False, False, True, False]
    values = np.array([1.0, 5, 9])
    np.testing.assert_allclose(a[~a.isnan()], (values - values.mean()) / values.std())


# Documents and images.

TEXTS = ["The cat sat on the mat", "A dog and a cat", "Dogs sit; cats sat", "mat, mat and dog"]


def test_documents_are_counted_as_scikit_learn_does(tmp_path):
    table = "id,note\n" + "".join(f'd{k},"{text}"\n' for k, text in enumerate(TEXTS))
    data = load(write(tmp_path, table), selection=Selection(text="note", id=("id",)))
    counter = CountVectorizer(stop_words="english")
    expected = counter.fit_transform(TEXTS).toarray()  # pyright: ignore[reportAttributeAccessIssue]
    assert data.columns == tuple(counter.get_feature_names_out())
    assert np.array_equal(data.x.numpy(), expected)
    assert data.ids == {"id": ["d0", "d1", "d2", "d3"]}
    kept = load(str(tmp_path / "data.csv"), selection=Selection(text="note", stop_words="none"))
    assert {"the", "and"} <= set(kept.columns)
    folder = tmp_path / "notes"
    folder.mkdir()
    for k, text in enumerate(TEXTS):
        write(folder, text, f"{k}.txt")
    same = load(str(folder))
    assert torch.equal(same.x, data.x)
    assert same.ids == {"document": ["0.txt", "1.txt", "2.txt", "3.txt"]}


@pytest.mark.parametrize(("count", "rare"), [(19, True), (20, False)])
def test_rare_and_common_words_go_from_twenty_documents_on(tmp_path, count, rare):
    texts = [f"all word{k // 2} single{k}" for k in range(count)]
    data = load(write(tmp_path, "note\n" + "\n".join(texts) + "\n"), selection=Selection(text="note"))
    assert ("single3" in data.columns) == rare
    assert ("word3" in data.columns) is True


def test_documents_without_a_word_left(tmp_path):
    refused(write(tmp_path, "note\nthe of\nand to\n"), "no word is left", selection=Selection(text="note"))


def test_images_in_a_folder_and_in_an_array(tmp_path):
    from matplotlib.image import imsave

    levels = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    for k, image in enumerate(levels):
        imsave(tmp_path / f"{k}.png", image, cmap="gray", vmin=0, vmax=255)
    data = load(str(tmp_path))
    np.testing.assert_allclose(data.x.numpy(), levels.reshape(3, 20) / 255, atol=1.01 / 255)  # imsave rounds
    assert data.columns[7] == "pixel_1_2"
    assert data.ids == {"image": ["0.png", "1.png", "2.png"]}
    np.save(tmp_path / "all.npy", levels)
    array = load(str(tmp_path / "all.npy"))
    assert np.array_equal(array.x.numpy(), levels.reshape(3, 20))
    assert array.columns == data.columns
    imsave(tmp_path / "3.png", levels[0][:2], cmap="gray")
    refused(str(tmp_path), "3.png is 2 × 5 pixels, and 0.png 4 × 5")
    (tmp_path / "3.png").write_bytes(b"\x89PNG....")
    refused(str(tmp_path), "3.png cannot be read as an image")


def test_an_empty_folder_is_none_of_them(tmp_path):
    refused(str(tmp_path), "folder without .txt files or images, it is empty")
    write(tmp_path, "x", "a.doc")
    refused(str(tmp_path), "it holds '.doc'")


# Other rows, read as the first were.


def again(data):
    """The encoding, through the text of a JSON file."""
    return read_encoding(json.loads(json.dumps(data.encoding._asdict(), allow_nan=False)))


def test_new_rows_are_read_as_the_old_ones(tmp_path):
    path = write(tmp_path, PLANS)
    data = load(path, standardize=True, selection=Selection(drop=("joined",), id=("id",)))
    lines = [line.split(",") for line in PLANS.splitlines()]
    shuffled = "\n".join(",".join(line[k] for k in (2, 0, 1)) for line in [lines[0], lines[3], lines[1]]) + "\n"
    new = load_like(write(tmp_path, shuffled, "new.csv"), again(data))
    assert torch.equal(new.x, data.x[[2, 0]])
    assert (new.columns, new.standardized, new.ids) == (data.columns, True, {"id": ["c3", "c1"]})
    without = load_like(write(tmp_path, "plan,age\nbasic,40\n", "new.csv"), again(data))
    assert (without.x.shape, without.ids) == ((1, 3), {})


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("plan,years\npro,3\n", ["no column 'age', which the fit used: columns are plan, years"]),
        ("years\n3\n", ["no columns 'plan', 'age', which the fit used"]),
        (
            "plan,age\npro,\ngold,old\n",
            ["line 3, column 'plan': 'gold' is", "; line 3, column 'age': 'old' is not", "(1 row has gaps)"],
        ),
        (
            "plan,age\ngold,3\n",
            ["line 2, column 'plan': 'gold' is a category that the fit has not seen", "basic, plus, pro"],
        ),
        ("plan,age\npro,old\n", ["line 2, column 'age': 'old' is not a number"]),
        ("plan,age\npro,\n", ["line 2, column 'age': the value is missing"]),
    ],
)
def test_new_rows_that_do_not_fit(tmp_path, content, parts):
    data = load(write(tmp_path, PLANS), selection=Selection(drop=("joined",), id=("id",)))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (its message is looked at)
        load_like(write(tmp_path, content, "new.csv"), again(data))
    for part in parts:
        assert part in str(caught.value)


def test_new_documents_are_counted_with_the_old_words(tmp_path):
    data = load(write(tmp_path, f'note\n{TEXTS[0]}\n"{TEXTS[3]}"\n'), selection=Selection(text="note"))
    new = load_like(write(tmp_path, "note\nmat mat zebra\n", "new.csv"), again(data))
    assert new.columns == data.columns
    assert new.x[0, new.columns.index("mat")] == 2
    assert new.x.sum() == 2


@pytest.mark.parametrize("name", ["iris", "wine"])
def test_arrays_and_bundled_data_by_place_or_name(tmp_path, name):
    data = load(name, standardize=True)
    path = str(tmp_path / "new.npy")
    np.save(path, load(name).x[:5].numpy())
    assert torch.equal(load_like(path, again(data)).x, data.x[:5])
    assert torch.equal(load_like(name, again(data)).x, data.x)
    np.save(path, load(name).x[:5, 1:].numpy())
    with pytest.raises(ValueError, match="which the fit used"):
        load_like(path, again(data))


def test_images_of_later_rows_are_as_white_as_those_fitted():
    """The largest value of the rows fitted is what counts, also where new rows are darker."""
    data = load("digits")
    options = {"likelihood": "bernoulli", "binarise": "threshold"}
    assert data.encoding is not None
    fitted = ROWS["vae"].data.preprocess(data.x, options, data.encoding.top)
    dark = (data.x < data.x.max()).all(1).nonzero().squeeze(1)[:3]
    assert torch.equal(ROWS["vae"].data.preprocess(data.x[dark], options, data.encoding.top), fitted[dark])
    with pytest.raises(ValueError, match="vae: the fit had intensities up to 16, and these go up to 17"):
        ROWS["vae"].data.preprocess(data.x + 1, options, data.encoding.top)


def test_damaged_records_are_refused():
    encoding = load("iris", standardize=True).encoding
    assert encoding is not None
    record = encoding._asdict()
    with pytest.raises(ValueError, match="cannot be read"):
        read_encoding(record | {"more": 1})
    for part in ({"columns": 3}, {"sources": ["a"]}):
        with pytest.raises(ValueError, match="cannot be read"):
            read_encoding(record | part)
    with pytest.raises(ValueError, match="scales for 4 columns"):
        read_encoding(record | {"scale": [1.0] * 3})
    assert math.isclose(record["top"], float(load("iris", standardize=True).x.max()))
    assert datasets.Encoding(**record) == encoding


def test_a_record_with_a_name_that_cannot_be_printed_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^the record's encoding cannot be read: .*cla\\x7fses") as found:
        read_encoding({"cla\x7fses": None})
    assert str(found.value).isprintable()
