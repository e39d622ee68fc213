"""How well a fit of a user's own model predicts rows that it has not seen, as a command says it."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from guidebook.inference import Posterior, loo

MOST_DENSITIES = 2**24  # draws times rows, for a score that was not asked for


def leave_one_out(model: Callable, args: tuple[Tensor, ...], posterior: Posterior) -> dict[str, Any] | None:
    """Return the figures of `guidebook.inference.loo` and its sentence; None if rows cannot be left out.

    That is so of points, where rows share a discrete site, where observed sites have different rows, and where a row's
    density is not finite.
    """
    draws = next((len(value) for value in posterior.samples.values()), 0)
    rows = max((len(value) for value in args if value.dim()), default=0)
    if posterior.info.is_point or draws * rows > MOST_DENSITIES:
        return None
    try:
        score = loo(model, posterior, *args)
    except (ArithmeticError, ValueError):
        return None
    if not math.isfinite(score.elpd + score.error + (score.num_parameters or 0)):
        return None
    return {
        "elpd": score.elpd,
        "error": score.error,
        "num_parameters": score.num_parameters,
        "num_unreliable": score.num_unreliable,
        "sentence": repr(score),
    }
