"""L-BFGS for losses without noise, such as that of a point estimate: a few dozen steps where Adam takes thousands.

Liu and Nocedal (1989), On the limited memory BFGS method for large scale optimization, Mathematical Programming 45.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..progress import Progress
from .result import FitResult

NO_VALUE = 1e30  # stands for a loss that is not a number, so that the line search turns back
MAX_GRADIENT = 1e-4  # largest entry at a stationary point, relative to 1 + |loss|
MAX_DECREMENT = 0.01  # nats that a quasi-Newton step from there would gain: the gradient in units of the curvature


def fit_lbfgs(
    loss_and_grads: Callable[[], Any], params: Sequence[Tensor], *, num_steps: int, bar: Progress
) -> FitResult | None:
    """Minimise a loss as `fit_eagerly` takes it by L-BFGS; on success ``params`` hold the minimiser.

    Otherwise they are restored and the result is None: the loss is noisy (it changes from call to call) or not finite
    at the start, or the line search fails away from a stationary point.
    """
    from scipy.optimize import minimize  # slow to import

    losses: list[float] = []

    def flat(tensors: Sequence[Tensor]) -> np.ndarray:
        return torch.cat([t.detach().reshape(-1) for t in tensors]).double().cpu().numpy()

    @torch.no_grad()
    def put(vector: np.ndarray) -> None:
        for part, p in zip(torch.from_numpy(vector).split([p.numel() for p in params]), params, strict=True):
            p.copy_(part.view(p.shape))

    def evaluate(vector: np.ndarray) -> tuple[float, np.ndarray]:
        put(vector)
        for p in params:
            p.grad = None
        try:
            value = float(loss_and_grads())
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            value = float("nan")
        gradient = flat([torch.zeros_like(p) if p.grad is None else p.grad for p in params])
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return NO_VALUE, np.zeros(len(vector))
        return value, gradient

    def note(intermediate_result) -> None:
        losses.append(float(intermediate_result.fun))
        bar.update(len(losses), f"log density {-losses[-1]:.2f}")

    start = flat(params)
    first, again = evaluate(start)[0], evaluate(start)[0]
    if first != again or first == NO_VALUE:
        put(start)
        return None
    options = {"maxiter": num_steps, "maxfun": 20 * num_steps, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-6}
    found = minimize(evaluate, start, jac=True, method="L-BFGS-B", options=options, callback=note)
    value, gradient = evaluate(found.x)
    largest = float(np.abs(gradient).max())
    stationary = value < NO_VALUE and largest <= MAX_GRADIENT * (1 + abs(value))
    if not stationary and found.nit < num_steps:
        put(start)
        return None
    losses = losses or [value]
    message = f"reached a stationary point in {len(losses)} iterations (largest gradient {largest:.1e})"
    decrement = float(gradient @ found.hess_inv.matvec(gradient)) / 2
    if stationary and decrement > MAX_DECREMENT:
        stationary = False
        message = f"ended where a further step would still gain about {decrement:.2g} nats: scale data and parameters"
    elif not stationary:
        message = f"took all {len(losses)} iterations with a gradient of {largest:.1e} left: take more steps"
    return FitResult(torch.tensor(losses, dtype=torch.float64), "L-BFGS", stationary, message)
