"""The records of pure functions by which a model hands its coordinate-wise updates to a generic loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

Params = dict[str, Tensor]


def _never_degenerate(params: Params, expectations: Any, *data: Any) -> str | None:
    return None


def _as_they_are(*data: Any) -> tuple:
    return data


class Steps(NamedTuple):
    """Updates of expectation maximisation or of coordinate ascent. Every function is pure and takes the data last.

    Attributes
    ----------
    init : callable
        ``(restart, *data) -> params``: starting values; EM's are keyed by the model's site names, those of coordinate
        ascent are the parameters of q. ``restart`` counts from 0; randomness comes from torch's generator, which the
        loop has seeded.
    e_step : callable
        ``(params, *data) -> expectations``: whatever ``m_step`` and ``objective`` need.
    m_step : callable
        ``(expectations, *data) -> params``.
    objective : callable
        ``(params, expectations) -> scalar Tensor``, in nats: what the loop raises. It may never fall. EM asks for it
        after an E-step, coordinate ascent after either step, with the latest of both.
    degenerate : callable
        ``(params, expectations, *data) -> str or None``: why these parameters cannot count as an optimum, if so.
    prepare : callable
        ``(*data) -> data``, called once per fit: what the data alone determine (a default prior, centred rows), so
        that no iteration works it out again. The functions above take what it returns, and raw data as well.
    batched : bool
        Whether ``e_step``, ``m_step`` and ``objective`` take many restarts at once, as leading dimensions of the
        parameters, and rows of any floating-point type, which they read in float64 a chunk at a time.
    draw : callable, optional
        ``(params, num_draws) -> sites``, shape (num_draws, *site): draws from q, keyed by the model's site names.
        Coordinate ascent needs it.
    accelerate : bool
        Whether plain EM crawls here, so that its loop should extrapolate unless told not to.
    """

    init: Callable[..., Params]
    e_step: Callable[..., Any]
    m_step: Callable[..., Params]
    objective: Callable[[Params, Any], Tensor]
    degenerate: Callable[..., str | None] = _never_degenerate
    prepare: Callable[..., tuple] = _as_they_are
    batched: bool = False
    draw: Callable[[Params, int], Params] | None = None
    accelerate: bool = False


class GibbsSteps(NamedTuple):
    """Full conditionals of a Gibbs sampler, for all chains at once: every tensor of the state is (chain, …).

    Attributes
    ----------
    init : callable
        ``(num_chains, *data) -> state``: where the chains start, dispersed. Randomness comes from torch's generator,
        which the loop has seeded.
    conditionals : tuple of callable
        Each ``(state, *data) -> dict`` draws one block from its distribution given all others, and returns the
        entries of the state that it replaces. A sweep runs them in order.
    sites : tuple of str
        Entries of the state that are the model's sites, and are kept as draws.
    prepare : callable
        As in `Steps`.
    """

    init: Callable[..., Params]
    conditionals: tuple[Callable[..., Params], ...]
    sites: tuple[str, ...]
    prepare: Callable[..., tuple] = _as_they_are
