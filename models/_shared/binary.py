"""Columns of zeros and ones."""

from torch import Tensor


def check_binary(model: str, x: Tensor, rule: str) -> None:
    """Raise ValueError, with the first entry that is neither 0 nor 1, and the rule that says what to do about it."""
    if (bad := (x != 0) & (x != 1)).any():
        row, column = bad.nonzero()[0].tolist()
        raise ValueError(f"{model}: row {row}, column {column} is {float(x[row, column]):g}: {rule}")


def log_odds(x: Tensor) -> Tensor:
    """Return the log odds of a one in each column, half a row of each kind added, so that they are finite."""
    return ((x.sum(0) + 0.5) / ((1 - x).sum(0) + 0.5)).log()
