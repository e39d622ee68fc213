"""A guide whose gradient is estimated by the score function instead of through the draws.

Where q(z) can be written as a transformation of noise, Pyro differentiates through it. This wrapper forgets that: what
is left is ∇ E_q f = E_q [(f - b) ∇ log q] for any b that does not depend on the draw, the baseline. It holds for
discrete z and for f without a gradient, and its variance is the price.

References
----------
1. Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning,
   Machine Learning 8.
2. Ranganath, Gerrish and Blei (2014), Black box variational inference, AISTATS.
3. Schulman, Heess, Weber and Abbeel (2015), Gradient estimation using stochastic computation graphs, NeurIPS.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.score_parts import ScoreParts
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor

WRAPPERS = (dist.Independent, dist.MaskedDistribution, ExpandedDistribution)  # they sample and score as their base does


def score_function(guide: Callable[..., Any], *, baseline: bool = True, decay: float = 0.9) -> "ScoreFunctionGuide":
    """Wrap a guide so that no draw of its sites is differentiated through.

    ``svi(model, score_function(guide), *data, loss=TraceGraph_ELBO())`` then trains it with baselines.

    Parameters
    ----------
    guide : callable
        Any guide: a function, a ``PyroModule``, an autoguide of a model. Its point masses stay as they are.
    baseline : bool
        Whether every site asks for the running average of its cost as a baseline, unless it asks for one of its own.
        Only ``TraceGraph_ELBO`` heeds that; other losses run without a baseline.
    decay : float
        Share of the average that is kept from one step to the next, from 0 up to but not including 1.

    Returns
    -------
    ScoreFunctionGuide
        A guide of the same arguments and parameters, which may be fitted, copied and drawn from like the one given.

    Raises
    ------
    ValueError
        If ``decay`` is out of range, or ``guide`` is a guide family, ``model -> guide``.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"score_function: decay must lie in [0, 1), got {decay}")
    inner: Any = guide
    while hasattr(inner, "func"):  # functools.partial
        inner = inner.func
    name = getattr(inner, "__name__", type(inner).__name__)
    if getattr(inner, "is_guide_family", False) or isinstance(inner, type):
        raise ValueError(f"score_function: {name} is a guide family: give the guide that it makes of a model")
    return ScoreFunctionGuide(guide, name, decay if baseline else None)


class ScoreFunctionGuide(torch.nn.Module):
    """See `score_function`. A module, so that the parameters of a guide that is one are found."""

    def __init__(self, guide: Callable[..., Any], name: str, decay: float | None) -> None:
        super().__init__()
        self.guide, self.decay, self.__name__ = guide, decay, f"score_function({name})"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the guide given."""
        with NoPathwise(self.decay):
            return self.guide(*args, **kwargs)


class NoPathwise(Messenger):
    """Makes the distributions of sites forget that their draws are differentiable, and asks for a baseline."""

    def __init__(self, decay: float | None) -> None:
        super().__init__()
        self.decay = decay

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if msg["is_observed"] or not isinstance(fn, dist.Distribution) or _is_delta(fn):
            return
        msg["fn"] = without_pathwise(fn)
        if self.decay is not None:
            average = {"use_decaying_avg_baseline": True, "baseline_beta": self.decay}
            msg["infer"] = {"baseline": average} | (msg["infer"] or {})


def without_pathwise(distribution: Any) -> Any:
    """A copy of a distribution, of the same density, whose draws carry no gradient.

    `pyro.distributions.Distribution.has_rsample_` does so for a plain distribution only: one that wraps another
    (``to_event``, ``mask``, an expanded one) refuses it, and so does a plate around the guide.
    """
    if not getattr(distribution, "has_rsample", False):
        return distribution
    forgetful = copy.copy(distribution)
    if isinstance(distribution, WRAPPERS):
        forgetful.base_dist = without_pathwise(distribution.base_dist)
    else:
        forgetful.__class__ = _forgetful(type(distribution))
        forgetful.__dict__.pop("has_rsample", None)
    return forgetful


class _Forgetful:
    """Put in front of a class of distributions."""

    has_rsample = False

    def __call__(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (as torch has it)
        return self.sample(sample_shape)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            value = super().sample(sample_shape)  # pyright: ignore[reportAttributeAccessIssue]
        # A transformed distribution remembers where its last draw came from: its density at that very tensor would
        # take the way back as fixed, and lose the gradient of the transformation's own parameters.
        return value.clone()

    def score_parts(self, x: Tensor, *args: Any, **kwargs: Any) -> ScoreParts:
        log_prob = self.log_prob(x, *args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        return ScoreParts(log_prob, log_prob, 0)  # pyright: ignore[reportArgumentType] (Pyro's sign for no such term)

    def expand(self, *args: Any, **kwargs: Any) -> Any:
        return without_pathwise(super().expand(*args, **kwargs))  # pyright: ignore[reportAttributeAccessIssue]


@cache
def _forgetful(kind: type) -> type:
    return type(kind.__name__, (_Forgetful, kind), {"__module__": kind.__module__})


def _is_delta(fn: Any) -> bool:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)
