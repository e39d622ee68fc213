"""How `svi` fits the parameters of a guide and a model: compiled steps, steps one by one, or quasi-Newton steps."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import ELBO
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from ..engines.compiled import RULES, fit_compiled
from ..engines.graph import CannotCompile
from ..progress import Progress
from ..traces.introspect import culprit, is_point, split_params, unconstrained_params
from .lbfgs import minimise_exactly
from .losses import loss_and_grads
from .minibatch import Batches, glimpse, row_scale
from .sgd import late_fall, minimise

COMPILED_FROM = 5_000  # steps of a fit from which compiling them pays, whatever the model


class Training(NamedTuple):
    """What fitting the parameters has come to.

    Attributes
    ----------
    losses : Tensor, shape (step,)
        In nats.
    engine : str
        "compiled", "eager" or "L-BFGS".
    converged : bool
    because : str
        Why it stopped, and what to do about it.
    """

    losses: Tensor
    engine: str
    converged: bool
    because: str


def train(
    model: Callable,
    guide: Callable,
    data: tuple,
    loss: Any,
    *,
    optim: type[torch.optim.Optimizer] | None,
    lr: float,
    num_steps: int,
    batch_size: int | None,
    alternate: int | None,
    engine: str,
    progress: bool,
) -> Training:
    """Fit the parameters of guide and model in place; options and errors as of `svi`."""
    seen = glimpse(data, batch_size)
    guide(*seen)  # creates the guide's parameters
    run_model, run_guide, stream, batch = model, guide, None, data
    taken = 0
    if batch_size is not None:
        scale = row_scale(model, data, batch_size, autoguide=isinstance(guide, AutoGuide))
        run_model, run_guide, stream = scale(model), scale(guide), Batches(data, batch_size)

    def estimate() -> float:
        nonlocal batch
        batch = data if stream is None else next(stream)
        return float(loss_and_grads(loss, run_model, run_guide, batch))

    def half_of_the_grads() -> float:
        nonlocal taken
        value = estimate()
        for p in halves[taken // (alternate or 1) % 2]:
            p.grad = None  # optimisers pass over it
        taken += 1
        return value

    with warnings.catch_warnings(), Progress("svi", num_steps, progress) as bar:
        warnings.filterwarnings("ignore", "Encountered (NaN|inf)")  # said below, with the site's name
        estimate()  # creates the model's parameters, and validates what the rest of the steps repeat
        params = unconstrained_params(model, guide)
        halves = split_params(model, guide, data, params) if alternate else ()
        with torch.random.fork_rng():
            point = is_point(guide, seen)
        with pyro.validation_enabled(False):
            if point and optim is None and stream is None and not alternate and engine == "auto":
                descent = minimise_exactly(estimate, params, num_steps=num_steps, bar=bar)
                if descent is not None:
                    return _of_descent(descent.losses, descent.gradient, descent.converged)
            how = {"optim": optim or torch.optim.Adam, "lr": lr, "num_steps": num_steps, "bar": bar}
            can = isinstance(loss, ELBO) and how["optim"] in RULES and not alternate
            try:
                if engine == "compiled" or (engine == "auto" and can and num_steps >= COMPILED_FROM):
                    try:
                        losses = fit_compiled(loss, run_model, run_guide, params, data, stream, **how)
                        return _of_steps(losses, "compiled", point)
                    except CannotCompile as reason:
                        if engine == "compiled":
                            raise ValueError(f"svi: the steps cannot be compiled: {reason}") from None
                        warnings.warn(
                            f"svi: steps are taken one by one, for they cannot be compiled: {reason}", stacklevel=3
                        )
                step = half_of_the_grads if alternate else estimate
                return _of_steps(minimise(step, params, **how), "eager", point)
            except FloatingPointError as error:
                raise FloatingPointError(f"svi: {error}{culprit(run_model, run_guide, batch)}") from None


def _of_descent(losses: Tensor, gradient: float, converged: bool) -> Training:
    if converged:
        because = f"reached a stationary point in {len(losses)} iterations (largest gradient {gradient:.1e})"
    else:
        because = f"took all {len(losses)} iterations with a gradient of {gradient:.1e} left: take more steps"
    return Training(losses, "L-BFGS", converged, because)


def _of_steps(losses: Tensor, engine: str, point: bool) -> Training:
    because = f"took all {len(losses)} steps"
    if (fall := late_fall(losses, noisy=not point)) > 0:
        because += f" with the loss still falling, by {fall:.3g} nats of late: take more steps"
    return Training(losses, engine, fall <= 0, because)
