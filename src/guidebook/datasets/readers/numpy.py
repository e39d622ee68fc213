"""NumPy's .npy and .npz files, without pickles."""

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from ..cells import flaw_of
from ..table import Table, check_matrix, finite, listed, place, quoted, target_column
from .archives import check_unpacked
from .images import pixel_names
from .sparse import is_scipy, read_scipy

_STARTS = {".npy": (b"\x93NUMPY",), ".npz": (b"PK\x03\x04", b"PK\x05\x06")}


def read_npy(where: str, file: BinaryIO, target: str | None, supervised: bool) -> Table:
    """Read a .npy: a matrix, or images of shape (rows, height, width); ``where``: name used in error messages."""
    values = _load(where, file, ".npy")
    if values.ndim == 3 and target is None and not supervised:
        names, values = pixel_names(*values.shape[1:]), values.reshape(len(values), -1)
        check_matrix(where, values)
        return Table(finite(where, values, range(values.shape[1])), names)
    check_matrix(where, values)
    return _split(where, where, values, target, supervised)


def read_npz(where: str, file: BinaryIO, target: str | None, supervised: bool) -> Table:
    """Read a .npz: the matrix ``x``, or the only one that holds no labels; ``where``: name used in error messages."""
    with _load(where, file, ".npz") as archive:
        check_unpacked(where, archive)
        found: list[str] = archive.files
        if is_scipy(found):
            return read_scipy(where, file, target, supervised)
        key = "y" if target is None else target
        rest = [name for name in found if name not in (key, "y")]
        arrays = {name: _member(where, archive, name) for name in (["x"] if "x" in rest else rest)}
        matrices = [name for name, values in arrays.items() if name == "x" or values.ndim == 2]
        if len(matrices) != 1:
            held = listed([f"{name} of shape {values.shape}" for name, values in arrays.items()]) or "no array"
            besides = " besides the labels" if len(rest) < len(found) else ""
            raise ValueError(f"{where}: call the matrix of data x; found {held}{besides}")
        name = matrices[0]
        x, what = arrays[name], f"{where}: array {quoted(name)}"
        check_matrix(what, x)
        if key not in found:
            if place(target, x.shape[1]) is None and (supervised or target is not None):
                which = "which array holds the labels? give --target NAME"
                raise ValueError(f"{where}: no array {quoted(key)}: {which}; arrays are {listed(found)}")
            return _split(where, what, x, target, supervised)
        table = _split(where, what, x, None, False)
        if not supervised:
            return table
        y = _member(where, archive, key)
    what = f"{where}: array {quoted(key)}"
    if y.shape != (len(x),):
        raise ValueError(f"{what}: labels of shape {y.shape} do not go with {len(x)} rows of {quoted(name)}")
    _check_labels(what, y)
    return table._replace(labels=y, target=f"the target {quoted(key)}")


def _split(where: str, what: str, values: np.ndarray, target: str | None, supervised: bool) -> Table:
    """Take the column of labels, if there is one, out of a matrix."""
    columns = [f"x{index}" for index in range(values.shape[1])]
    label = target_column(where, target, columns, supervised)
    kept = [index for index in range(len(columns)) if index != label]
    table = Table(finite(what, values[:, kept], kept), [columns[index] for index in kept])
    if label is None or not supervised:
        return table
    _check_labels(what, values[:, label], f", column {label}")
    return table._replace(labels=values[:, label], target=f"the target {quoted(columns[label])}")


def _check_labels(what: str, labels: np.ndarray, column: str = "") -> None:
    if labels.dtype.kind not in "biufU":
        raise ValueError(f"{what}: labels are of type {labels.dtype}, and numbers or text are needed")
    for row, label in enumerate(labels.tolist()):
        if flaw := flaw_of(str(label), is_label=True):
            raise ValueError(f"{what}: row {row}{column}: {flaw}")


def _load(where: str, file: BinaryIO, suffix: str) -> Any:
    start = file.read(6)
    file.seek(0)
    if not start:
        raise ValueError(f"{where}: the file is empty")
    kind = next((kind for kind, starts in _STARTS.items() if start.startswith(starts)), None)
    if kind != suffix:
        raise ValueError(f"{where}: this is not a {suffix} file{f', but looks like a {kind}' if kind else ''}")
    return _attempt(where, lambda: np.load(file, allow_pickle=False))


def _member(where: str, archive: Any, name: str) -> np.ndarray:
    values = _attempt(f"{where}: array {quoted(name)}", lambda: archive[name])
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{where}: array {quoted(name)}: this is not an array")
    return values


def _attempt(what: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # a damaged file raises anything: MemoryError, SyntaxError, zlib.error, …
        if "Object arrays" in str(error):
            raise ValueError(f"{what}: it holds Python objects (pickled), and plain numbers are needed") from error
        raise ValueError(f"{what}: it cannot be read, and seems damaged or cut short") from error
