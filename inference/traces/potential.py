"""A model's density on the unconstrained scale, and a point at which it is finite."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from ..options import device_of
from .errors import words
from .handlers import RADIUS
from .init import InitMessenger, InitToUniform
from .log_joint import LogJoint, Sites
from .sites import is_plate, nodes
from .validation import unvalidated

TRIES = 10  # starts of each kind
SHRINKING = (1.0, 0.3, 0.1, 0.03, 0.01, 0.0)  # radii of the last starts, uniform around 0 on the unconstrained scale


class Potential:
    """The negative log density in nats, a scalar, as a function of unconstrained values by site.

    Log determinants of the transforms are included, and discrete sites are summed out.
    """

    def __init__(self, joint: LogJoint) -> None:
        self.joint = joint
        self.transforms = {name: biject_to(nodes(joint.prototype)[name]["fn"].support) for name in joint.latent}

    def __call__(self, at: Sites) -> Tensor:
        """Return the potential at these values."""
        values = self.constrained(at)
        log_density = self.joint(values)
        for name, transform in self.transforms.items():
            log_density = log_density + transform.log_abs_det_jacobian(at[name], values[name]).sum()
        return -log_density

    def constrained(self, at: Sites) -> Sites:
        """Return values on the sites' supports; leading dimensions of draws are kept."""
        return {name: transform(at[name]) for name, transform in self.transforms.items()}

    def unconstrained(self, values: Sites) -> Sites:
        """Return unconstrained values, from those on the sites' supports."""
        return {name: transform.inv(values[name]).detach() for name, transform in self.transforms.items()}


def find_start(method: str, potential: Potential) -> Sites:
    """Return unconstrained values at which the potential and its gradient are finite, from torch's generator.

    Tried are uniform ones within (-2, 2) (or what the model gives by ``infer={"init": …}``), draws from the prior, and
    uniform ones ever closer to 0, until one has a potential so small that its dtype tells energies a nat apart: a chain
    from elsewhere may never move. If none has, the one of least potential is taken. A ValueError, in the method's
    name, says which site stands in the way if none is finite.
    """
    wrong, best, least = "", None, math.inf
    for values in _candidates(potential.joint):
        if isinstance(values, str):
            wrong = wrong or values
            continue
        at = potential.unconstrained(values)
        energy, problem = finite_energy(potential, at)
        if energy.abs() * torch.finfo(energy.dtype).eps < 1:
            return at
        if energy < least:
            best, least = at, float(energy)
        wrong = wrong or problem
    if best is not None:
        return best
    raise ValueError(
        f"{method}: no start was found at which the density is finite: {wrong}; give sites a start by "
        'infer={"init": function}, or priors that keep the likelihood finite'
    )


def _candidates(joint: LogJoint) -> Iterator[Sites | str]:
    """Yield values to start from, or why the model could not be run at them, as a clause."""
    device = device_of(joint.data)

    def values(function: Callable) -> Sites | str:
        try:
            with torch.no_grad(), unvalidated():
                trace = poutine.trace(function).get_trace(*joint.data)
        except (ValueError, RuntimeError) as error:
            return words(error)
        return {name: nodes(trace)[name]["value"] for name in joint.latent}

    for _ in range(TRIES):
        yield values(InitToUniform(RADIUS, device)(joint.model))
    for _ in range(TRIES):
        yield values(InitMessenger()(joint.model))
    for radius in SHRINKING:
        yield values(InitToUniform(radius, device)(joint.model))


def finite_energy(potential: Potential, at: Sites) -> tuple[Tensor, str]:
    """Return the potential, nan unless it and its gradient are finite, and a clause that says why they are not."""
    leaves = {name: value.clone().requires_grad_() for name, value in at.items()}
    nothing = torch.tensor(math.nan)
    try:
        with torch.enable_grad(), unvalidated():
            value = potential(leaves)
            if not bool(torch.isfinite(value)):
                return nothing, _blame(potential, at)
            grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True) if value.requires_grad else ()
    except (ValueError, RuntimeError) as error:
        return nothing, words(error)
    for name, gradient in zip(leaves, grads, strict=False):
        if gradient is not None and not bool(torch.isfinite(gradient).all()):
            return nothing, f"its gradient at site {name!r} is not"
    return value.detach(), ""


def _blame(potential: Potential, at: Sites) -> str:
    values = potential.constrained(at)
    with torch.no_grad(), unvalidated():
        _, trace = potential.joint.at(values)
        found = nodes(trace).items()
        bad = [name for name, site in found if site["type"] == "sample" and not is_plate(site) and _is_bad(site)]
    if not bad:
        return "it is not, though each site's is"
    try:
        with torch.no_grad(), pyro.validation_enabled(True):
            potential.joint.at(values)
    except ValueError as error:
        return f"that of site {bad[0]!r} is not ({words(error)})"
    return f"that of site {bad[0]!r} is not"


def _is_bad(site: Any) -> bool:
    return not bool(torch.isfinite(torch.as_tensor(site["fn"].log_prob(site["value"]))).all())
