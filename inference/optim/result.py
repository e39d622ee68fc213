"""What a fit of parameters returns, and whether its loss has levelled off."""

from typing import NamedTuple

import torch
from torch import Tensor

from .sgd import CONSTANT


class FitResult(NamedTuple):
    """How a fit of parameters went, as in `SviInfo`; the parameters themselves were changed in place."""

    losses: Tensor
    engine: str  # "compiled", "eager" or "L-BFGS"
    converged: bool
    message: str


def gradient_result(losses: Tensor, engine: str, *, noisy: bool) -> FitResult:
    """Return the result of gradient steps: converged unless their loss was still falling."""
    message = f"took all {len(losses)} steps"
    if decrease := remaining_decrease(losses, noisy=noisy):
        message += f" with the loss still falling, last by {decrease:.3g} nats: take more steps"
    return FitResult(losses, engine, not decrease, message)


def remaining_decrease(losses: Tensor, *, noisy: bool = True) -> float:
    """Return how far the loss still fell when it should have been level, in nats; 0 if within noise.

    The last fifth of the steps at the full step size is compared with the fifth before it: later, a smaller step alone
    lowers the loss, since the parameters jitter less. A loss without noise has no jitter, and is judged at its end.
    """
    judged = losses[: int(CONSTANT * len(losses))] if noisy else losses
    width = len(judged) // 5
    if width < 10:
        return 0.0
    early, late = judged[-2 * width : -width], judged[-width:]
    decrease = float(early.mean() - late.mean())
    error = float(torch.sqrt((early.var() + late.var()) / width)) if noisy else 0.0
    return decrease if decrease > max(4 * error, 0.01 + 1e-6 * abs(float(late.mean()))) else 0.0
