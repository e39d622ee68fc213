"""Initial values: a model may give one per site, with ``infer={"init": function}``.

The function takes no arguments and returns a value that expands to the site's shape. It is called only where a fit
looks for a start, so it may be slow (k-means, say) and may draw random numbers.
"""

from typing import Any

from pyro.infer.autoguide.initialization import init_to_uniform
from pyro.poutine.messenger import Messenger
from torch import Tensor


class InitMessenger(Messenger):
    """Sets each site that has an initial value to it, and leaves the others to the next handler."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        init = (msg["infer"] or {}).get("init")
        if init is not None and msg["value"] is None:
            msg["value"] = init().expand(msg["fn"].shape()).clone()


def init_to_site(site: dict[str, Any]) -> Tensor:
    """Return the model's own initial value; without one, uniform within (-2, 2) on the unconstrained scale."""
    init = site["infer"].get("init")
    if init is None:
        return init_to_uniform(site)  # pyright: ignore[reportReturnType] (a partial only if no site is given)
    return init().expand(site["fn"].shape()).clone()
