"""Models that no method can be right on: each is refused in one sentence."""

import traceback
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch.distributions import biject_to

from .errors import user_line, words
from .log_joint import LogJoint
from .sites import is_latent, is_plate, latent_sites, nodes
from .validation import unvalidated


def check_site(method: str, name: str, site: Any) -> None:
    """Raise ValueError for a latent site that has no transform, or cannot be summed out."""
    fn = site["fn"]
    if fn.support.is_discrete:
        if not fn.has_enumerate_support:
            raise ValueError(
                f"{method}: site {name!r} ({_kind(fn)}) is discrete with values without end, which cannot be summed "
                "out: write the model without it"
            )
        return
    try:
        biject_to(fn.support)
    except NotImplementedError:
        raise ValueError(
            f"{method}: site {name!r} ({_kind(fn)}) has a support that has no transform to unconstrained numbers"
        ) from None


def _kind(fn: Any) -> str:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return type(fn).__name__


def check_repeatable(method: str, model: Callable, data: tuple, trace: Trace) -> None:
    """Raise ValueError if the density at given values is another one at every call."""
    given = {name: site["value"] for name, site in latent_sites(trace).items()}
    with torch.no_grad(), unvalidated():
        first, second = (poutine.trace(poutine.condition(model, data=given)).get_trace(*data) for _ in range(2))
    for name, site in nodes(first).items():
        if site["type"] != "sample" or is_plate(site) or name not in second.nodes:
            continue
        with torch.no_grad(), unvalidated():
            a, b = (torch.as_tensor(s["fn"].log_prob(s["value"])) for s in (site, nodes(second)[name]))
        if a.shape != b.shape or not torch.equal(a.nan_to_num(), b.nan_to_num()):
            raise ValueError(
                f"{method}: the density of site {name!r} changes from call to call: the model draws random numbers "
                "outside pyro.sample (torch.randn, or dropout in training mode, which model.eval() ends)"
            )


def summed_out(method: str, model: Callable, data: tuple, trace: Trace, summed: frozenset[str]) -> LogJoint:
    """Return the log joint; a ValueError says if the model does not allow a dimension for values of discrete sites."""
    try:
        with torch.no_grad():
            joint = LogJoint(model, data, trace, summed)
            joint({name: nodes(trace)[name]["value"] for name in joint.latent})
        return joint
    except Exception as error:
        where = user_line([frame for frame, _ in traceback.walk_tb(error.__traceback__)])
        raise ValueError(
            f"{method}: the discrete sites {', '.join(sorted(summed))} cannot be summed out: {words(error)}{where}; "
            "all their values are tried at once, in a dimension to the left of the plates', so index by Vindex and let "
            "shapes broadcast"
        ) from None


def check_below(method: str, joint: LogJoint, trace: Trace) -> None:
    """Raise ValueError for continuous latent sites whose prior depends on a site that is summed out."""
    for name, site in nodes(joint.example).items():
        plain = nodes(trace).get(name)
        if site["type"] != "sample" or is_plate(site) or plain is None or not is_latent(plain):
            continue
        if name not in joint.summed and len(site["fn"].batch_shape) > -1 - joint.first_dim:
            raise ValueError(
                f"{method}: the prior of site {name!r} depends on a discrete site, which is summed out: give "
                f"{name!r} a value per discrete one (as mixtures do), or sum out the discrete site by hand"
            )
