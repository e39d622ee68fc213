"""Parquet and Arrow files, tables and data sets, by pyarrow: ``pip install 'guidebook[arrow]'``."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rows import READ, Block, Stream

ARROW = {".parquet": "parquet", ".arrow": "ipc", ".feather": "feather"}


def opened(what: str, path: Path, suffix: str) -> Any:
    """Return a file, or a folder of files, as a pyarrow data set; ``what`` opens error messages."""
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
        from pyarrow import dataset  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ModuleNotFoundError(f"{what}: reading {suffix} needs pyarrow: pip install 'guidebook[arrow]'") from None
    try:
        return dataset.dataset(path, format=ARROW[suffix])
    except pyarrow.ArrowException as error:
        raise ValueError(f"{what}: this is no {suffix} file, or it is damaged: {str(error).splitlines()[0]}") from None


def arrow_stream(name: str, source: Any, columns: Sequence[str] | None, target: str | None) -> Stream:
    """Return a pyarrow table, or a data set of files, as a stream; arguments as for `stream`.

    The matrix is in float32 if all its columns fit in that, else in float64, and so is the target. Files are read a row
    group at a time, in random order for minibatches.
    """
    from pyarrow import dataset  # pyright: ignore[reportMissingImports]

    found = source if isinstance(source, dataset.Dataset) else dataset.dataset(source)
    schema = found.schema
    names = [name for name in schema.names if name != target] if columns is None else list(columns)
    for column in [*names, *([] if target is None else [target])]:
        if column not in schema.names:
            raise ValueError(f"{name}: there is no column {column!r}; columns are {', '.join(schema.names[:20])}")
        if not _is_number(schema.field(column).type):
            kind = schema.field(column).type
            raise ValueError(
                f"{name}: column {column!r} is of {kind}, and numbers are needed: choose others by columns="
            )
    if not names:
        raise ValueError(f"{name}: no column is left beside the target")
    dtype = _floating(schema, names)
    target_dtype = dtype if target is None else _floating(schema, [target])
    size = max(1, READ // len(names))

    def passes(seed: int | None) -> Iterator[Block]:
        wanted = names if target is None else [*names, target]
        pieces = [piece for fragment in found.get_fragments() for piece in _row_groups(fragment)]
        order = range(len(pieces)) if seed is None else np.random.default_rng(seed).permutation(len(pieces))
        for place in order:
            for batch in pieces[place](columns=wanted, batch_size=size):
                if batch.num_rows:
                    x = _matrix(name, batch, names, dtype)
                    yield (x,) if target is None else (x, _matrix(name, batch, [target], target_dtype)[:, 0])

    files = [file for file in getattr(found, "files", ()) if os.path.exists(file)]  # those of this machine
    return Stream(name, found.count_rows(), passes=passes, reads_ahead=True, files=files)


def _row_groups(fragment: Any) -> list[Any]:
    """Return functions that read a file's row groups, or the file if it has none; nothing more is read ahead."""
    parts = fragment.split_by_row_group() if hasattr(fragment, "split_by_row_group") else [fragment]
    return [partial(part.to_batches, batch_readahead=1, fragment_readahead=1) for part in parts]


def _floating(schema: Any, names: Sequence[str]) -> np.dtype:
    """Return the least floating-point type that holds the numbers of these columns."""
    return np.result_type(np.float32, *(schema.field(column).type.to_pandas_dtype() for column in names))


def _matrix(name: str, batch: Any, names: Sequence[str], dtype: np.dtype) -> Tensor:
    x = np.empty((batch.num_rows, len(names)), dtype)
    for place, column in enumerate(names):
        x[:, place] = _numbers(name, batch, column)
    return torch.from_numpy(x)


def _numbers(name: str, batch: Any, column: str) -> np.ndarray:
    values = batch.column(column)
    if values.null_count:
        raise ValueError(f"{name}: column {column!r} has missing values: leave them out, or fill them in")
    return values.to_numpy(zero_copy_only=False)


def _is_number(kind: Any) -> bool:
    from pyarrow import types  # pyright: ignore[reportMissingImports]

    return types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)
