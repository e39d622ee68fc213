"""Quasi-Newton steps for losses without noise, such as that of a point: a few dozen where Adam takes thousands.

Liu and Nocedal (1989), On the limited memory BFGS method for large scale optimization, Mathematical Programming 45.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from ..progress import Progress

_NO_VALUE = 1e30  # where the loss is not a number: more than any loss, so that the line search turns back
_STATIONARY = 1e-4  # largest gradient at the end, relative to the loss, at which the point counts as one


class Descent(NamedTuple):
    """Where quasi-Newton steps have led.

    Attributes
    ----------
    losses : Tensor, shape (iteration,)
        In nats.
    gradient : float
        Largest entry of the last gradient.
    converged : bool
        Whether it is near zero; else the iterations ran out.
    """

    losses: Tensor
    gradient: float
    converged: bool


def minimise_exactly(
    loss_and_grads: Callable[[], float], params: Sequence[Tensor], *, num_steps: int, bar: Progress
) -> Descent | None:
    """Minimise by L-BFGS; leaves the end in ``params``, or the start where it is of no use.

    Parameters
    ----------
    loss_and_grads : callable
        Returns the loss and adds its gradient to ``.grad`` of every parameter.
    params : sequence of Tensor
        Unconstrained leaves.
    num_steps : int
        Iterations, at most.
    bar : Progress

    Returns
    -------
    Descent or None
        None where the loss changes from call to call, or the line search breaks down away from a stationary point.
    """
    losses: list[float] = []
    sizes = [p.numel() for p in params]

    def put(vector: np.ndarray) -> None:
        with torch.no_grad():
            for part, p in zip(torch.from_numpy(vector).split(sizes), params, strict=True):
                p.copy_(part.view(p.shape))

    def evaluate(vector: np.ndarray) -> tuple[float, np.ndarray]:
        put(vector)
        for p in params:
            p.grad = None
        try:
            value = loss_and_grads()
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            value = float("nan")
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        grad = torch.cat([g.detach().reshape(-1) for g in grads]).double().cpu().numpy()
        if not (np.isfinite(value) and np.isfinite(grad).all()):
            return _NO_VALUE, np.zeros(len(vector))
        return value, grad

    def note(intermediate_result) -> None:
        losses.append(float(intermediate_result.fun))
        bar.update(len(losses), f"log density {-losses[-1]:.2f}")

    start = torch.cat([p.detach().reshape(-1) for p in params]).double().cpu().numpy()
    first, again = evaluate(start)[0], evaluate(start)[0]
    if first != again or first == _NO_VALUE:
        put(start)
        return None
    options = {"maxiter": num_steps, "maxfun": 20 * num_steps, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-6}
    found = minimize(evaluate, start, jac=True, method="L-BFGS-B", options=options, callback=note)
    value, grad = evaluate(found.x)
    gradient = float(np.abs(grad).max())
    stationary = value < _NO_VALUE and gradient <= _STATIONARY * (1 + abs(value))
    if not stationary and found.nit < num_steps:
        put(start)
        return None
    return Descent(torch.tensor(losses or [value], dtype=torch.float64), gradient, stationary)
