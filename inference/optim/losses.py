"""Losses for `svi`: Pyro's by name, and one that anneals the KL divergence of the local latent variables.

References
----------
1. Schulman, Heess, Weber and Abbeel (2015), Gradient estimation using stochastic computation graphs, NeurIPS.
2. Li and Turner (2016), Rényi divergence variational inference, NeurIPS.
3. Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR.
4. Sønderby, Raiko, Maaløe, Sønderby and Winther (2016), Ladder variational autoencoders, NeurIPS.
5. Bowman, Vilnis, Vinyals, Dai, Jozefowicz and Bengio (2016), Generating sentences from a continuous space, CoNLL.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import (
    ELBO,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from torch import Tensor

from ..options import at_least_one
from ..traces.log_joint import LogJoint
from ..traces.params import trace_pair
from ..traces.sites import Scale, is_latent, is_local, plate_depth
from .landing import StickingElbo

LOSSES: dict[str, Callable[..., ELBO]] = {
    "trace": Trace_ELBO,
    "mean_field": TraceMeanField_ELBO,
    "graph": TraceGraph_ELBO,
    "enum": TraceEnum_ELBO,
    "renyi": RenyiELBO,
    "iwae": RenyiELBO,
    "sticking": StickingElbo,
}


def named_loss(
    name: str,
    num_particles: int = 1,
    *,
    alpha: float = 0.5,
    vectorize: bool = False,
    max_plate_nesting: float = float("inf"),
) -> ELBO:
    """Return one of Pyro's losses.

    Parameters
    ----------
    name : str
        "trace": the ELBO by Monte Carlo. "mean_field": with Kullback-Leibler divergences in closed form where guide
        and model sites allow. "graph": for sites without a reparameterisation, with less variance thanks to
        conditional independence and baselines (reference 1). "enum": discrete sites summed out. "renyi": the bound of
        order ``alpha`` (reference 2). "iwae": the importance-weighted bound of ``num_particles`` draws, which is the
        Rényi bound of order 0 (reference 3).
    num_particles : int
        Draws of the guide per step.
    alpha : float
        Order of "renyi"; not 1, where it is the ELBO.
    vectorize : bool
        Whether to make the draws at once; guide and model must then support one more dimension on the left.
    max_plate_nesting : int, optional
        Depth of nested plates in model and guide; default: found by running them.

    Raises
    ------
    ValueError
        For an unknown name, or too few particles.
    """
    if name not in LOSSES:
        raise ValueError(f"svi: unknown loss {name!r}: there is {', '.join(LOSSES)}")
    at_least_one("svi", num_particles=num_particles)
    options = {
        "num_particles": num_particles,
        "vectorize_particles": vectorize and num_particles > 1,
        "max_plate_nesting": max_plate_nesting,
    }
    if name in ("renyi", "iwae"):
        if num_particles < 2:
            raise ValueError(f"svi: the loss {name} weighs draws against each other: take num_particles of 2 or more")
        if alpha == 1:
            raise ValueError("svi: alpha must differ from 1: at 1 the Rényi bound is the ELBO, the loss trace")
        order = 0 if name == "iwae" else alpha
        return RenyiELBO(alpha=order, **options)  # pyright: ignore[reportArgumentType] (any order but 1, not an int)
    return LOSSES[name](**options)


def loss_for(loss: Any, num_particles: int, joint: LogJoint, model: Callable, guide: Callable) -> tuple[Any, Callable]:
    """Return the loss to minimise, and ``model`` as it takes it: by default the ELBO, discrete sites summed out.

    A ValueError says if the loss given would draw such sites from the prior, which no bound allows.
    """
    if loss is None or isinstance(loss, str):
        loss = named_loss(loss or ("enum" if joint.summed else "trace"), num_particles)
        if isinstance(loss, TraceEnum_ELBO):
            with torch.no_grad():
                loss.max_plate_nesting = max(map(plate_depth, trace_pair(joint.model, guide, joint.data)))
    if not joint.summed:
        return loss, model
    if isinstance(loss, ELBO) and not isinstance(loss, TraceEnum_ELBO):
        raise ValueError(
            f"svi: site {min(joint.summed)!r} is discrete and the guide does not draw it: {type(loss).__name__} cannot "
            'sum it out; leave loss out, or take loss="enum"'
        )
    return loss, config_enumerate(model)


def check_loss(loss: Any, num_particles: int | None) -> None:
    """Raise ValueError for a loss that cannot be one, or options that belong to another."""
    if isinstance(loss, type):
        raise ValueError(f"svi: loss is the class {loss.__name__}: write loss={loss.__name__}()")
    if loss is None or isinstance(loss, str):
        named_loss(loss or "trace", num_particles or 1)
    elif not callable(loss) and not hasattr(loss, "loss_and_grads"):
        raise ValueError(f"svi: loss must be one of Pyro's, a name or a function, got {type(loss).__name__}")
    elif num_particles not in (None, 1):
        raise ValueError("svi: num_particles belongs to the default loss: give it to your loss instead")


def loss_and_grads(loss: Any, model: Callable, guide: Callable, data: tuple) -> Any:
    """Return the value of one of Pyro's losses or a function; add its gradient to ``.grad`` of every parameter."""
    if hasattr(loss, "loss_and_grads"):
        return loss.loss_and_grads(model, guide, *data)
    value = loss(model, guide, *data)
    value.backward()
    return value.detach()


def kl_warm_up(num_steps: int, *, start: float = 0.0, num_particles: int = 1) -> Callable[..., Tensor]:
    """Return a loss that anneals in the KL divergence of local latent variables, so that a decoder learns to use them.

    It is minus E[log p(x | z)] + β E[log p(z) - log q(z)], with β rising linearly from ``start`` to 1; from then on it
    is minus the ELBO (references 4 and 5). The divergence of global latent variables counts in full throughout. The
    loss counts its calls: make a new one for every fit.

    Parameters
    ----------
    num_steps : int
        Calls until β is 1. Take fewer than a third of the fit's steps: after that the step size decays.
    start : float
        β at the first call, between 0 and 1.
    num_particles : int
        Draws of the guide per step.

    Returns
    -------
    callable
        ``(model, guide, *data) -> Tensor``.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    at_least_one("kl_warm_up", num_steps=num_steps, num_particles=num_particles)
    if not 0 <= start <= 1:
        raise ValueError(f"kl_warm_up: start must lie between 0 and 1, got {start}")
    return _KlWarmUp(num_steps, start, num_particles)


class _KlWarmUp:
    __name__ = "kl_warm_up"

    def __init__(self, num_steps: int, start: float, num_particles: int) -> None:
        self._start, self._loss = start, Trace_ELBO(num_particles=num_particles)
        self.changes = num_steps  # calls: never compiled
        self.calls = 0  # so far, which a checkpoint keeps

    def __call__(self, model: Callable, guide: Callable, *data: Any) -> Tensor:
        beta = self._start + (1 - self._start) * min(1.0, self.calls / self.changes)
        scaled = Scale(lambda site: is_latent(site) and is_local(site, data), beta)
        self.calls += 1
        return self._loss.differentiable_loss(scaled(model), scaled(guide), *data)
