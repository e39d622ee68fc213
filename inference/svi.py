"""Stochastic variational inference: any Pyro model, any guide, any Pyro loss and any torch optimiser.

References
----------
1. Hoffman, Blei, Wang and Paisley (2013), Stochastic variational inference, JMLR 14.
2. Dhaka, Catalina, Andersen, Magnusson, Huggins and Vehtari (2020), Robust, accurate stochastic optimization for
   variational inference, NeurIPS: averaged iterates and the k̂ diagnostic.
"""

import copy
import inspect
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation
from torch import Tensor

from .diagnostics import k_hat
from .draws import draw_guide
from .info import SviInfo
from .isolate import isolated
from .minibatch import batches, row_scale
from .posterior import Posterior
from .progress import Progress
from .start import Start

CONSTANT = 0.5  # share of the steps at the full step size, before it decays
AVERAGED = 0.25  # share of the steps, the last ones, whose parameters are averaged
FINAL = 0.01  # step size at the end, relative to the full one


def svi(
    model: Callable,
    guide: Callable,
    *data: Any,
    num_steps: int = 10_000,
    lr: float = 0.01,
    optim: type[torch.optim.Optimizer] | None = None,
    loss: Any = None,
    num_particles: int = 1,
    batch_size: int | None = None,
    num_draws: int = 1000,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Posterior:
    """Fit a guide to a model's posterior by stochastic gradients of the ELBO.

    The step size is constant for the first half of the steps and decays to a hundredth of it by a cosine; the
    answer is the average of the unconstrained parameters over the last quarter, so that it does not jitter.

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
        Gradient steps.
    lr : float
        Step size of the first half.
    optim : type, optional
        Class of optimiser, taking parameters and ``lr``; `torch.optim.Adam` where left out.
    loss : pyro.infer.ELBO or callable, optional
        ``Trace_ELBO()`` where left out; any of Pyro's, or a function ``(model, guide, *data) -> Tensor``.
    num_particles : int
        Draws of the guide a step, averaged over; for the default loss.
    batch_size : int, optional
        Rows a step. The model's plates over the rows are scaled up to stand for all of them.
    num_draws : int
        Draws from the fitted guide, for `Posterior.draws`, the ELBO and k̂.
    seed : int
        Same seed, same machine, same numbers.
    device : str or torch.device, optional
        Where to fit, such as "cuda"; the data's own device where left out. Draws come back to the CPU.
    progress : bool
        Whether to show a bar with the running loss.

    Returns
    -------
    Posterior
        ``info`` is an `SviInfo`.

    Raises
    ------
    ValueError
        If an option is out of range.
    FloatingPointError
        If the loss stops being a finite number; the message names the site where it began.

    Warns
    -----
    UserWarning
        If the loss was still falling when the steps ran out.
    """
    for name, value in (("num_steps", num_steps), ("num_particles", num_particles), ("num_draws", num_draws)):
        if value < 1:
            raise ValueError(f"svi: {name} must be at least 1, got {value}")
    if not lr > 0:
        raise ValueError(f"svi: lr must be positive, got {lr}")
    if loss is not None and num_particles != 1:
        raise ValueError("svi: num_particles belongs to the default loss: give it to your loss instead")
    if device is not None:
        data = tuple(value.to(device) if isinstance(value, Tensor) else value for value in data)
    begin = time.perf_counter()
    with isolated(seed):
        family = is_family(guide)
        fitted = guide(Start()(model)) if family else copy.deepcopy(guide)
        if device is not None and isinstance(fitted, torch.nn.Module):
            fitted = fitted.to(device)
        scaled, stream = _identity, None
        if batch_size is not None:
            scale = row_scale(model, data, batch_size, autoguide=isinstance(fitted, AutoGuide))
            scaled, stream = scale, batches(data, batch_size)
        fitted(*data)  # creates the parameters
        objective = loss if loss is not None else Trace_ELBO(num_particles=num_particles)
        losses = _optimise(scaled(model), scaled(fitted), (model, fitted), data, stream, objective, optim, num_steps, lr, progress)

        params = _constrained_params(model, fitted, data)
        if isinstance(fitted, AutoLaplaceApproximation):
            fitted = fitted.laplace_approximation(*data)
        is_point = _is_point(fitted, data)
        drawn = draw_guide(model, fitted, data, 1 if is_point else num_draws)
    seconds = time.perf_counter() - begin

    elbo = elbo_se = shape = weights = None
    if not is_point and drawn.log_weights is not None:
        weights = drawn.log_weights.cpu().double()
        elbo, elbo_se = float(weights.mean()), float(weights.std() / math.sqrt(len(weights)))
        shape = k_hat(weights) if len(weights) >= 100 else None
    drift = _drift(losses)
    because = f"took all {num_steps} steps, the loss level"
    if drift > 0:
        because = f"took all {num_steps} steps with the loss still falling, by {drift:.3g} nats of late: take more steps"
        warnings.warn(f"svi: {because}", stacklevel=2)
    info = SviInfo(
        guide=_name(guide),
        losses=losses,
        elbo=elbo,
        elbo_se=elbo_se,
        k_hat=shape,
        log_weights=weights,
        is_point=is_point,
        seconds=seconds,
        seed=seed,
        converged=drift <= 0,
        stopped_because=because,
    )
    draws = {name: value.cpu()[None] for name, value in drawn.sites.items()}
    return Posterior(draws=draws, params=params, info=info)


def is_family(guide: Any) -> bool:
    """Whether ``guide`` is a guide family (marked, or an autoguide class) rather than a guide."""
    while hasattr(guide, "func"):  # functools.partial
        guide = guide.func
    return getattr(guide, "is_guide_family", False) or (inspect.isclass(guide) and issubclass(guide, AutoGuide))


def _name(guide: Any) -> str:
    while hasattr(guide, "func"):
        guide = guide.func
    return getattr(guide, "__name__", type(guide).__name__)


def _identity(function: Callable) -> Callable:
    return function


def _optimise(model, guide, raw, data, stream, objective, optim, num_steps, lr, progress) -> Tensor:
    """Take all steps; leaves the averaged parameters in place and returns the losses, shape (step,)."""
    loss_and_grads = getattr(objective, "loss_and_grads", None)
    if loss_and_grads is None:

        def loss_and_grads(*args):
            value = objective(*args)
            value.backward()
            return float(value.detach())

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered (NaN|inf)")  # said below, with the site's name
        loss_and_grads(model, guide, *data)  # the model's parameters exist from here on
        params = _unconstrained_params(raw)
        optimiser = (optim or torch.optim.Adam)(params, lr=lr)
        first_averaged = num_steps - max(1, int(AVERAGED * num_steps))
        averages = [torch.zeros_like(p) for p in params]
        losses = torch.empty(num_steps, dtype=torch.float64)
        # The first evaluation above was validated; repeating the checks would take a third of every step.
        with Progress("svi", num_steps, progress) as bar, pyro.validation_enabled(False):
            for step in range(num_steps):
                batch = data if stream is None else next(stream)
                for group in optimiser.param_groups:
                    group["lr"] = lr * _decay(step / num_steps)
                optimiser.zero_grad()
                losses[step] = value = loss_and_grads(model, guide, *batch)
                if not math.isfinite(value):
                    raise FloatingPointError(f"svi: the loss is {value} at step {step}{_culprit(model, guide, batch)}")
                optimiser.step()
                if step >= first_averaged:
                    with torch.no_grad():
                        for average, p in zip(averages, params, strict=True):
                            average += (p - average) / (step - first_averaged + 1)
                if step % 50 == 0:
                    recent = losses[max(0, step - 99) : step + 1].mean()
                    bar.update(step + 1, f"loss {float(recent):.2f}")
            bar.update(num_steps, f"loss {float(losses[-100:].mean()):.2f}")
    with torch.no_grad():
        for average, p in zip(averages, params, strict=True):
            p.copy_(average)
    return losses


def _decay(done: float) -> float:
    if done < CONSTANT:
        return 1.0
    return FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * (done - CONSTANT) / (1 - CONSTANT)))


