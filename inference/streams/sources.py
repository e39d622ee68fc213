"""From whatever holds data to a `Stream`."""

import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from .arrays import array_stream, mapped, mapped_parts, without_copy
from .arrow import ARROW, arrow_stream
from .rows import Block, Stream


def stream(
    source: Any,
    *,
    num_rows: int | None = None,
    columns: Sequence[str] | None = None,
    target: str | None = None,
    dense: bool = True,
    by: str = "rows",
) -> Stream:
    """Return data of any kind as rows that `svi`, `em`, `cavi` and `online` read in blocks.

    Parameters
    ----------
    source : path, array, sparse matrix, Arrow table, DataLoader, callable or iterable
        A path: a .npy, which is mapped into memory and not read; a .npz with a SciPy sparse matrix; a .parquet, .arrow
        or .feather; or a folder of such Arrow files, or of .npy files whose rows follow one another. A NumPy array, a
        memory-mapped one as well, a tensor, or a tuple of them with as many rows. A SciPy sparse matrix. A pyarrow
        table or dataset. A torch ``DataLoader``. A function that returns an iterator of batches, called for every
        pass, or a sequence of batches; a batch is a tensor or array, or a tuple of them, one for each argument of the
        model.
    num_rows : int, optional
        How many rows a pass has. Default: what the source says, or else counted in a first pass.
    columns : sequence of str, optional
        Columns of Arrow data that make up the matrix. Default: all but ``target``.
    target : str, optional
        A column of Arrow data that is the model's second argument.
    dense : bool
        Whether rows of a sparse matrix become dense ones, which all models but `lda` need. For steps of `lda` they stay
        sparse anyway.
    by : {"rows", "blocks"}
        How minibatches are taken from arrays: row by row, at random among all, which is quick as long as they fit in
        the system's file cache; or from consecutive blocks, in random order and shuffled, as they are from files that
        can only be read in order.

    Returns
    -------
    Stream

    Raises
    ------
    ValueError
        If the source is of another kind, or an iterator, of which there is only one pass.
    OSError
        If a file cannot be read.
    ModuleNotFoundError
        If pyarrow is needed and not installed.
    """
    if isinstance(source, Stream):
        return source
    if by not in ("rows", "blocks"):
        raise ValueError(f"stream: by must be 'rows' or 'blocks', got {by!r}")
    name = "stream"
    if isinstance(source, str | os.PathLike):
        name, source = f"stream: {os.fspath(source)}", _opened(Path(source))
    if _is_arrow(source):
        return arrow_stream(name, source, columns, target)
    if columns is not None or target is not None:
        raise ValueError(f"{name}: columns and target are for Arrow data, which have names")
    if isinstance(source, Stream):  # of a folder
        return source
    if isinstance(source, Tensor) and source.layout != torch.strided:
        source = _scipy(source)
    if hasattr(source, "tocsr"):
        return _sparse_stream(name, source, dense=dense)
    arrays = source if isinstance(source, tuple) else (source,)
    if arrays and all(isinstance(value, Tensor | np.ndarray) for value in arrays):
        return array_stream(name, arrays, by=by)
    if isinstance(source, DataLoader):
        known = num_rows if num_rows is not None else _size_of(source)
        found = Stream(name, known, passes=partial(_batches, name, lambda: source))
        in_order = isinstance(source.sampler, SequentialSampler) or isinstance(source.dataset, IterableDataset)
        found.shuffles = not in_order
        found.batch_size = source.batch_size
        return found
    if isinstance(source, Iterator):
        raise ValueError(f"{name}: {_kind(source)} can be read once only: give a function that returns a new one")
    if callable(source) or isinstance(source, Iterable):
        make = source if callable(source) else lambda: source
        return Stream(name, num_rows, passes=partial(_batches, name, make))
    raise ValueError(f"{name}: {_kind(source)} holds no rows that could be read in blocks")


