"""A first run of a user's model: its trace, or why it cannot be run."""

from collections.abc import Callable
from contextlib import suppress

import torch
from pyro import poutine
from pyro.poutine import Trace

from ..options import device_of
from .errors import explained
from .init import InitToUniform
from .validation import unvalidated


def first_run(method: str, function: Callable, data: tuple, what: str = "model") -> Trace:
    """Return a trace of the model at a draw from its prior, or of the guide; if that fails, a ValueError says why.

    Where draws give a distribution parameters that are out of range, others are tried, and in the end taken as they
    are: the search for a start will name the site.
    """
    failed: Exception | None = None
    closer = (InitToUniform(radius, device_of(data)) for radius in (2.0, 1.0, 0.1, 0.0))
    for messenger in (None, None, None, *closer):
        try:
            with torch.no_grad():
                trace = poutine.trace(messenger(function) if messenger else function).get_trace(*data)
                trace.compute_log_prob()
            return trace
        except Exception as error:
            failed = failed or error
            if not _depends_on_draw(error):
                break
    assert failed is not None
    with suppress(Exception), torch.no_grad(), unvalidated():
        if _depends_on_draw(failed):
            return poutine.trace(function).get_trace(*data)
    raise ValueError(explained(method, failed, what)) from None


def _depends_on_draw(error: Exception) -> bool:
    """Whether another draw may have no such error: parameters out of range, or a matrix without a factorisation."""
    singular = isinstance(error, torch.linalg.LinAlgError)  # pyright: ignore[reportPrivateImportUsage]
    return singular or "satisfy the constraint" in str(error)
