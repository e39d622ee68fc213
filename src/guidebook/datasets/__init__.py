"""Data by name or from a file: sets of scikit-learn's, simulated purchases, Reuters, MNIST, or a file of your own.

A file that cannot be used is refused with one sentence that says where it goes wrong. Nothing is guessed away: no row
is dropped, no missing value filled in, and labels never reach ``x``.
Lines of a .csv are counted as an editor does, from 1; rows and columns of an array from 0.
"""

import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from .bundled import CATEGORIES, SEGMENTS, THREE_DOCUMENTS, purchases, reuters
from .mnist import mnist, read_idx
from .readers.csv import read_csv
from .readers.numpy import read_npy, read_npz
from .readers.sparse import read_mtx, read_vocabulary
from .table import KINDS, Table, did_you_mean, listed, number, quoted, shown

__all__ = ["CATEGORIES", "SEGMENTS", "Dataset", "load", "mnist", "names", "purchases", "read_idx", "reuters"]

_BUNDLED = ("breast_cancer", "digits", "iris", "purchases", "reuters", "three_documents", "wine")
FETCHED = ("mnist",)  # by a download


class Dataset(NamedTuple):
    """Data ready for a model.

    Attributes
    ----------
    name : str
        Name of a bundled set, or the file's path as given.
    x : Tensor, shape (n, d), float64
        Rows of features, in the units of the source, or in standard deviations if ``standardized``.
    y : Tensor, shape (n,), float64, or None
        Labels, 0 or 1; None unless asked for by ``supervised``.
    columns : tuple of str, length d
        Names of the columns of ``x``; "x0", "x1", … by position if the source names none.
    classes : tuple of two str, or None
        What label 0 and label 1 are called in the source; None if ``y`` is.
    standardized : bool
        Whether every column of ``x`` was brought to mean 0 and population standard deviation 1.
    """

    name: str
    x: Tensor
    y: Tensor | None
    columns: tuple[str, ...]
    classes: tuple[str, str] | None
    standardized: bool


def names() -> tuple[str, ...]:
    """Names of the bundled data sets, which need no network."""
    return _BUNDLED


def load(
    source: str,
    *,
    target: str | None = None,
    supervised: bool = False,
    standardize: bool = False,
    vocabulary: str | None = None,
) -> Dataset:
    """Read a bundled data set or a file.

    Parameters
    ----------
    source : str
        One of `names`; "mnist" (training images, grey levels from 0 to 1; `mnist` says where they come from); or the
        path of a .csv (UTF-8; comma, semicolon or tab; with a header or without), of a .npy that holds a matrix of
        shape (rows, columns), of a .npz with such a matrix called ``x`` (or its only one) or as
        ``scipy.sparse.save_npz`` writes it, or of a Matrix Market .mtx.
    target : str, optional
        Where a file has its labels: the name of a column, its index as text ("-1" is the last), or the name of an
        array in a .npz (default: ``y``). They are kept out of ``x``, and looked at only if ``supervised``.
    supervised : bool
        Whether to return labels too. They must be of two classes; the lesser one, by value or by alphabet, is 0.
    standardize : bool
        Whether to bring each column of ``x`` to mean 0 and standard deviation 1 (with n in the denominator); a
        constant one becomes zeros.
    vocabulary : str, optional
        Path of a text file with the names of a file's columns, one per line.

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
        missing or not of two classes; if a column to standardize has a spread that no float64 holds.
    """
    where = shown(source)
    if source in _BUNDLED + FETCHED:
        if target is not None:
            raise ValueError(f"{where}: has labels already: give a target for files only")
        if vocabulary is not None:
            raise ValueError(f"{where}: has names of columns already: give a vocabulary for files only")
        table = _bundled(source, supervised)
    else:
        read = _reader(source)
        try:
            with open(source, "rb") as file:
                table = read(where, file, target, supervised)
        except OSError as error:
            _refuse(where, error)
    if vocabulary is not None:
        table = table._replace(columns=read_vocabulary(vocabulary, table.x.shape[1]))
    if not table.columns:
        raise ValueError(f"{where}: no column is left beside the target")
    if len(table.x) < 2:
        raise ValueError(f"{where}: there is one row of data, at least two are needed")
    y, classes = (None, None) if table.labels is None else _labels(where, table)
    x = _standardized(where, table.x, table.columns) if standardize else table.x
    return Dataset(source, torch.from_numpy(x), y, tuple(table.columns), classes, standardize)


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

        bunch: Any = getattr(datasets, f"load_{name}")()
        columns, classes = ([str(text) for text in texts] for texts in (bunch.feature_names, bunch.target_names))
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
        raise ValueError(f"{where}: {table.target} has {many} ({listed(classes, 5)}), logistic regression needs two")
    return torch.from_numpy(codes.astype(np.float64)), (classes[0], classes[1])


def _standardized(where: str, x: np.ndarray, columns: list[str]) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        centred, sd = x - x.mean(0), x.std(0)
    for column, constant, spread in zip(columns, x.min(0) == x.max(0), sd, strict=True):
        if not constant and not 0 < spread < math.inf:
            what = f"column {quoted(column)} cannot be standardized"
            raise ValueError(f"{where}: {what}: its spread leaves float64's range")
    return centred / np.where(x.min(0) == x.max(0), 1.0, sd)


def _reader(source: str) -> Callable[[str, BinaryIO, str | None, bool], Table]:
    """Return the function that reads this file; raise if it is missing or of another kind."""
    where, suffix = shown(source), Path(source).suffix.lower()
    readers = {".csv": read_csv, ".npy": read_npy, ".npz": read_npz, ".mtx": read_mtx}
    try:
        mode = os.stat(source).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        if suffix or os.path.dirname(source):
            raise FileNotFoundError(f"no such file: {where}") from None
        meant = did_you_mean(source.lower(), _BUNDLED)
        there = f"{meant}bundled are {', '.join(_BUNDLED)}; or give {KINDS}"
        raise ValueError(f"unknown data set '{where}': {there}") from None
    except OSError as error:
        _refuse(where, error)
    if stat.S_ISDIR(mode):
        raise ValueError(f"{where}: this is a folder; give {KINDS}")
    if suffix not in readers:
        ending = f"ending in {suffix}" if suffix else "without an ending"
        raise ValueError(f"{where}: files {ending} are not read; give {KINDS}")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{where}: this is not a regular file")
    return readers[suffix]


def _refuse(where: str, error: OSError) -> NoReturn:
    raise type(error)(f"{where}: cannot be read: {error.strerror or error}") from error
