"""A model of which the discrete latent sites are summed out, as a model of the continuous ones."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine

from ..traces.log_joint import LogJoint
from ..traces.sites import nodes

FACTOR = "all else, discrete sites summed out"


class SummedOut:
    """The continuous latent sites with their priors, and one factor for all else.

    Attributes
    ----------
    prior : callable
        Those sites alone.
    """

    def __init__(self, joint: LogJoint) -> None:
        self._joint = joint
        discrete = {name: nodes(joint.prototype)[name]["value"] for name in joint.summed}
        # No prior here depends on a discrete site, so that any value of these will do.
        held = poutine.condition(joint.model, data=discrete)
        self.prior: Callable[..., Any] = poutine.block(held, expose=joint.latent)

    def __call__(self, *data: Any) -> None:
        """Run the model."""
        with poutine.trace() as tracing:
            self.prior(*data)
        sites = nodes(tracing.trace)
        with poutine.block():
            log_joint = self._joint({name: sites[name]["value"] for name in self._joint.latent})
        log_prior = torch.as_tensor(tracing.trace.log_prob_sum(lambda name, _: name in self._joint.latent))
        pyro.factor(FACTOR, log_joint - log_prior)
