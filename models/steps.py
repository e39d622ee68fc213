"""The record of pure functions by which a model hands its coordinate-wise updates to a generic loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

Params = dict[str, Tensor]


def _no_flaw(params: Params, expectations: Any, *data: Tensor) -> str | None:
    return None


class Steps(NamedTuple):
    """Updates of an EM-like method. Every function is pure and takes the data last.

    Attributes
    ----------
    init : callable
        ``(restart, *data) -> params``: starting values, keyed by the model's site names. ``restart`` counts from 0;
        randomness comes from torch's generator, which the loop has seeded.
    e_step : callable
        ``(params, *data) -> expectations``: whatever ``m_step`` and ``objective`` need.
    m_step : callable
        ``(expectations, *data) -> params``.
    objective : callable
        ``(params, expectations) -> scalar Tensor``, in nats: what the loop raises. It may never fall.
    flaw : callable
        ``(params, expectations, *data) -> str or None``: why these parameters cannot count as an optimum, if so.
    """

    init: Callable[..., Params]
    e_step: Callable[..., Any]
    m_step: Callable[..., Params]
    objective: Callable[[Params, Any], Tensor]
    flaw: Callable[..., str | None] = _no_flaw
