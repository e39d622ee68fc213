"""Stochastic variational inference: any Pyro model, any guide, any Pyro loss and any torch optimiser.

References
----------
1. Hoffman, Blei, Wang and Paisley (2013), Stochastic variational inference, JMLR 14.
2. Dhaka, Catalina, Andersen, Magnusson, Huggins and Vehtari (2020), Robust, accurate stochastic optimization for
   variational inference, NeurIPS: averaged iterates and the k̂ diagnostic.
"""

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoLaplaceApproximation
from torch import Tensor

from .diagnostics import k_hat
from .info import SviInfo
from .optim.laplace import curved
from .optim.losses import named_loss
from .optim.minibatch import glimpse
from .optim.training import train
from .posterior import Posterior
from .traces.draws import draw_guide, plate_depth
from .traces.init import Start
from .traces.introspect import constrained_params, copied, is_family, is_point, learned_sites, name_of
from .traces.isolate import isolated

ENGINES = ("auto", "eager", "compiled")


def svi(
    model: Callable,
    guide: Callable,
    *data: Any,
    num_steps: int = 15_000,
    lr: float = 0.01,
    optim: type[torch.optim.Optimizer] | None = None,
    loss: Any = None,
    num_particles: int = 1,
    batch_size: int | None = None,
    alternate: int | None = None,
    num_draws: int = 1000,
    local_draws: bool | None = None,
    engine: str = "auto",
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Posterior[SviInfo]:
    """Fit a guide to a model's posterior by stochastic gradients of the ELBO.

    The step size is constant at first and then decays; the answer is an average of the last iterates
    (`guidebook.inference.optim.sgd`), so that it does not jitter. Parameters of the model itself (``pyro.param``, or
    of a module) are fitted too: that is variational expectation maximisation.

    Parameters
    ----------
    model : callable
        Any Pyro model.
    guide : callable
        A guide with the model's signature (function or ``PyroModule``; it is copied, never changed), or a guide
        family, ``model -> guide``: one of `guidebook.guides`, or an autoguide class of Pyro's.
    *data
        Arguments of model and guide.
    num_steps : int
        Gradient steps; of L-BFGS the most there may be.
    lr : float
        Step size before it decays.
    optim : type, optional
        Class of optimiser, taking parameters and ``lr``. Where left out, `torch.optim.Adam`, and for points fitted to
        all rows (`map_point` and `laplace` of `guidebook.guides`) L-BFGS, which needs no ``lr``.
    loss : pyro.infer.ELBO, str or callable, optional
        ``Trace_ELBO()`` where left out; any of Pyro's, a name as in `guidebook.inference.optim.losses`, or a function
        ``(model, guide, *data) -> Tensor``.
    num_particles : int
        Draws of the guide a step, averaged over; for the default loss and one given by name.
    batch_size : int, optional
        Rows a step. The model's plates over the rows are scaled up to stand for all of them. Of more than a million
        rows, which may lie in a memory-mapped file, nothing but batches is ever read, and ten thousand rows or so to
        make the parameters with: the ELBO is then that of the last steps, and there is no k̂.
    alternate : int, optional
        Take this many steps on the guide's parameters and as many on the model's, in turn: E-steps and M-steps by
        gradient. All parameters move together where left out, which takes several times fewer steps.
    num_draws : int
        Draws from the fitted guide, for `Posterior.draws`, the ELBO and k̂.
    local_draws : bool, optional
        Whether to keep draws of sites that have a value for each row of the data; where left out, if they come to
        fewer than ten million numbers.
    engine : {"auto", "eager", "compiled"}
        How steps are taken: one after the other as Pyro does, or model, guide, loss and optimiser compiled into a loop
        of machine code, some two hundred times faster for small models once it is there, after six to ten seconds the
        first time and one or two from then on. "auto" compiles fits of 5,000 steps and more, for Pyro's losses and the
        optimisers Adam, RMSprop and SGD. "compiled" does so for any length, and for a function of one's own as
        ``loss``, which must not change from call to call. The two draw different random numbers.
    seed : int
        Same seed, same machine, same numbers.
    device : str or torch.device, optional
        Where to fit, such as "cuda"; the data's own device where left out. Draws come back to the CPU.
    progress : bool
        Whether to show a bar with the running ELBO.

    Returns
    -------
    Posterior
        Parameters that the model takes by ``pyro.param`` are among the draws, as points. ``info`` is an `SviInfo`.

    Raises
    ------
    ValueError
        If an option is out of range.
    FloatingPointError
        If the loss stops being a finite number; the message names the site where it began.
    ArithmeticError
        If Laplace's method ends at a point that is no mode.

    Warns
    -----
    UserWarning
        If the loss was still falling when the steps ran out; if the steps were to be compiled and could not be.
    """
    for name, value in (("num_steps", num_steps), ("num_particles", num_particles), ("num_draws", num_draws)):
        if value < 1:
            raise ValueError(f"svi: {name} must be at least 1, got {value}")
    if not lr > 0:
        raise ValueError(f"svi: lr must be positive, got {lr}")
    if engine not in ENGINES:
        raise ValueError(f"svi: engine must be one of {', '.join(ENGINES)}; got {engine!r}")
    if engine == "compiled" and alternate is not None:
        raise ValueError("svi: alternate takes its steps one by one: leave engine='compiled' out")
    if engine == "compiled" and getattr(loss, "changes", False):
        raise ValueError(f"svi: {name_of(loss)} changes from step to step: leave engine='compiled' out")
    if alternate is not None and alternate < 1:
        raise ValueError(f"svi: alternate must be at least 1, got {alternate}")
    by_name = loss is None or isinstance(loss, str)
    if by_name:
        loss = named_loss(loss or "trace", num_particles)
    elif num_particles != 1:
        raise ValueError("svi: num_particles belongs to the default loss: give it to your loss instead")
    if device is not None:
        data = tuple(value.to(device) if isinstance(value, Tensor) else value for value in data)
    begin = time.perf_counter()
    seen = glimpse(data, batch_size)
    with isolated(seed):
        fitted = guide(Start()(model)) if is_family(guide) else copied(guide)
        if device is not None and isinstance(fitted, torch.nn.Module):
            fitted = fitted.to(device)
        if by_name and isinstance(loss, TraceEnum_ELBO):
            with torch.no_grad():
                traces = (poutine.trace(function).get_trace(*seen) for function in (fitted, model))
                loss.max_plate_nesting = max(map(plate_depth, traces))
        training = train(
            model,
            fitted,
            data,
            loss,
            optim=optim,
            lr=lr,
            num_steps=num_steps,
            batch_size=batch_size,
            alternate=alternate,
            engine=engine,
            progress=progress,
        )
        params = constrained_params(model, fitted, seen)
        if isinstance(fitted, AutoLaplaceApproximation):
            fitted = curved(fitted, data)
        point = is_point(fitted, seen)
        drawn = draw_guide(model, fitted, seen, 1 if point else num_draws, local_draws if seen is data else False)
        learned = learned_sites(model, fitted, seen)
    seconds = time.perf_counter() - begin

    elbo = elbo_se = shape = weights = None
    if seen is not data and not point and type(loss) in (Trace_ELBO, TraceMeanField_ELBO):
        late = -training.losses[-max(1, len(training.losses) // 10) :]
        elbo, elbo_se = float(late.mean()), float(late.std() / math.sqrt(len(late)))
    elif seen is data and not point and drawn.log_weights is not None:
        weights = drawn.log_weights.cpu().double()
        elbo, elbo_se = float(weights.mean()), float(weights.std() / math.sqrt(len(weights)))
        shape = k_hat(weights) if len(weights) >= 100 else None
    if not training.converged:
        warnings.warn(f"svi: {training.because}", stacklevel=2)
    info = SviInfo(
        guide=name_of(guide),
        losses=training.losses,
        elbo=elbo,
        elbo_se=elbo_se,
        k_hat=shape,
        log_weights=weights,
        is_point=point,
        seconds=seconds,
        seed=seed,
        converged=training.converged,
        message=training.because,
        loss=name_of(loss),
        engine=training.engine,
    )
    draws = {name: value.cpu()[None] for name, value in drawn.sites.items()}
    length = next(iter(draws.values())).shape[1] if draws else 1
    draws |= {name: value.cpu().expand(1, length, *value.shape) for name, value in learned.items()}
    return Posterior(draws=draws, params=params, info=info)
