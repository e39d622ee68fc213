"""Initial values: a model may give one per site, with ``infer={"init": function}``.

The function takes no arguments and returns a value that expands to the site's shape. It is called only where a fit
looks for a start, so it may be slow (k-means, say) and may draw random numbers.
"""

from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution

from .handlers import is_flat, uniform_value


class InitMessenger(Messenger):
    """Sets each site that has an initial value to it, and leaves the others to the next handler."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        init = (msg["infer"] or {}).get("init")
        if init is not None and msg["value"] is None:
            msg["value"] = init().expand(msg["fn"].shape()).clone()


class InitToUniform(InitMessenger):
    """Sets sites without an initial value to one that is uniform within ``radius`` of 0 on the unconstrained scale."""

    def __init__(self, radius: float, device: torch.device) -> None:
        super().__init__()
        self.radius, self.device = radius, device

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        super()._pyro_sample(msg)
        fn: Any = msg["fn"]
        given = (msg["infer"] or {}).get("init") is not None
        if msg["is_observed"] or given or not isinstance(fn, Distribution) or msg["fn"].support.is_discrete:
            return
        if msg["value"] is None or is_flat(fn):  # which `StartFlat` has set
            msg["value"] = uniform_value(fn, self.device, self.radius)


class InitToValues(Messenger):
    """Sets sites to given values, by name; those that a reparameterisation computes, through the sites it draws."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.values[msg["name"]].clone()

    def _pyro_get_init_messengers(self, msg: dict[str, Any]) -> None:  # a reparameterisation asks for them
        msg["value"] = [*(msg["value"] or []), self]
