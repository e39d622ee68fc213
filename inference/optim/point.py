"""Point guides moved to the mode by Newton's method, so that the units of data and parameters do not matter."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation
from pyro.infer.autoguide.utils import deep_setattr
from torch import Tensor

from ..engines.batched import Batched
from ..options import size_of
from ..progress import Progress
from ..traces.log_joint import LogJoint
from ..traces.potential import Potential
from ..traces.vectors import Sites
from .lbfgs import fit_lbfgs
from .mode import MAX_DENSE, find_mode
from .result import FitResult


def fit_point(guide: Any, joint: LogJoint, num_params: int, *, num_steps: int, bar: Progress) -> FitResult | None:
    """Move Pyro's point guide, of `map_point` or `laplace`, to the mode of the log joint of all rows.

    That of `map_point` is one on the constrained scale, that of `laplace` one on the unconstrained scale. Where no mode
    was found, the guide is as it was and the result has not converged. None if there are other parameters to fit than
    the guide's (there are ``num_params`` in all), or more than `MAX_DENSE` numbers.
    """
    if type(guide) not in (AutoDelta, AutoLaplaceApproximation) or num_params != len(list(guide.parameters())):
        return None
    potential = Potential(joint)
    on_constrained = isinstance(guide, AutoDelta)
    with torch.no_grad():
        values = guide(*joint.data)
    if not joint.latent or not all(name in values for name in joint.latent):
        return None
    start = potential.unconstrained({name: values[name] for name in joint.latent})
    if sum(value.numel() for value in start.values()) > MAX_DENSE:
        return None
    batched = Batched(_Constrained(potential) if on_constrained else potential, start, size_of(joint.data))
    mode = find_mode(batched, batched.start, max_iterations=num_steps, report=lambda n, e: bar.update(n, f"{-e:.2f}"))
    losses = torch.tensor([*mode.energies], dtype=torch.float64)
    if not mode.is_mode:
        return FitResult(losses, "Newton", False, mode.message)
    with torch.no_grad():
        _write(guide, potential, batched.sites(mode.point))
    message = f"{mode.message} (a further one would gain {mode.decrement:.0e} nats)"
    return FitResult(losses, "Newton", True, message)


def fit_points(
    guide: Any,
    joint: LogJoint,
    loss_and_grads: Callable[[], Any],
    params: Sequence[Tensor],
    by_newton: bool,
    **limits: Any,
) -> tuple[FitResult | None, FitResult | None]:
    """Fit a point guide by `fit_point`, if it may be, or else by `fit_lbfgs`: the result, None if neither arrived.

    Also returned is what Newton's method came to, None if it was not tried.
    """
    newton = fit_point(guide, joint, len(params), **limits) if by_newton else None
    if newton is not None and newton.converged:
        return newton, newton
    return fit_lbfgs(loss_and_grads, params, **limits), newton


class _Constrained:
    """The negative log density on the constrained scale: without the transforms' log determinants."""

    def __init__(self, potential: Potential) -> None:
        self.potential = potential

    def __call__(self, at: Sites) -> Tensor:
        return -self.potential.joint(self.potential.constrained(at))


def _write(guide: Any, potential: Potential, at: Sites) -> None:
    if isinstance(guide, AutoDelta):
        for name, value in potential.constrained(at).items():
            deep_setattr(guide, name, value)
        return
    found: Any = guide.prototype_trace
    guide.loc.copy_(torch.cat([at[name].reshape(-1) for name, _ in found.iter_stochastic_nodes()]))
