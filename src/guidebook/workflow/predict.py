"""What a saved fit says of new rows. Nothing in its folder is run, and a user's own file only as it was."""

from pathlib import Path
from typing import Any

import pandas as pd

from guidebook.datasets import load_like
from guidebook.datasets.encoding import read_encoding
from guidebook.inference import Posterior
from guidebook.workflow.fitted import model_of, read_record
from guidebook.workflow.own.file import SHOWN, is_own
from guidebook.workflow.own.inputs import read_inputs
from guidebook.workflow.own.rows import predicted_rows, say_left_out
from guidebook.workflow.resolve import find_row, parse_options
from guidebook.workflow.rows import completed, row_table


def predict(folder: Path, source: str, model: str | None = None) -> pd.DataFrame:
    """Return a line per new row, with the columns that ``guidebook run`` wrote to ``rows.csv`` for the rows fitted.

    The new rows are read as those were: the same columns by name, in any order, the same categories, and the same
    means and standard deviations where columns were standardised. Of a user's own model, these are figures of its
    posterior predictive.

    Parameters
    ----------
    folder : Path
        What ``guidebook run --out`` or ``fit --out`` wrote.
    source : str
        New rows, as for `guidebook.datasets.load`; for a user's own model a file with its arguments by name.
    model : str, optional
        ``FILE.py:FUNCTION`` in place of the user's own model that the folder names.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        If the folder holds no fit, the new rows cannot be read as the old ones were, or the model says nothing of rows.
    """
    record = read_record(folder)
    if model is not None and not (is_own(model) and is_own(record["model"])):
        raise ValueError(f"predict: --model {SHOWN} is for fits of such a model, and {folder} is of {record['model']}")
    if is_own(record["model"]):
        return _of_own(folder, record, source, model)
    if "encoding" not in record:
        raise ValueError(f"{folder} was written by an earlier version, which did not save how its data were read")
    encoding = read_encoding(record["encoding"])
    row = find_row(record["model"])
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
    say_left_out(source, data.left_out)
    return table


def _of_own(folder: Path, record: dict[str, Any], source: str, model: str | None) -> pd.DataFrame:
    inputs = read_inputs(record.get("inputs"))
    row = find_row(model or model_of(folder, record))
    options = parse_options(row, record["settings"])
    posterior = Posterior.load(folder / "posterior.safetensors")
    return predicted_rows(row, options, inputs, posterior, source)
