"""Latent sites whose support is not what their distribution states once and for all: each gets its own transform."""

from typing import Any

import pyro
import torch
from pyro.distributions import Delta, Independent, MaskedDistribution
from pyro.distributions.torch import TransformedDistribution  # pyright: ignore[reportAttributeAccessIssue]
from pyro.infer.reparam.reparam import Reparam
from pyro.poutine import Trace
from pyro.poutine.runtime import InferDict
from torch.distributions import Transform, biject_to
from torch.distributions.transforms import ComposeTransform, IndependentTransform

from .sites import latent_sites, nodes

UNCONSTRAINED = "_unconstrained"  # ends the name of the site that stands for one of these


class OwnSupport(Reparam):
    """Draws a site from its unconstrained counterpart, by its distribution's own transform at each point.

    The site itself becomes a deterministic one.
    """

    def apply(self, msg: Any) -> Any:
        """Return the site as a deterministic one, after drawing its counterpart."""
        if msg["is_observed"]:
            return msg
        free, transform = _unconstrained(msg["fn"])
        start = None
        if (initial := msg["value"]) is not None:
            initial._pyro_custom_init = False  # Pyro need not warn: it is kept, or of the support that was stated
            back: Any = transform.inv(initial)
            restored: Any = transform(back)
            if not overstates_support(msg["fn"]) or torch.allclose(restored, initial):
                start = back
        name, infer = msg["name"] + UNCONSTRAINED, InferDict(is_observed=False)
        value = transform(pyro.sample(name, free, obs=start, infer=infer))
        fixed = Delta(value, event_dim=msg["fn"].event_dim).mask(False)
        return {"fn": fixed, "value": value, "is_observed": True}


def _unconstrained(fn: Any) -> tuple[Any, Transform]:
    """Return a distribution on unconstrained numbers, and the transform that gives its draws ``fn`` as distribution."""
    if isinstance(fn, MaskedDistribution):
        free, transform = _unconstrained(fn.base_dist)
        return free.mask(fn._mask), transform
    if isinstance(fn, Independent):
        (free, transform), dims = _unconstrained(fn.base_dist), fn.reinterpreted_batch_ndims
        return free.to_event(dims), IndependentTransform(transform, dims)
    if overstates_support(fn):
        free, transform = _unconstrained(fn.base_dist)
        return free, ComposeTransform([transform, *fn.transforms])
    transform = biject_to(fn.support)
    return TransformedDistribution(fn, [transform.inv]), transform


def overstates_support(fn: Any) -> bool:
    """Return whether a distribution may state more than its support: all that its last transform can give.

    ``TransformedDistribution(Exponential(1), [AffineTransform(2, 1)])`` states the real line; below 2, without
    validation, it has a density that goes on.
    """
    if isinstance(fn, Independent | MaskedDistribution):
        return overstates_support(fn.base_dist)
    if getattr(type(fn), "support", None) is not TransformedDistribution.support:
        return False
    reached = fn.base_dist.support
    for transform in fn.transforms:
        if str(reached) != str(transform.domain):  # constraints have no equality
            return True
        reached = transform.codomain
    return overstates_support(fn.base_dist)


def beyond_stated_supports(trace: Trace, other: Trace) -> set[str]:
    """Return continuous latent sites that `OwnSupport` must draw.

    They are those whose distribution overstates its support, and those whose support is another one at another draw.
    """
    found = set()
    for name, site in latent_sites(trace).items():
        if site["fn"].support.is_discrete or name not in other.nodes:
            continue
        if overstates_support(site["fn"]):
            found.add(name)
            continue
        first, second = (biject_to(nodes(t)[name]["fn"].support) for t in (trace, other))
        at = first.inv(site["value"])
        if at.shape == second.inv(nodes(other)[name]["value"]).shape and not torch.equal(first(at), second(at)):
            found.add(name)
    return found
