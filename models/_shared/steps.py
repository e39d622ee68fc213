"""Records of pure functions: a model's updates, which `em`, `cavi` and `gibbs` iterate, and its exact posterior."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

Params = dict[str, Tensor]


class Steps(NamedTuple):
    """Updates of expectation maximisation or of coordinate ascent: pure functions that take the data last.

    Attributes
    ----------
    init : callable
        ``(restart, *data) -> params``: starting values, keyed by the model's site names for EM, the parameters of q
        for coordinate ascent. ``restart`` counts from 0; randomness comes from torch's seeded generator.
    e_step : callable
        ``(params, *data) -> expectations``: what ``m_step`` and ``objective`` need, in a NamedTuple.
    m_step : callable
        ``(expectations, *data) -> params``.
    objective : callable
        ``(params, expectations) -> scalar Tensor``, in nats: what the iteration raises. It may never fall. EM
        evaluates it after E-steps, coordinate ascent after both steps, with the latest of both arguments.
    degenerate : callable
        ``(params, expectations, *data) -> str or None``: why these parameters do not count as an optimum, if so.
    prepare : callable
        ``(*data) -> data``, called once per fit: adds what the data alone determine (a default prior, centred rows).
        The functions above take what it returns, and raw data as well.
    batched : bool
        Whether ``e_step``, ``m_step`` and ``objective`` take many restarts at once, as the first dimension of every
        tensor, and rows of any floating-point type, which they convert to float64 a chunk at a time.
    draw : callable, optional
        ``(params, num_draws) -> sites``, shape (num_draws, *site): draws from q, keyed by the model's site names.
        Required for coordinate ascent.
    accelerate : bool
        Whether EM should be accelerated by default, because it may converge slowly here.
    by_blocks : bool
        Whether the matrix of rows may be one that is not in memory, `guidebook.models._shared.blocks.Blocks`.
    sparse : bool
        Whether rows of a sparse matrix stay sparse.
    of_rows : tuple of str
        Parameters with a row per row of the data, which a fit of rows that are read in blocks leaves out of what it
        returns.
    """

    init: Callable[..., Params]
    e_step: Callable[..., Any]
    m_step: Callable[..., Params]
    objective: Callable[[Params, Any], Tensor]
    degenerate: Callable[..., str | None] = lambda *_: None
    prepare: Callable[..., tuple] = lambda *data: data
    batched: bool = False
    draw: Callable[[Params, int], Params] | None = None
    accelerate: bool = False
    by_blocks: bool = False
    sparse: bool = False
    of_rows: tuple[str, ...] = ()


class OnlineSteps(NamedTuple):
    """Updates by batches of rows that are read once: pure functions, which `online` calls.

    Attributes
    ----------
    init : callable
        ``(*batch) -> params``: where to start, given the first batch. Randomness comes from torch's seeded generator.
    update : callable
        ``(params, step_size, num_rows, *batch) -> (params, score)``: move by a step between 0 and 1 towards what a
        batch says, as if all ``num_rows`` rows were like it; and how well the parameters before predicted the batch, in
        nats.
    draw : callable, optional
        ``(params, num_draws) -> sites``, shape (num_draws, *site): draws from q. Default: the parameters are estimates.
    sparse : bool
        Whether batches of a sparse matrix stay sparse.
    """

    init: Callable[..., Params]
    update: Callable[..., tuple[Params, Tensor]]
    draw: Callable[[Params, int], Params] | None = None
    sparse: bool = False


class GibbsSteps(NamedTuple):
    """Full conditionals of a Gibbs sampler, for all chains at once: every tensor of the state has shape (chain, …).

    Attributes
    ----------
    init : callable
        ``(num_chains, *data) -> state``: dispersed starting values. Randomness comes from torch's seeded generator.
    conditionals : tuple of callable
        Each ``(state, *data) -> dict`` draws one block given all others, and returns the entries of the state that it
        replaces. A sweep runs them in order.
    sites : tuple of str
        What to keep as draws, the model's sites: entries of the state, or of what ``draw`` returns.
    prepare : callable
        As in `Steps`.
    draw : callable, optional
        ``(state, *data) -> sites``: draws from the conditional of sites that no other conditional needs. It is called
        only where draws are kept.
    """

    init: Callable[..., Params]
    conditionals: tuple[Callable[..., Params], ...]
    sites: tuple[str, ...]
    prepare: Callable[..., tuple] = lambda *data: data
    draw: Callable[..., Params] | None = None


class ExactPosterior(NamedTuple):
    """A posterior in closed form, as a model's solution for `closed_form`.

    Attributes
    ----------
    params : dict of Tensor
        Parameters of the distribution.
    log_evidence : Tensor, scalar
        In nats.
    draw : callable
        ``num_draws -> sites``, shape (num_draws, *site): independent draws, keyed by the model's site names.
    """

    params: Params
    log_evidence: Tensor
    draw: Callable[[int], Params]
