"""What a saved fit says of new rows. Nothing in its folder is run."""

from pathlib import Path

import pandas as pd

from guidebook.datasets import load_like
from guidebook.datasets.encoding import read_encoding
from guidebook.inference import Posterior
from guidebook.workflow.resolve import find_row, parse_options
from guidebook.workflow.rows import completed, row_table
from guidebook.workflow.saved import read_record


def predict(folder: Path, source: str) -> pd.DataFrame:
    """Return a line per new row, with the columns that ``guidebook run`` wrote to ``rows.csv`` for the rows fitted.

    The new rows are read as those were: the same columns by name, in any order, the same categories, and the same
    means and standard deviations where columns were standardised.

    Parameters
    ----------
    folder : Path
        What ``guidebook run --out`` or ``fit --out`` wrote.
    source : str
        New rows, as for `guidebook.datasets.load`.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        If the folder holds no fit, the new rows cannot be read as the old ones were, or the model says nothing of rows.
    """
    record = read_record(folder)
    if "encoding" not in record:
        raise ValueError(f"{folder} was written by an earlier version, which did not save how its data were read")
    encoding = read_encoding(record["encoding"])
    row = find_row(record["model"])  # a user's own model, FILE.py:FUNCTION, is to be resolved here
    options = parse_options(row, record["settings"])
    posterior = Posterior.load(folder / "posterior.safetensors")
    data = completed(row, posterior, load_like(source, encoding))
    if row.data.validate:
        row.data.validate(data.x, data.columns)
    if row.data.preprocess:
        data = data._replace(x=row.data.preprocess(data.x, options, encoding.top))
    table = row_table(row, posterior, data, options)
    if table is None:
        raise ValueError(f"predict: this fit of {row.name} says nothing of single rows")
    return table
