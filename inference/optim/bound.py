"""The evidence lower bound of a fitted guide, with its error and k̂."""

import math
from typing import Any

from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

from ..diagnostics import k_hat
from .landing import StickingElbo


def bound_of(loss: Any, losses: Tensor, log_weights: Tensor | None, *, large: bool) -> dict[str, Any]:
    """Return the fields of `SviInfo` that tell of the bound, in nats: none where it is not known.

    By the log weights of draws, (draw), if there are any; for ``large`` data, at which draws are not evaluated, by the
    last tenth of the ``losses`` (step,), without k̂.
    """
    if large:
        bounds = (Trace_ELBO, TraceMeanField_ELBO, StickingElbo)
        return _mean_and_error(-losses[-max(1, len(losses) // 10) :]) if type(loss) in bounds else {}
    return {} if log_weights is None else bound_by_weights(log_weights)


def bound_by_weights(log_weights: Tensor) -> dict[str, Any]:
    """Return the fields of `SviInfo` that come from log weights of draws, (draw), in nats."""
    weights = log_weights.cpu().double()
    return _mean_and_error(weights) | {"k_hat": k_hat(weights), "log_weights": weights}


def _mean_and_error(values: Tensor) -> dict[str, Any]:
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
    return {"elbo": float(values.mean()), "elbo_se": error}
