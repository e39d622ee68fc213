"""Files that ``guidebook run`` reads in blocks: a task whose rows are not in memory."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guidebook.workflow.fit import Task

LARGE = 2**30  # bytes of a .npy from which it is read in blocks unasked
ALWAYS = (".parquet", ".arrow", ".feather")
ASKED = (".npy", ".npz")


def in_blocks(data: str | None, *, asked: bool, several: bool = False) -> bool:
    """Whether a file or folder is read in blocks; ``asked`` says that rows per step are given.

    ``several`` processes read all data at once: a ValueError says so of files that can only be read in blocks.
    """
    if data is None:
        return False
    path = Path(data)
    if path.is_dir():
        found = any(file.suffix in (*ALWAYS, ".npy") for file in path.iterdir())
    else:
        found = path.suffix in ALWAYS and path.exists()
    if several and found:
        raise ValueError(f"run: {data} is read in blocks, by one process: give several a .npy or a CSV file")
    if found or several or path.suffix not in ASKED or not path.exists():
        return found
    return asked or (path.suffix == ".npy" and path.stat().st_size >= LARGE)


def load_in_blocks(model: str, data: str, settings: Iterable[str] | None) -> "Task":
    """Look up a model, and open its data: the task has some example rows, and a stream of all.

    Columns that are to be standardized are, by means and standard deviations of all rows, for which a pass is made.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        As for `load_task`; besides, for options of the data that need all of them at once.
    """
    from guidebook.datasets import Dataset
    from guidebook.inference import stream
    from guidebook.workflow.fit import make_task
    from guidebook.workflow.resolve import find_row, parse_options

    settings = tuple(settings or ())
    row = find_row(model, settings)
    if row.own:
        raise ValueError(
            f"run: {data} is read in blocks, for models of the collection; in Python: svi(model, guide, stream(…))"
        )
    options = parse_options(row, settings)
    for name in ("vocabulary", "id", "drop", "columns", "categories", "text", "missing"):
        if options.get(name) and name in {setting.partition("=")[0] for setting in settings}:
            raise ValueError(f"run: {name} is for data that are read at once, and {data} is read in blocks")
    if row.data.supervised and not options["target"]:
        raise ValueError(f"run: which column of {data} holds the labels? give --target NAME")
    source = stream(data, target=options["target"] if row.data.supervised else None)
    if len(source.shape) != 2 or source.shape[1] < 1 or len(source) < 2:
        raise ValueError(f"run: {data} must hold a matrix of two or more rows, and its shape is {tuple(source.shape)}")
    if options["standardize"]:
        source = _standardized(source)
    x, *rest = (value.double() for value in source.example(1))
    names = tuple(f"x{k}" for k in range(x.shape[1]))
    if row.data.validate:
        row.data.validate(x, names)
    if (prepare := row.data.preprocess) is not None:
        top = float(x.max())
        x = prepare(x, options, top)
        source = source.mapped(lambda block: (prepare(block[0].double(), options, top), *block[1:]))
    classes = ("0", "1") if row.data.supervised else None
    found = Dataset(data, x, rest[0] if rest else None, names, classes, bool(options["standardize"]))
    return make_task(row, found, options)._replace(source=data, settings=settings, stream=source)


def _standardized(source: Any) -> Any:
    """Return a stream whose columns have mean 0 and population standard deviation 1; constant ones become zeros."""
    import torch

    count, shift = len(source), source.first[0].double().mean(0)
    first, second = torch.zeros_like(shift), torch.zeros_like(shift)
    for block in source.blocks():
        centred = block[0].double() - shift  # near the mean, so that squares keep their digits
        first += centred.sum(0)
        second += centred.square().sum(0)
    mean = first / count
    sd = (second / count - mean.square()).clamp(min=0).sqrt()
    sd = torch.where(sd > 0, sd, torch.inf)
    return source.mapped(lambda block: ((block[0].double() - shift - mean) / sd, *block[1:]))
