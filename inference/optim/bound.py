"""The evidence lower bound of a fitted guide, with its error and k̂."""

import math
from typing import Any

from torch import Tensor

from ..diagnostics import k_hat


def bound_by_weights(log_weights: Tensor) -> dict[str, Any]:
    """Return the fields of `SviInfo` that come from log weights of draws, (draw), in nats."""
    weights = log_weights.cpu().double()
    return _mean_and_error(weights) | {"k_hat": k_hat(weights), "log_weights": weights}


def bound_by_losses(losses: Tensor) -> dict[str, Any]:
    """Return the ELBO and its error, in nats, by the last tenth of the losses (step,): without k̂."""
    return _mean_and_error(-losses[-max(1, len(losses) // 10) :])


def _mean_and_error(values: Tensor) -> dict[str, Any]:
    return {"elbo": float(values.mean()), "elbo_se": float(values.std() / math.sqrt(len(values)))}