def is_source(value: Any) -> bool:
    """Whether an argument of a method can only be data to be read in blocks."""
    return isinstance(value, Stream | DataLoader) or _is_arrow(value)


def _opened(path: Path) -> Any:
    suffix = path.suffix.lower()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if not file.name.startswith((".", "_")))
        if files and all(file.suffix == ".npy" for file in files):
            return mapped_parts(f"stream: {path}", files)
        suffix = next((file.suffix for file in files if file.suffix in ARROW), "")
        if not suffix:
            raise ValueError(f"stream: {path}: a folder must hold .npy files, or {', '.join(ARROW)} files")
    elif not path.exists():
        raise FileNotFoundError(f"stream: no such file: {path}")
    if suffix == ".npy":
        return mapped(f"stream: {path}", path)
    if suffix == ".npz":
        from scipy import sparse  # slow to import

        try:
            return sparse.load_npz(path).tocsr()
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"stream: {path}: this is no sparse matrix of SciPy's: {error}") from None
    if suffix in ARROW:
        from .arrow import opened

        return opened(f"stream: {path}", path, suffix)
    raise ValueError(f"stream: {path}: give a .npy, a sparse .npz, a {', '.join(ARROW)}, or a folder of such files")


def _is_arrow(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pyarrow" and "pyarrow" in sys.modules


def _sparse_stream(name: str, matrix: Any, *, dense: bool) -> Stream:
    rows = matrix.tocsr()
    if rows.ndim != 2:
        raise ValueError(f"{name}: a sparse matrix must have two dimensions, got {rows.ndim}")
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    dtype = torch.float32 if rows.dtype == np.float32 else torch.float64

    def part(index: slice | Tensor) -> Any:
        return rows[index if isinstance(index, slice) else index.numpy()]

    def dense_at(index: slice | Tensor) -> Block:
        return (torch.from_numpy(np.asarray(part(index).toarray())).to(dtype),)

    def sparse_at(index: slice | Tensor) -> Block:
        coo = part(index).tocoo()
        places = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
        values = torch.from_numpy(coo.data).to(dtype)
        made = torch.sparse_coo_tensor(places, values, coo.shape, check_invariants=False, is_coalesced=True)
        return (made,)

    found = Stream(name, rows.shape[0], at=dense_at if dense else sparse_at)
    found.sparse_at = sparse_at
    return found


def _scipy(matrix: Tensor) -> Any:
    """Return a sparse tensor as one of SciPy's, row by row."""
    from scipy import sparse  # slow to import

    coo = matrix.detach().cpu().to_sparse_coo().coalesce()
    return sparse.csr_array((coo.values().numpy(), tuple(coo.indices().numpy())), shape=tuple(coo.shape))


def _size_of(loader: DataLoader) -> int | None:
    """Return how many rows a pass over a loader has, if that is known."""
    try:
        rows = len(loader.sampler)  # pyright: ignore[reportArgumentType]
    except TypeError:
        return None
    if loader.batch_size is None or type(loader.batch_sampler) is not torch.utils.data.BatchSampler:
        return None
    return rows - rows % loader.batch_size if loader.drop_last else rows


def _batches(name: str, make: Callable[[], Any], seed: int | None) -> Iterator[Block]:
    for batch in make():
        yield _as_block(name, batch)


def _as_block(name: str, batch: Any) -> Block:
    """Return a batch as tensors with as many rows."""
    if isinstance(batch, Mapping):
        raise ValueError(f"{name}: a batch is a dict: give a tuple, in the order of the model's arguments")
    values = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
    block = tuple(without_copy(name, value) if isinstance(value, np.ndarray) else value for value in values)
    for value in block:
        if not isinstance(value, Tensor) or not value.dim():
            raise ValueError(
                f"{name}: a batch must be a tensor or array with rows, or a tuple of them, got {_kind(value)}"
            )
    if len({len(value) for value in block}) != 1:
        raise ValueError(f"{name}: the parts of a batch have {', '.join(str(len(value)) for value in block)} rows")
    return block


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
