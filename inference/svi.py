"""Stochastic variational inference: any Pyro model, any guide, any Pyro loss and any torch optimiser.

The gradient step is in `fit_eagerly`; a plan says how large the steps are and when they end (`optim/stopping.py` by
default). `_fit` prefers something faster with the same answer: Newton's method or L-BFGS for point estimates, and the
same steps compiled from 5,000 draws of the guide on and where their number is not given.

Hoffman, Blei, Wang and Paisley (2013), Stochastic variational inference, JMLR 14; Dhaka, Catalina, Andersen, Magnusson,
Huggins and Vehtari (2020), Robust, accurate stochastic optimization for variational inference, NeurIPS: averaged
iterates and the k̂ diagnostic.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import repeat
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation
from torch import Tensor

from .checkpoints import NOT_KEPT, Checkpoint, Place, states_of
from .distributed.ranks import ranks_of
from .distributed.steps import Averaged, agreed, check_same
from .distributed.streams import RankBatches, own_noise
from .info import SviInfo
from .optim.alternating import alternating_gradients
from .optim.balanced import BalancedDraws
from .optim.bound import bound_by_losses, bound_by_weights
from .optim.callback import Callback, WatchedPlan
from .optim.checks import check_options, check_unwatched
from .optim.compiled_steps import steps_compiled, why_eager
from .optim.kept import Calls, Leaves, Memory, Untrained
from .optim.landing import StickingElbo
from .optim.laplace import laplace_normal
from .optim.losses import check_loss, loss_and_grads, loss_for
from .optim.minibatch import batches_of, example_rows, in_batches, is_large, row_scale
from .optim.plan import Plan
from .optim.point import fit_point, fit_points
from .optim.result import FitResult
from .optim.retry import GuardedPlan, with_smaller_steps
from .optim.rules import as_optim, make_optimiser
from .optim.sgd import Average
from .optim.stopping import CEILING, AnyPlan, AutoPlan
from .optim.unit_scale import into_unit_scale
from .optim.warm_start import Init, warm_start
from .options import options_by_name, to_device
from .posterior import Posterior
from .progress import Progress
from .traces.draws import draw_guide
from .traces.errors import explained
from .traces.guides import check_guide, clone_guide, display_name, family_guide, is_family, is_point, preferred_options
from .traces.handlers import FullPlates
from .traces.isolate import isolated
from .traces.log_joint import LogJoint
from .traces.moments import flat, moments_at
from .traces.params import (
    constrained_params,
    find_nonfinite,
    leaves_by_name,
    model_leaves,
    statement_params,
    trace_pair,
    unconstrained_params,
)
from .traces.prepare import prepare
from .traces.validation import unvalidated

COMPILED_FROM = 5_000  # steps of one draw each from which compiling them pays, whatever the model
MAX_ITERATIONS = 15_000  # of L-BFGS, if no number is given
MAX_BLOCK = 200  # eager steps between two looks at where they have led
MAX_POINTS = 1_000  # numbers in a parameter of the model that must settle; those of networks wander


@options_by_name
def svi(
    model: Callable,
    guide: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_steps: int | str = "auto",
    lr: float = 0.01,
    optim: Callable[..., torch.optim.Optimizer] | Mapping[str, Any] | None = None,
    loss: Any = None,
    num_particles: int | None = None,
    batch_size: int | None = None,
    alternate: int | None = None,
    num_draws: int = 1000,
    local_draws: bool | None = None,
    engine: str = "auto",
    init: Init | None = None,
    callback: Callback | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[SviInfo]:
    """Fit a guide to a model's posterior by stochastic gradients of the ELBO.

    The step size is constant at first and then decays; the answer is an average of the last iterates
    (`guidebook.inference.optim.sgd`), so that it does not jitter. The model's own parameters (``pyro.param``, or of a
    module) are fitted too: that is variational expectation maximisation.

    Under a process group of ``torch.distributed`` whose ranks all make this call, with the same data, each rank takes
    ``batch_size`` rows of its own per step, or all rows, with noise of its own, and steps follow the mean of the
    gradients: two ranks with ``batch_size=B`` take the steps of one with ``2 * B``. All return the same posterior, to
    the bit.

    Parameters
    ----------
    model : callable
        Any Pyro model. Bind its options with ``functools.partial``.
    guide : callable
        A guide with the model's signature (function or ``PyroModule``; it is copied, never changed), or a guide
        family, ``model -> guide``: one of `guidebook.guides`, or one of Pyro's autoguide classes. Families of normals,
        and `flow`, are fitted in coordinates in which the posterior has about unit scale, from a start near the
        optimum (`guidebook.inference.optim.unit_scale`); a guide starts as it is.
    *data
        Arguments of model and guide; or one `guidebook.inference.streams.stream` of all of them, for data that do not
        fit in memory, such as a ``DataLoader`` or a Parquet file.
    model_kwargs : mapping, optional
        Further arguments of the model and the guide, by name: data or options.
    num_steps : int or "auto"
        Gradient steps; for Newton's method and L-BFGS, the maximum number of iterations. "auto", the default, stops
        when the iterates are stationary and the Monte Carlo error of their average is small beside the guide's standard
        deviations (`guidebook.inference.optim.stopping`), at 60,000 steps in any case.
    lr : float
        Step size before it decays.
    optim : type, functools.partial or dict, optional
        Class of optimiser, taking parameters and ``lr``; with its other arguments by ``functools.partial``, such as
        ``partial(torch.optim.Adam, betas=(0.95, 0.999))``; a dict stands for arguments of Adam. Default:
        `torch.optim.Adam`, and for points fitted to all rows (`map_point` and `laplace` of `guidebook.guides`) Newton's
        method, whatever the units of the parameters, or L-BFGS, if there are more than 200 or parameters of the model;
        neither needs ``lr``.
    loss : pyro.infer.ELBO, str or callable, optional
        One of Pyro's losses, a name as in `guidebook.inference.optim.losses`, or a function
        ``(model, guide, *data) -> Tensor``; default: ``Trace_ELBO()``, or what the family prefers.
    num_particles : int, optional
        Draws of the guide per step, averaged over; for the default loss and one given by name. Default: one, or what
        the guide family prefers, as it may prefer a loss: `flow` of `guidebook.guides` does.
    batch_size : int, optional
        Rows per step; default: all, or those of a ``DataLoader``. The model's plates over the rows are scaled up to
        stand for all of them. If there are more than a million rows, which may lie in a memory-mapped file, or data
        that are read in blocks, only batches are read, and some ten thousand rows to create the parameters with: the
        ELBO is then that of the last steps, and there is no k̂.
    alternate : int, optional
        Take this many steps on the guide's parameters, then as many on the model's, in turn: E-steps and M-steps by
        gradient. Default: all parameters move together, which takes several times fewer steps.
    num_draws : int
        Draws from the fitted guide, for `Posterior.draws`, the ELBO and k̂.
    local_draws : bool, optional
        Whether to keep draws of sites with one value per row; default: if they have fewer than ten million numbers.
    engine : {"auto", "eager", "compiled"}
        How steps are taken: one by one in Pyro ("eager"), or with model, guide, loss and optimiser compiled into a
        loop of machine code. For small models that is some two hundred times faster once compiled, which takes six to
        ten seconds the first time and one or two afterwards. "auto" compiles fits of 5,000 draws of the guide or more,
        or of a number of steps that is not given, if the loss is Pyro's and the optimiser Adam (with ``betas``,
        ``eps``), RMSprop (``alpha``, ``eps``) or SGD (``momentum``, ``nesterov``); of others the message says so.
        "compiled" does so for any length, and for a function as ``loss``, which must not change from call to call. The
        two draw different random numbers.
    init : Posterior or dict of Tensor, optional
        Where to start: a fit of the same guide, or its ``params`` (constrained values by name). Of a posterior by
        another guide or method the guide, one of a family with a mean, gets the mean of the draws on the unconstrained
        scale and their standard deviations, or their covariance if it has room for one; parameters of the model start
        at those in ``params``.
    callback : callable, optional
        ``callback(step, loss, params)`` is called after every 200 steps or fewer, in compiled code too, with the number
        of steps taken, the mean loss of the last ones in nats and the parameters by name, constrained, on the CPU. If
        it returns something true, the fit ends there, with the parameters as they are, or their average if the steps
        were already those that are averaged.
    seed : int
        Same seed, same machine, same numbers.
    device : str or torch.device, optional
        Where to fit, such as "cuda"; default: where the data are. Draws come back to the CPU.
    progress : bool
        Whether to show a bar with the running ELBO.
    checkpoint : str or Path, optional
        Folder in which to keep where the fit stands. The same call goes on from there, and returns a fit that has ended
        as it was; its numbers are those of a run that was never stopped. Points fitted by Newton's method or L-BFGS
        begin anew. A loss of your own must not change from call to call.
    every : float
        Seconds between two states in ``checkpoint``; they are written after blocks of 200 steps or fewer.

    Returns
    -------
    Posterior
        The values of the model's ``pyro.param`` statements are among the draws, constant across them. ``info`` is an
        `SviInfo`.

    Raises
    ------
    ValueError
        If an option is out of range, or ``checkpoint`` is of another fit, of other data or versions.
    FloatingPointError
        If the loss stops being a finite number, and does so again with steps a tenth and a hundredth as large from the
        best parameters before; the message names the step and the site where it began.
    ConnectionError
        If another rank has ended.
    ArithmeticError
        If Laplace's approximation ends at a point that is not a mode, or ranks at different parameters.

    Warns
    -----
    UserWarning
        If parameters were still drifting when the steps ran out; if steps should have been compiled and could not be;
        if smaller steps had to be taken.
    """
    counts, ranks = {"num_particles": num_particles, "num_draws": num_draws}, ranks_of("svi")
    counted = check_options(num_steps, engine, alternate, loss, callback, ranks.size, lr=lr, **counts)
    with isolated(seed):  # a DataLoader shuffles the rows that are shown here too
        source, data, batch_size = in_batches(data, batch_size)
    if source is not None and ranks.size > 1:
        raise ValueError(f"svi: data in blocks are read by one process, and there are {ranks.size}: give tensors")
    chosen = {"loss": loss, "optim": optim, "num_particles": num_particles, "engine": engine}
    check_same(ranks, data=data, batch_size=batch_size, num_steps=num_steps, lr=lr, seed=seed, **chosen)
    data = to_device("svi", data, device)
    check_loss(loss, num_particles)
    preferred, number = preferred_options(guide), 1
    optim = as_optim("svi", optim)
    begin = time.perf_counter()
    large = source is not None or is_large(data, batch_size)
    shown = example_rows if large and source is None else tuple
    check_guide(guide, model)
    by_hand = None if is_family(guide) else clone_guide(guide)
    if device is not None and isinstance(by_hand, torch.nn.Module):
        by_hand = by_hand.to(device)
    reading: dict[str, Any] = {"shown": shown, "in_blocks": source is not None}
    prepared = prepare("svi", model, data, guide=by_hand and clone_guide(by_hand), exact=False, **reading)
    data, example, joint = prepared.data, prepared.rows, prepared.log_joint()
    trained = prepared.subsampling or prepared.model
    with isolated(seed, prepared.dtype):
        fitted = family_guide(guide, trained, joint) if by_hand is None else by_hand
        if device is not None and isinstance(fitted, torch.nn.Module):
            fitted = fitted.to(device)
        if loss is None and not joint.summed:
            loss, number = preferred.get("loss"), preferred.get("num_particles", 1)
        loss, trained = loss_for(loss, num_particles or number, joint, trained, fitted)
        whole = by_hand is None and init is None and not large and not prepared.subsampling
        unit_scale = into_unit_scale(fitted, joint, batch_size is None, seed) if whole else None
        with Progress("svi", counted or CEILING, progress and ranks.is_first) as bar:
            how = {"optim": optim, "lr": lr, "num_steps": num_steps, "bar": bar, "init": init, "callback": callback}
            how["states"], how["source"] = states_of(checkpoint), source
            how["natural"] = unit_scale.natural if unit_scale else nullcontext
            how |= {"ranks": ranks, "seed": seed}
            fit = _fit(loss, trained, fitted, model, joint, data, example, batch_size, alternate, engine, how)
        if ranks.size > 1:
            own_noise(seed, ranks.size)  # of all: they draw the same from here on
        if unit_scale is not None:
            unit_scale.fold()
        if prepared.subsampling:
            fitted = FullPlates(fitted)
        with torch.no_grad():
            guide_trace, model_trace = trace_pair(prepared.model, fitted, example)
        if isinstance(fitted, AutoLaplaceApproximation):
            fitted = laplace_normal(fitted, joint)
        point = is_point(fitted, example)
        with BalancedDraws():
            drawn = draw_guide(joint, fitted, 1 if point else num_draws, False if large else local_draws)
    seconds = time.perf_counter() - begin

    bound: dict[str, Any] = {}
    if large and not point and type(loss) in (Trace_ELBO, TraceMeanField_ELBO, StickingElbo):
        bound = bound_by_losses(fit.losses)
    elif not large and not point and drawn.log_weights is not None:
        bound = bound_by_weights(drawn.log_weights)
    message = "; ".join([fit.message, *prepared.notes])
    if not (fit.converged or fit.ended):
        warnings.warn(f"svi: {message}", stacklevel=3)
    info = SviInfo(
        guide=display_name(guide),
        **bound,
        is_point=point,
        per_row=prepared.per_row,
        learned=sorted(constrained_params(model_trace)),
        seconds=seconds,
        seed=seed,
        loss=display_name(loss),
        losses=fit.losses,
        engine=fit.engine,
        converged=fit.converged,
        message=message,
        streamed=None if source is None else source.held(),
    )
    draws = {name: value.cpu()[None] for name, value in drawn.sites.items()}
    length = next(iter(draws.values())).shape[1] if draws else 1
    draws |= {name: value.expand(1, length, *value.shape) for name, value in statement_params(model_trace).items()}
    return Posterior(draws=draws, params=constrained_params(model_trace, guide_trace), info=info)


def fit_eagerly(
    estimate: Callable[..., Any],
    params: Sequence[Tensor],
    batches: Iterator[tuple],
    *,
    optim: Callable[..., torch.optim.Optimizer],
    lr: float,
    plan: AnyPlan | WatchedPlan | GuardedPlan,
    bar: Progress,
    states: Checkpoint = NOT_KEPT,
) -> Tensor:
    """Take the steps of a plan; return the losses, shape (step,); ``params`` become the average of the last iterates.

    ``estimate`` takes one of the endless ``batches``, returns the loss and adds its gradient to the ``.grad`` of
    ``params``, which are unconstrained leaves. A loss that is not finite raises FloatingPointError. ``states`` keep
    where the steps stand.
    """
    optimiser, average = make_optimiser(optim, params, lr), Average(params)
    states.add(params=Leaves(params), optimiser=Memory(optimiser), average=average, plan=plan, step=Calls(estimate))
    saved = states.take("eager")
    losses: list[float] = [] if saved is None else saved.tolist()
    while (block := plan.next(MAX_BLOCK)) is not None:
        for rate, weight, batch in zip(block.rates.tolist(), block.weights.tolist(), batches, strict=False):
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad()
            losses.append(float(estimate(*batch)))  # and its gradient
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"the loss is {losses[-1]} at step {len(losses) - 1}")
            optimiser.step()
            average.update(weight)
        plan.note(flat(params), torch.tensor(losses[-len(block.rates) :]))
        states.offer("eager", lambda: torch.tensor(losses, dtype=torch.float64))
        bar.update(len(losses), f"ELBO {-sum(losses[-100:]) / len(losses[-100:]):.2f}")
    average.write()
    return torch.tensor(losses, dtype=torch.float64)


def _fit(
    loss: Any,
    model: Callable,
    guide: Callable,
    owner: Callable,
    joint: LogJoint,
    data: tuple,
    example: tuple,
    batch_size: int | None,
    alternate: int | None,
    engine: str,
    how: dict[str, Any],
) -> FitResult:
    """Fit the parameters of guide and model in place, in the quickest way; ``how`` are options of `fit_eagerly`.

    ``owner`` is the model as it was given, which may be a module; ``joint`` is its log joint.
    """
    guide(*example)  # creates the guide's parameters
    source, stream, scaled, ranks = how["source"], None, (model, guide), how["ranks"]
    if batch_size is not None:
        rows = len(data[0]) if source is None else len(source)
        scale = row_scale(model, data, batch_size, autoguide=isinstance(guide, AutoGuide), num_rows=rows)
        alone = ranks.size == 1
        stream = batches_of(source, data, batch_size) if alone else RankBatches(data, batch_size, ranks)
        scaled = scale(model), scale(guide)
    batches = repeat(data) if stream is None else stream

    def estimate(*batch: Any) -> Any:
        return loss_and_grads(loss, *scaled, batch)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered (NaN|inf)")  # the error below names the site
        try:
            estimate(*next(batches))  # creates the model's parameters, and validates once what every step repeats
        except (ValueError, RuntimeError) as error:
            raise ValueError(explained("svi", error, "step")) from None
        params = unconstrained_params(owner, guide)
        with torch.random.fork_rng(), torch.no_grad(), unvalidated():  # at another draw than that which was validated
            point, traces = is_point(guide, example), trace_pair(model, guide, example)
        if how["init"] is not None:
            warm_start(how["init"], guide, joint, *traces)
        optim, lr, num_steps, bar, callback = (how[key] for key in ("optim", "lr", "num_steps", "bar", "callback"))
        states: Checkpoint = how["states"]
        others = Untrained(params, owner, guide)
        states.add(batches=stream, loss=Calls(loss), others=others)
        automatic = isinstance(num_steps, str)
        limits: dict[str, Any] = {"num_steps": MAX_ITERATIONS if automatic else num_steps, "bar": bar}
        newton = None
        with unvalidated():
            if point and optim is None and batch_size is None and alternate is None and engine == "auto":
                check_unwatched(callback)
                fit, newton = fit_points(guide, joint, partial(estimate, *data), params, _is_elbo(loss), **limits)
                if fit is not None:
                    return fit
            points = [p for p in model_leaves(owner, traces[1], params) if p.numel() <= MAX_POINTS]
            measure = moments_at(guide, example, params, points)
            if ranks.size > 1:
                ranks.share([*params, *others.state().values()])  # some start from the first batch
                estimate, callback = Averaged(estimate, params, ranks), agreed(callback, others.state, ranks)
                own_noise(how["seed"], ranks.rank)
            wait = int(getattr(loss, "changes", 0))
            draws = getattr(loss, "num_particles", 1)
            optim = optim or torch.optim.Adam
            long = ranks.size == 1 and (automatic or num_steps * draws >= COMPILED_FROM)

            def plan_of(rate: float) -> AnyPlan | WatchedPlan:
                plan = AutoPlan(rate, measure, wait=wait) if automatic else Plan(rate, num_steps, measure)
                if callback is None:
                    return plan
                return WatchedPlan(plan, callback, leaves_by_name(*traces), params, how["natural"])

            def take(plan: GuardedPlan, rate: float, states: Checkpoint) -> tuple[Tensor, str]:
                steps = {"optim": optim, "plan": plan, "bar": bar, "states": states}
                if engine == "compiled" or (engine == "auto" and alternate is None and long):
                    losses = steps_compiled(loss, *scaled, params, data, stream, required=engine == "compiled", **steps)
                    if losses is not None:
                        return losses, "compiled"
                step = estimate
                if alternate is not None:
                    step = alternating_gradients(estimate, alternate, owner, traces[1], params)
                return fit_eagerly(step, params, batches, lr=rate, **steps), "eager"

            where = partial(find_nonfinite, model, guide, example)
            (losses, used), plan = with_smaller_steps(take, plan_of, lr, params, states, where)
            converged, message = plan.result()
            message += why_eager(optim) if used == "eager" and engine == "auto" and long else ""
            fit = FitResult(losses, used, converged, message, plan.ended)
            if newton is None:
                return fit
            newton = fit_point(guide, joint, len(params), **limits) or newton  # from where the steps led
            message = f"took {len(losses):,} steps and found no mode: {newton.message}"
            return newton if newton.converged else fit._replace(converged=False, message=message)


def _is_elbo(loss: Any) -> bool:
    return type(loss) in (Trace_ELBO, TraceEnum_ELBO)
