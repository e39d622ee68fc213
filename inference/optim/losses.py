"""Pyro's losses by name.

References
----------
1. Schulman, Heess, Weber and Abbeel (2015), Gradient estimation using stochastic computation graphs, NeurIPS.
2. Li and Turner (2016), Rényi divergence variational inference, NeurIPS.
3. Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR.
"""

from collections.abc import Callable
from typing import Any

from pyro.infer import ELBO, RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

LOSSES: dict[str, Callable[..., ELBO]] = {
    "trace": Trace_ELBO,
    "mean_field": TraceMeanField_ELBO,
    "graph": TraceGraph_ELBO,
    "enum": TraceEnum_ELBO,
    "renyi": RenyiELBO,
    "iwae": RenyiELBO,
}


def named_loss(
    name: str,
    num_particles: int = 1,
    *,
    alpha: float = 0.5,
    vectorize: bool = False,
    max_plate_nesting: float = float("inf"),
) -> ELBO:
    """One of Pyro's losses.

    Parameters
    ----------
    name : str
        "trace": the ELBO by Monte Carlo. "mean_field": with Kullback-Leibler divergences in closed form where guide
        and model sites allow. "graph": with the lesser variance that conditional independence allows, and baselines,
        for sites without a reparameterisation (reference 1). "enum": discrete sites summed out. "renyi": the bound
        of order ``alpha`` (reference 2). "iwae": the importance-weighted bound of ``num_particles`` draws, which is
        the Rényi bound of order 0 (reference 3).
    num_particles : int
        Draws of the guide a step.
    alpha : float
        Order of "renyi"; not 1, where it is the ELBO.
    vectorize : bool
        Whether to make the draws at once; guide and model must take one more dimension on the left then.
    max_plate_nesting : int, optional
        Plates within plates in model and guide; found by running them where left out.

    Raises
    ------
    ValueError
        For an unknown name, or too few particles.
    """
    if name not in LOSSES:
        raise ValueError(f"svi: unknown loss {name!r}: there is {', '.join(LOSSES)}")
    if num_particles < 1:
        raise ValueError(f"svi: num_particles must be at least 1, got {num_particles}")
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


def loss_and_grads(loss: Any, model: Callable, guide: Callable, data: tuple) -> Any:
    """The value of a loss of Pyro's or of one's own; adds its gradient to ``.grad`` of every parameter."""
    if hasattr(loss, "loss_and_grads"):
        return loss.loss_and_grads(model, guide, *data)
    value = loss(model, guide, *data)
    value.backward()
    return value.detach()
