"""Data by name or from a file: sets of scikit-learn's, simulated purchases, Reuters, MNIST, or files of your own.

What cannot be used is refused with one sentence that says where it goes wrong. Nothing is guessed away: no row is
dropped and no missing value filled in unless that is asked for, and labels never reach ``x``.
Lines of a .csv are counted as an editor does, from 1; rows and columns of an array from 0.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .bundled import CATEGORIES, SEGMENTS, THREE_DOCUMENTS, purchases, reuters
from .cells import number
from .encoding import Encoding, in_order, with_scales
from .mnist import mnist, read_idx
from .opening import read_source
from .readers.sparse import read_vocabulary
from .selection import Selection
from .table import Table, listed, quoted, shown

__all__ = [
    "CATEGORIES",
    "SEGMENTS",
    "Dataset",
    "Encoding",
    "Selection",
    "load",
    "load_like",
    "mnist",
    "names",
    "purchases",
    "read_idx",
    "reuters",
]

_BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "purchases", "reuters", "three_documents", "wine")
FETCHED = ("mnist",)  # by a download


class Dataset(NamedTuple):
    """Data ready for a model.

    Attributes
    ----------
    name : str
        Name of a bundled set, or the file's path as given.
    x : Tensor, shape (n, d), float64
        Rows of features, in the units of the source, or in standard deviations if ``standardized``. NaN where a value
        is missing that is to be imputed.
    y : Tensor, shape (n,), float64, or None
        Labels, 0 or 1, or the numbers of a ``continuous`` target; None unless asked for by ``supervised``.
    columns : tuple of str, length d
        Names of the columns of ``x``; "x0", "x1", … by position if the source names none. A category has one column
        of zeros and ones per level but the first: "plan=premium".
    classes : tuple of two str, or None
        What label 0 and label 1 are called in the source; None without labels.
    standardized : bool
        Whether every column of ``x`` was brought to mean 0 and population standard deviation 1.
    ids : dict of sequences of str, length n
        Columns that identify the rows, by name.
    rows : sequence of int, length n
        Places of the rows in the source, from 0; some are left out if rows with gaps are.
    left_out : int
        Number of rows that were left out for their gaps.
    encoding : Encoding or None
        How the source became ``x``; `load_like` does so with another.
    """

    name: str
    x: Tensor
    y: Tensor | None
    columns: tuple[str, ...]
    classes: tuple[str, str] | None
    standardized: bool
    ids: Mapping[str, Sequence[str]] = MappingProxyType({})
    rows: Sequence[int] = ()
    encoding: Encoding | None = None
    left_out: int = 0


def names() -> tuple[str, ...]:
    """Names of the bundled data sets, which need no network."""
    return _BUNDLED


def load(
    source: str,
    *,
    target: str | None = None,
    supervised: bool = False,
    continuous: bool = False,
    standardize: bool = False,
    vocabulary: str | None = None,
    selection: Selection = Selection(),  # noqa: B008 (immutable)
) -> Dataset:
    """Read a bundled data set or a file.

    Parameters
    ----------
    source : str
        One of `names`; "mnist" (training images, grey levels from 0 to 1; `mnist` says where they come from); or the
        path of a .csv (UTF-8; comma, semicolon or tab; with a header or without; decimal commas beside the latter two;
        text as categories), of a .npy that holds a matrix of shape (rows, columns) or images (rows, height, width), of
        a .npz with such a matrix called ``x`` (or its only one) or as ``scipy.sparse.save_npz`` writes it, of a Matrix
        Market .mtx, or of a folder of .txt files or of images.
    target : str, optional
        Where a file has its labels: the name of a column, its index as text ("-1" is the last), or the name of an
        array in a .npz (default: ``y``). They are kept out of ``x``, and looked at only if ``supervised``.
    supervised : bool
        Whether to return the target too: labels, which must be of two classes; the lesser one, by value or by
        alphabet, is 0.
    continuous : bool
        Whether a target is of numbers, to be returned as they are, rather than of labels.
    standardize : bool
        Whether to bring each column of ``x`` to mean 0 and standard deviation 1 (with n in the denominator); a
        constant one becomes zeros.
    vocabulary : str, optional
        Path of a text file with the names of a file's columns, one per line.
    selection : Selection
        Which columns of a file are used, and as what.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        If ``source`` is a path and nothing is there.
    OSError
        If the file cannot be read.
    ValueError
        If ``source`` is unknown; if the file does not hold at least two rows of finite numbers; if the target is
        missing, not of two classes or, if ``continuous``, not of numbers; if a column to standardize has a spread that
        no float64 holds.
    """
    where = shown(source)
    if source in _BUNDLED + FETCHED:
        if target is not None:
            raise ValueError(f"{where}: has labels already: give a target for files only")
        if vocabulary is not None:
            raise ValueError(f"{where}: has names of columns already: give a vocabulary for files only")
        if selection._replace(imputable=None) != Selection():
            raise ValueError(f"{where}: is used as it is: choose columns of files only")
        table = _bundled(source, supervised)
    else:
        table = read_source(source, target, supervised, selection, _BUNDLED)
    if vocabulary is not None:
        table = table._replace(columns=read_vocabulary(vocabulary, table.x.shape[1]))
    if not table.columns:
        raise ValueError(f"{where}: no column is left beside the target")
    if len(table.x) < 2:
        raise ValueError(f"{where}: there is one row of data, at least two are needed")
    y, classes = None, None
    if table.labels is not None:
        y, classes = (_numbers(where, table), None) if continuous else _labels(where, table)
    encoding = Encoding.of(table, selection)._replace(classes=None if classes is None else list(classes))
    if standardize:
        encoding = with_scales(where, encoding, table.x)
    encoding = encoding._replace(top=float(np.nanmax(encoding.standardized(table.x))))
    return _dataset(source, table, encoding)._replace(y=y, classes=classes)


def load_like(source: str, encoding: Encoding) -> Dataset:
    """Read rows as those of an earlier data set were: the same columns by name, categories and scales; no labels.

    Parameters
    ----------
    source : str
        As for `load`; one row will do.
    encoding : Encoding
        That of the earlier `Dataset`.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        As for `load`; besides, if a column is not there, or a category is new.
    """
    if source in _BUNDLED + FETCHED:
        table = _bundled(source, False)
    else:
        selection = encoding.selection()
        how = {"sources": encoding.sources, "vocabulary": encoding.columns}
        table = read_source(source, None, False, selection, _BUNDLED, **how)
    if table.sources is not None:
        table = table._replace(columns=encoding.columns)
    return _dataset(source, in_order(shown(source), table, encoding.columns), encoding)


def _dataset(source: str, table: Table, encoding: Encoding) -> Dataset:
    rows = range(len(table.x)) if table.rows is None else table.rows
    x, columns = torch.from_numpy(encoding.standardized(table.x)), tuple(encoding.columns)
    return Dataset(
        source, x, None, columns, None, encoding.centre is not None, table.ids, rows, encoding, table.left_out
    )


def _bundled(name: str, supervised: bool) -> Table:
    if supervised and name in ("mnist", "reuters", "three_documents"):
        raise ValueError(f"{name}: has no labels of two classes")
    if name == "mnist":
        return Table(mnist()[0], [f"pixel_{row}_{column}" for row in range(28) for column in range(28)])
    if name == "reuters":
        counts, vocabulary, _ = reuters()
        return Table(counts, [*vocabulary])
    if name == "three_documents":
        return Table(np.array(THREE_DOCUMENTS, dtype=np.float64), ["word 0", "word 1", "word 2"])
    if name == "purchases":
        counts, segment = purchases()
        table = Table(counts, list(CATEGORIES), segment, classes=SEGMENTS)
    else:
        from sklearn import datasets  # slow to import

        bunch: Any = datasets.load_diabetes(scaled=False) if name == "diabetes" else getattr(datasets, f"load_{name}")()
        columns, classes = ([str(text) for text in bunch.get(key, ())] for key in ("feature_names", "target_names"))
        table = Table(np.array(bunch.data, dtype=np.float64), columns, bunch.target, classes=classes)
    return table if supervised else table._replace(labels=None)


def _labels(where: str, table: Table) -> tuple[Tensor, tuple[str, str]]:
    """Labels as 0.0 and 1.0, and what the two are called. Text counts as numbers if all of it can."""
    values = np.asarray(table.labels)
    if values.dtype.kind == "U":
        texts = [str(text).strip() for text in values]
        numbers = [number(text) for text in texts]
        values = np.array(texts if None in numbers else numbers)
    found, codes = np.unique(values, return_inverse=True)
    classes = table.classes or [str(value).removesuffix(".0") for value in found.tolist()]
    if len(classes) != 2:
        many = f"{len(classes)} class{'' if len(classes) == 1 else 'es'}"
        hint = "" if values.dtype.kind == "U" or len(classes) < 3 else "; linear regression takes a target of numbers"
        shown_classes = listed(classes, 5)
        raise ValueError(f"{where}: {table.target} has {many} ({shown_classes}), logistic regression needs two{hint}")
    return torch.from_numpy(codes.astype(np.float64)), (classes[0], classes[1])


def _numbers(where: str, table: Table) -> Tensor:
    """Return a target of numbers; ValueError with the first that is none."""
    found = [number(str(value)) for value in table.labels]  # pyright: ignore[reportOptionalIterable]
    if None in found:
        row = found.index(None)
        text = quoted(str(table.labels[row]))  # pyright: ignore[reportOptionalSubscript]
        raise ValueError(f"{where}: {table.target} is {text} in row {row}, linear regression needs a number")
    return torch.tensor(found, dtype=torch.float64)
