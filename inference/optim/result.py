"""What a fit of parameters returns."""

from typing import NamedTuple

from torch import Tensor


class FitResult(NamedTuple):
    """How a fit of parameters went, as in `SviInfo`; the parameters themselves were changed in place."""

    losses: Tensor
    engine: str  # "compiled", "eager", "Newton" or "L-BFGS"
    converged: bool
    message: str
    ended: bool = False  # by the caller, before it could converge
