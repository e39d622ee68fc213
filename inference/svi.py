"""Stochastic variational inference: any Pyro model, any guide, any Pyro loss and any torch optimiser.

The gradient step is in `fit_eagerly`; a plan says how large the steps are and when they end (`optim/stopping.py` by
default). `optim/steps.py` prefers something faster with the same answer: Newton's method or L-BFGS for point estimates,
and the same steps compiled from 5,000 draws of the guide on and where their number is not given.

Hoffman, Blei, Wang and Paisley (2013), Stochastic variational inference, JMLR 14; Dhaka, Catalina, Andersen, Magnusson,
Huggins and Vehtari (2020), Robust, accurate stochastic optimization for variational inference, NeurIPS: averaged
iterates and the k̂ diagnostic.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from pyro.infer.autoguide import AutoLaplaceApproximation
from torch import Tensor

from .checkpoints import NOT_KEPT, Checkpoint, Place, states_of
from .distributed.ranks import ranks_of
from .distributed.steps import check_same
from .distributed.streams import own_noise
from .info import SviInfo
from .optim.balanced import BalancedDraws
from .optim.bound import bound_of
from .optim.callback import Callback, WatchedPlan
from .optim.checks import check_options, check_restarts, check_started
from .optim.first_step import Job
from .optim.kept import Calls, Leaves, Memory
from .optim.laplace import laplace_normal
from .optim.losses import check_loss, loss_for
from .optim.minibatch import example_rows, in_batches, in_parts, is_large
from .optim.retry import GuardedPlan
from .optim.rules import as_optim, make_optimiser
from .optim.sgd import Average
from .optim.steps import Steps, fit_params
from .optim.stopping import CEILING, AnyPlan
from .optim.unit_scale import into_unit_scale
from .optim.warm_start import Init
from .options import options_by_name, to_device
from .posterior import Posterior
from .progress import Progress
from .traces.draws import draw_guide
from .traces.guides import check_guide, clone_guide, display_name, family_guide, is_family, is_point, preferred_options
from .traces.handlers import FullPlates
from .traces.isolate import isolated
from .traces.moments import flat
from .traces.params import constrained_params, statement_params, trace_pair
from .traces.prepare import prepare

MAX_BLOCK = 200  # eager steps between two looks at where they have led


@options_by_name
def svi(
    model: Callable,
    guide: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_steps: int | str = "auto",
    num_restarts: int = 1,
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
    num_restarts : int
        Starts, of the families that are fitted in such coordinates. In batches they are led to their modes, and to
        independent normals; to the five best of the different optima a normal like the guide is fitted, all at the same
        fixed draws, and steps are taken from the one with the greatest ELBO. The message says how many optima there
        were.
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
        loop of machine code. For small models that is some two hundred times faster once compiled, which takes a
        second or so the first time, ten or twenty for steps of more than 1,000 operations, such as flows. "auto"
        compiles fits of 5,000 draws of the guide or more, or of a number of steps that is not given, if the loss is
        Pyro's and the optimiser Adam (with ``betas``, ``eps``), RMSprop (``alpha``, ``eps``) or SGD (``momentum``,
        ``nesterov``); of others the message says so. "compiled" does so for any length, and for a function as ``loss``,
        which must not change from call to call. The two draw different random numbers.
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
    check_restarts(num_restarts, by_hand, init, source, ranks.size)
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
        by_parts = large and isinstance(fitted, AutoLaplaceApproximation)
        parts = in_parts(prepared, source, batch_size or 0) if by_parts else None
        if loss is None and not joint.summed:
            loss, number = preferred.get("loss"), preferred.get("num_particles", 1)
        loss, trained = loss_for(loss, num_particles or number, joint, trained, fitted)
        whole = by_hand is None and init is None and not large and not prepared.subsampling
        unit_scale = into_unit_scale(fitted, joint, batch_size is None, seed, num_restarts) if whole else None
        check_started(num_restarts, unit_scale)
        with Progress("svi", counted or CEILING, progress and ranks.is_first) as bar:
            how = Steps(
                num_steps=num_steps,
                lr=lr,
                optim=optim,
                batch_size=batch_size,
                alternate=alternate,
                engine=engine,
                init=init,
                callback=callback,
                seed=seed,
                states=states_of(checkpoint),
                bar=bar,
                natural=unit_scale.natural if unit_scale else nullcontext,
                ranks=ranks,
            )
            fit = fit_params(Job(loss, trained, fitted, model, joint, data, example, source), how, fit_eagerly)
        if ranks.size > 1:
            own_noise(seed, ranks.size)  # of all: they draw the same from here on
        if unit_scale is not None:
            unit_scale.fold()
        if prepared.subsampling:
            fitted = FullPlates(fitted)
        with torch.no_grad():
            guide_trace, model_trace = trace_pair(prepared.model, fitted, example)
        if isinstance(fitted, AutoLaplaceApproximation):
            fitted = laplace_normal(fitted, joint, parts)
        point = is_point(fitted, example)
        with BalancedDraws():
            drawn = draw_guide(joint, fitted, 1 if point else num_draws, False if large else local_draws)
    seconds = time.perf_counter() - begin

    bound = {} if point else bound_of(loss, fit.losses, drawn.log_weights, large=large)
    message = "; ".join(filter(None, [fit.message, unit_scale and unit_scale.words, *prepared.notes]))
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
