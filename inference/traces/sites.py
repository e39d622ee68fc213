"""What a trace's nodes stand for: latent variables, data, plates, deterministic values, parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.distributions import Delta
from pyro.infer.inspect import site_is_deterministic
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor


def nodes(trace: Trace) -> Mapping[str, Any]:
    """Return a trace's nodes by name, as plain mappings: in Pyro's type every entry of a node is optional."""
    return trace.nodes


def is_plate(site: Mapping[str, Any]) -> bool:
    """Whether a node stands for a ``pyro.plate``."""
    return site_is_subsample(site)  # pyright: ignore[reportArgumentType]


def is_deterministic(site: Mapping[str, Any]) -> bool:
    """Whether a node stands for a ``pyro.deterministic``, or for a site that a reparameterisation computes."""
    if site_is_deterministic(site):  # pyright: ignore[reportArgumentType]
        return True
    if site["type"] != "sample" or not site["is_observed"]:
        return False
    fn = site["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, Delta) and not torch.as_tensor(fn.log_density).any()


def is_latent(site: Mapping[str, Any]) -> bool:
    """Whether a node is a latent variable of the model: not data, a plate, or a deterministic value."""
    return (
        site["type"] == "sample"
        and not site["is_observed"]
        and not is_plate(site)
        and not site["infer"].get("is_auxiliary", False)
    )


def latent_sites(trace: Trace) -> dict[str, Mapping[str, Any]]:
    """Return a trace's latent sites by name."""
    return {name: site for name, site in nodes(trace).items() if is_latent(site)}


def is_delta(fn: Any) -> bool:
    """Whether a distribution is a point mass."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return type(fn).__name__ == "Delta"


def is_local(site: Mapping[str, Any], data: tuple) -> bool:
    """Whether a node lies in a plate over the rows of the data, so that it has one value per row."""
    rows = row_count(data)
    return any(frame.size == rows for frame in site.get("cond_indep_stack", ()))


def row_count(data: tuple) -> int | None:
    """Return how many rows the data have, by their first argument; None if it is no tensor with rows."""
    return len(data[0]) if data and isinstance(data[0], Tensor) and data[0].dim() else None


class Scale(Messenger):
    """Multiplies the log density of the sites chosen."""

    def __init__(self, chosen: Callable[[Mapping[str, Any]], bool], scale: float) -> None:
        super().__init__()
        self.chosen, self.scale = chosen, scale

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if self.chosen(msg):
            msg["scale"] = msg["scale"] * self.scale


def plate_depth(trace: Trace) -> int:
    """Return how many batch dimensions, counted from the right, a trace's plates use."""
    frames = (frame for site in nodes(trace).values() for frame in site.get("cond_indep_stack", ()))
    return max((-frame.dim for frame in frames if frame.vectorized), default=0)
