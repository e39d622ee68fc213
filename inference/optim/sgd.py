"""Stochastic gradient descent whose answer does not jitter: a decaying step size and averaged last iterates.

Dhaka, Catalina, Andersen, Magnusson, Huggins and Vehtari (2020), Robust, accurate stochastic optimization for
variational inference, NeurIPS; Polyak and Juditsky (1992), Acceleration of stochastic approximation by averaging.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..progress import Progress

CONSTANT = 0.3  # share of the steps at the full step size, before it decays
FINAL = 0.01  # step size at the end, relative to the full one; the decay is geometric
AVERAGED = 0.3  # share of the steps, the last ones, whose parameters are averaged
# Averaging starts late: while the steps are large, jitter of the parameters adds to a guide's spread, its own scale
# makes up for that by shrinking, and an average of such iterates would be too narrow.


def minimise(
    loss_and_grads: Callable[[], float],
    params: Sequence[Tensor],
    *,
    optim: Callable[..., torch.optim.Optimizer],
    lr: float,
    num_steps: int,
    bar: Progress,
) -> Tensor:
    """Take gradient steps, and leave the average of the last iterates in ``params``.

    Parameters
    ----------
    loss_and_grads : callable
        Returns the loss and adds its gradient to ``.grad`` of every parameter.
    params : sequence of Tensor
        Unconstrained leaves.
    optim : callable
        ``(params, lr=…) -> torch.optim.Optimizer``.
    lr : float
        Step size at first; later it decays to a hundredth of that.
    num_steps : int
    bar : Progress
        Shows the running mean of what the loss is the negative of, an ELBO as a rule.

    Returns
    -------
    Tensor, shape (num_steps,)
        The losses.

    Raises
    ------
    FloatingPointError
        At a loss that is not finite.
    """
    optimiser = optim(params, lr=lr)
    averages = [torch.zeros_like(p) for p in params]
    losses = torch.empty(num_steps, dtype=torch.float64)
    rates, weights = (values.tolist() for values in schedule(lr, num_steps))
    for step, (rate, weight) in enumerate(zip(rates, weights, strict=True)):
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        losses[step] = value = loss_and_grads()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {step}")
        optimiser.step()
        if weight:
            with torch.no_grad():
                for average, p in zip(averages, params, strict=True):
                    average += weight * (p - average)
        if step % 50 == 0:
            bar.update(step + 1, f"ELBO {-float(losses[max(0, step - 99) : step + 1].mean()):.2f}")
    bar.update(num_steps, f"ELBO {-float(losses[-100:].mean()):.2f}")
    with torch.no_grad():
        for average, p in zip(averages, params, strict=True):
            p.copy_(average)
    return losses


def schedule(lr: float, num_steps: int) -> tuple[Tensor, Tensor]:
    """Step size of each step, and the weight that the parameters after it have in the average so far: (step,) each."""
    step = torch.arange(num_steps, dtype=torch.float64)
    decayed = (step / num_steps - CONSTANT).clamp(min=0) / (1 - CONSTANT)
    since = step - (num_steps - max(1, int(AVERAGED * num_steps)))  # steps since the first that is averaged
    return lr * FINAL**decayed, torch.where(since >= 0, 1 / (since + 1).clamp(min=1), 0.0)


def late_fall(losses: Tensor, *, noisy: bool = True) -> float:
    """How far the loss still fell when it should have been level, in nats; 0 where that is within noise.

    The last fifth of the phase of constant step size against the fifth before it: later on a smaller step alone lowers
    the loss, by lessening the parameters' jitter. A loss without noise has no jitter, and is judged at its end.
    """
    judged = losses[: int(CONSTANT * len(losses))] if noisy else losses
    width = len(judged) // 5
    if width < 10:
        return 0.0
    early, late = judged[-2 * width : -width], judged[-width:]
    fall = float(early.mean() - late.mean())
    error = float(torch.sqrt((early.var() + late.var()) / width)) if noisy else 0.0
    return fall if fall > max(4 * error, 0.01 + 1e-6 * abs(float(late.mean()))) else 0.0
