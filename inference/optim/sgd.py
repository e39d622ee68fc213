"""What keeps the answer of stochastic gradient steps from jittering: a decaying step size and averaged iterates.

Dhaka, Catalina, Andersen, Magnusson, Huggins and Vehtari (2020), Robust, accurate stochastic optimization for
variational inference, NeurIPS; Polyak and Juditsky (1992), Acceleration of stochastic approximation by averaging.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

CONSTANT = 0.3  # fraction of the steps at the full step size, before it decays
FINAL = 0.01  # last step size, relative to the full one; the decay is geometric
AVERAGED = 0.3  # fraction of the steps, the last ones, whose parameters are averaged
# Averaging starts late: while the steps are large, the parameters' jitter widens a guide, its scale shrinks to make up
# for that, and the average of such iterates would be too narrow.


def schedule(lr: float, num_steps: int, constant: float = CONSTANT) -> tuple[Tensor, Tensor]:
    """Return each step's size, and the weight in the average so far of the parameters after it: (step,) each.

    ``constant`` is the fraction of the steps before the decay; the same part of the decay is averaged in any case.
    """
    step = torch.arange(num_steps, dtype=torch.float64)
    decay = (step / num_steps - constant).clamp(min=0) / (1 - constant)
    averaged = AVERAGED * (1 - constant) / (1 - CONSTANT)
    since = step - (num_steps - max(1, int(averaged * num_steps)))  # steps since the first that is averaged
    return lr * FINAL**decay, torch.where(since >= 0, 1 / (since + 1).clamp(min=1), 0.0)


class Average:
    """Running average of parameters."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        self._params, self._means, self._is_current = params, [torch.zeros_like(p) for p in params], False

    @torch.no_grad()
    def update(self, weight: float) -> None:
        """Move the average towards the parameters by ``weight``, between 0 and 1."""
        self._is_current = weight > 0
        if weight:
            for mean, p in zip(self._means, self._params, strict=True):
                mean.lerp_(p, weight)

    def state(self) -> Any:
        """Return the average, and whether the parameters are part of it."""
        return self._means, self._is_current

    @torch.no_grad()
    def restore(self, state: Any) -> None:
        """Go back to an average."""
        means, self._is_current = state
        for mean, saved in zip(self._means, means, strict=True):
            mean.copy_(saved)

    @torch.no_grad()
    def write(self) -> None:
        """Set the parameters to their average, unless they are not part of it, as when steps ended early."""
        if self._is_current:
            for mean, p in zip(self._means, self._params, strict=True):
                p.copy_(mean)
