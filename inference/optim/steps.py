"""The parameters of a guide and a model, fitted in the quickest way that has the same answer.

Points are fitted by Newton's method or L-BFGS; all else by gradient steps, compiled where that pays.
"""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from ..checkpoints import Checkpoint
from ..distributed.ranks import Ranks
from ..distributed.steps import together
from ..progress import Progress
from ..traces.moments import moments_at
from ..traces.params import find_nonfinite, leaves_by_name, model_leaves
from ..traces.validation import unvalidated
from .alternating import alternating_gradients
from .callback import Callback, WatchedPlan
from .checks import check_unwatched
from .compiled_steps import steps_compiled, why_eager
from .first_step import First, Job, first_step
from .kept import Calls, Untrained
from .plan import Measure, Plan
from .point import fit_point, fit_points
from .result import FitResult
from .retry import GuardedPlan, with_smaller_steps
from .stopping import AnyPlan, AutoPlan
from .warm_start import Init, warm_start

COMPILED_FROM = 5_000  # steps of one draw each from which compiling them pays, whatever the model
MAX_ITERATIONS = 15_000  # of L-BFGS, if no number is given
MAX_POINTS = 1_000  # numbers in a parameter of the model that must settle; those of networks wander

Loop = Callable[..., Tensor]  # as `fit_eagerly`


class Steps(NamedTuple):
    """How parameters are fitted: the options of `svi` of these names, and what belongs to the call."""

    num_steps: int | str
    lr: float
    optim: Callable[..., torch.optim.Optimizer] | None
    batch_size: int | None
    alternate: int | None
    engine: str
    init: Init | None
    callback: Callback | None
    seed: int
    states: Checkpoint
    bar: Progress
    natural: Callable[[], AbstractContextManager]  # in which the parameters are those that the caller knows
    ranks: Ranks

    @property
    def plain(self) -> bool:
        """Whether points may be fitted by another method than gradient steps."""
        return (self.optim, self.batch_size, self.alternate, self.engine) == (None, None, None, "auto")


def fit_params(job: Job, how: Steps, loop: Loop) -> FitResult:
    """Fit the parameters of guide and model in place; ``loop`` takes the steps that are not compiled."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered (NaN|inf)")  # the errors name the site
        first = first_step(job, how.batch_size, how.ranks)
        if how.init is not None:
            warm_start(how.init, job.guide, job.joint, *first.traces)
        others = Untrained(first.params, job.owner, job.guide)
        how.states.add(batches=first.stream, loss=Calls(job.loss), others=others)
        most = MAX_ITERATIONS if isinstance(how.num_steps, str) else how.num_steps
        limits: dict[str, Any] = {"num_steps": most, "bar": how.bar}
        newton = None
        with unvalidated():
            if first.point and how.plain:
                check_unwatched(how.callback)
                all_rows = partial(first.estimate, *job.data)
                fit, newton = fit_points(job.guide, job.joint, all_rows, first.params, _is_elbo(job.loss), **limits)
                if fit is not None:
                    return fit
            fit = _take_steps(job, how, first, others, loop)
            if newton is None:
                return fit
            newton = fit_point(job.guide, job.joint, len(first.params), **limits) or newton  # from where they led
            message = f"took {len(fit.losses):,} steps and found no mode: {newton.message}"
            return newton if newton.converged else fit._replace(converged=False, message=message)


def _take_steps(job: Job, how: Steps, first: First, others: Untrained, loop: Loop) -> FitResult:
    params, traces = first.params, first.traces
    points = [p for p in model_leaves(job.owner, traces[1], params) if p.numel() <= MAX_POINTS]
    measure = moments_at(job.guide, job.example, params, points)
    estimate, callback = together(first.estimate, how.callback, params, others.state, how.seed, how.ranks)
    optim = how.optim or torch.optim.Adam
    draws = getattr(job.loss, "num_particles", 1)
    many = isinstance(how.num_steps, str) or how.num_steps * draws >= COMPILED_FROM
    long = how.ranks.size == 1 and many

    def plan_of(rate: float) -> AnyPlan | WatchedPlan:
        plan = _plan(how.num_steps, rate, measure, job.loss)
        if callback is None:
            return plan
        return WatchedPlan(plan, callback, leaves_by_name(*traces), params, how.natural)

    def take(plan: GuardedPlan, rate: float, states: Checkpoint) -> tuple[Tensor, str]:
        steps: dict[str, Any] = {"optim": optim, "plan": plan, "bar": how.bar, "states": states}
        required = how.engine == "compiled"
        if required or (how.engine == "auto" and how.alternate is None and long):
            scaled, batches = (first.model, first.guide), (job.data, first.stream)
            losses = steps_compiled(job.loss, *scaled, params, *batches, required=required, **steps)
            if losses is not None:
                return losses, "compiled"
        step = estimate
        if how.alternate is not None:
            step = alternating_gradients(estimate, how.alternate, job.owner, traces[1], params)
        return loop(step, params, first.batches, lr=rate, **steps), "eager"

    where = partial(find_nonfinite, job.model, job.guide, job.example)
    (losses, used), plan = with_smaller_steps(take, plan_of, how.lr, params, how.states, where)
    converged, message = plan.result()
    message += why_eager(optim) if used == "eager" and how.engine == "auto" and long else ""
    return FitResult(losses, used, converged, message, plan.ended)


def _plan(num_steps: int | str, rate: float, measure: Measure, loss: Any) -> AnyPlan:
    if isinstance(num_steps, str):
        return AutoPlan(rate, measure, wait=int(getattr(loss, "changes", 0)))
    return Plan(rate, num_steps, measure)


def _is_elbo(loss: Any) -> bool:
    return type(loss) in (Trace_ELBO, TraceEnum_ELBO)
