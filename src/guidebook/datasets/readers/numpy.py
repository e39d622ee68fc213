"""NumPy's .npy and .npz files, without pickles."""

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from ..table import Table, flaw_of, listed, place, quoted, target_column
from .sparse import is_scipy, read_scipy


def read_npy(where: str, file: BinaryIO, target: str | None, supervised: bool) -> Table:
    """Read a .npy; ``where``: name used in error messages."""
    _check_kind(where, file, ".npy")
    values = _array(where, lambda: np.load(file, allow_pickle=False))
    return _split(where, where, values, target, supervised)


def read_npz(where: str, file: BinaryIO, target: str | None, supervised: bool) -> Table:
    """Read a .npz; ``where``: name used in error messages."""
    _check_kind(where, file, ".npz")
    with _attempt(where, lambda: np.load(file, allow_pickle=False)) as archive:
        found: list[str] = archive.files
        if is_scipy(found):
            return read_scipy(where, file, target, supervised)
        key = target if target in found else "y" if target is None and "y" in found else None
        rest = ["x"] if "x" in found and key != "x" else [name for name in found if name not in (key, "y")]
        arrays = {name: _array(_member(where, name), lambda name=name: archive[name]) for name in rest}
        matrices = ["x"] if "x" in rest else [name for name in rest if arrays[name].ndim == 2]
        if len(matrices) != 1:
            held = listed([f"{name} of shape {values.shape}" for name, values in arrays.items()]) or "no array"
            besides = " besides the labels" if len(rest) < len(found) else ""
            raise ValueError(f"{where}: call the matrix of data x; found {held}{besides}")
        name = matrices[0]
        x, what = arrays[name], _member(where, name)
        if key is None:
            known = f"arrays are {listed(found)}"
            if supervised and target is None:
                raise ValueError(f"{where}: which array holds the labels? give --set target=NAME; {known}")
            if target is not None and x.ndim == 2 and place(target, x.shape[1]) is None:
                raise ValueError(f"{where}: no array {quoted(target)}: {known}")
            return _split(where, what, x, target, supervised)
        table = _split(where, what, x, None, False)
        if not supervised:
            return table
        y = _array(_member(where, key), lambda: archive[key])
    what = _member(where, key)
    if y.shape != (len(x),):
        raise ValueError(f"{what}: labels of shape {y.shape} do not go with {len(x)} rows of {quoted(name)}")
    _check_labels(what, y)
    return Table(table.x, table.columns, y, f"the target {quoted(key)}")


def _member(where: str, name: str) -> str:
    return f"{where}: array {quoted(name)}"


def _split(where: str, what: str, values: np.ndarray, target: str | None, supervised: bool) -> Table:
    """Check a matrix, and take the column of labels out of it if there is one."""
    if values.ndim != 2:
        raise ValueError(f"{what}: the shape is {values.shape}, and (rows, columns) is needed")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{what}: values are of type {values.dtype}, and real numbers are needed")
    if 0 in values.shape:
        raise ValueError(f"{what}: the shape is {values.shape}: no {'columns' if values.shape[0] else 'rows'}")
    columns = [f"x{index}" for index in range(values.shape[1])]
    label = target_column(where, target, columns, supervised)
    kept = [index for index in range(len(columns)) if index != label]
    with np.errstate(over="ignore"):  # of long doubles
        x = np.array(values[:, kept], dtype=np.float64, order="C")
    finite = np.isfinite(x)
    if not finite.all():
        row, column = (int(index) for index in np.argwhere(~finite)[0])
        flaw = "NaN" if np.isnan(x[row, column]) else "infinite"
        raise ValueError(f"{what}: row {row}, column {kept[column]}: the value is {flaw}")
    table = Table(x, [columns[index] for index in kept])
    if label is None or not supervised:
        return table
    _check_labels(what, values[:, label], f", column {label}")
    return table._replace(labels=values[:, label], target=f"the target {quoted(columns[label])}")


def _check_labels(what: str, labels: np.ndarray, column: str = "") -> None:
    if labels.dtype.kind not in "biufU":
        raise ValueError(f"{what}: labels are of type {labels.dtype}, and numbers or text are needed")
    for row, label in enumerate(labels.tolist()):
        flaw = flaw_of(str(label), is_label=True)
        if flaw:
            raise ValueError(f"{what}: row {row}{column}: {flaw}")


def _check_kind(where: str, file: BinaryIO, suffix: str) -> None:
    start = file.read(6)
    file.seek(0)
    matches = {".npy": start == b"\x93NUMPY", ".npz": start[:4] in (b"PK\x03\x04", b"PK\x05\x06")}
    if not start:
        raise ValueError(f"{where}: the file is empty")
    if not matches[suffix]:
        other = next((f", but looks like a {kind}" for kind, match in matches.items() if match), "")
        raise ValueError(f"{where}: this is not a {suffix} file{other}")


def _array(what: str, read: Callable[[], Any]) -> np.ndarray:
    values = _attempt(what, read)
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{what}: this is not an array")
    return values


def _attempt(what: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # a damaged file raises anything: MemoryError, SyntaxError, zlib.error, …
        if "Object arrays" in str(error):
            raise ValueError(f"{what}: it holds Python objects (pickled), and plain numbers are needed") from error
        raise ValueError(f"{what}: it cannot be read, and seems damaged or cut short") from error