def _unconstrained_params(functions: tuple) -> list[Tensor]:
    """What to optimise: parameters of modules, and those that plain functions keep in Pyro's (scoped) store."""
    found: dict[int, Tensor] = {}
    for function in functions:
        if isinstance(function, torch.nn.Module):
            found |= {id(p): p for p in function.parameters() if p.requires_grad}
    found |= {id(p): p for _, p in pyro.get_param_store().named_parameters() if p.requires_grad}
    if not found:
        raise ValueError("svi: the guide and the model have no parameters to fit")
    return list(found.values())


def _constrained_params(model: Callable, guide: Callable, data: tuple) -> dict[str, Tensor]:
    params = {}
    with torch.no_grad():
        guide_trace = poutine.trace(guide).get_trace(*data)
        for trace in (guide_trace, poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*data)):
            for name, site in trace.nodes.items():
                if site["type"] == "param":
                    params[name] = site["value"].detach().cpu().clone()
    return params


def _is_point(guide: Callable, data: tuple) -> bool:
    with torch.no_grad():
        trace = poutine.trace(guide).get_trace(*data)
    sites = [site["fn"] for _, site in trace.iter_stochastic_nodes()]
    while any(hasattr(fn, "base_dist") for fn in sites):
        sites = [getattr(fn, "base_dist", fn) for fn in sites]
    return all(type(fn).__name__ == "Delta" for fn in sites)


def _drift(losses: Tensor) -> float:
    """How far the loss still fell, in nats, late in the phase of constant step size; 0 where that is within noise."""
    constant = losses[: int(CONSTANT * len(losses))]
    width = len(constant) // 5
    if width < 10:
        return 0.0
    early, late = constant[-2 * width : -width], constant[-width:]
    fall = float(early.mean() - late.mean())
    error = float(torch.sqrt((early.var() + late.var()) / width))
    return fall if fall > max(4 * error, 0.01 + 1e-6 * abs(float(late.mean()))) else 0.0


def _culprit(model: Callable, guide: Callable, data: tuple) -> str:
    """Name the first site with a value or a log density that is not finite."""
    with torch.no_grad(), pyro.validation_enabled(False):
        guide_trace = poutine.trace(guide).get_trace(*data)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*data)
        for where, trace in (("guide", guide_trace), ("model", model_trace)):
            for name, site in trace.nodes.items():
                if site["type"] == "param" and not torch.isfinite(site["value"]).all():
                    return f": parameter {name!r} of the {where} is not finite; try a smaller lr, or scale the data"
                if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
                    continue
                if not torch.isfinite(site["value"]).all():
                    return f": site {name!r} of the {where} drew a value that is not finite"
                if not torch.isfinite(site["fn"].log_prob(site["value"])).all():
                    return f": the log density of site {name!r} in the {where} is not finite"
    return ""
