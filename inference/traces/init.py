"""Where a fit starts: a model may say so, site by site, with ``infer={"init": function}``.

The function takes nothing and returns a value that expands to the site's shape. It is called only where a fit looks
for a start, so that it may be slow (k-means, say) and may draw random numbers.
"""

from collections.abc import Callable
from typing import Any

from pyro.infer.autoguide.initialization import init_to_uniform
from pyro.poutine.messenger import Messenger
from torch import Tensor


class Start(Messenger):
    """Gives sites that say where to start that value, and leaves the others to whoever comes next."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        start = (msg["infer"] or {}).get("init")
        if start is not None and msg["value"] is None:
            msg["value"] = start().expand(msg["fn"].shape()).clone()


def start_strategy(site: dict[str, Any]) -> Tensor:
    """Initial value of a site for NUTS: the model's own, or uniform within (-2, 2) on the unconstrained scale."""
    start: Callable[[], Tensor] | None = site["infer"].get("init")
    if start is None:
        return init_to_uniform(site)  # pyright: ignore[reportReturnType] (a partial only where it is given no site)
    return start().expand(site["fn"].shape()).clone()
