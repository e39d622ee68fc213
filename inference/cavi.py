"""Coordinate ascent variational inference: the factors of q updated in turn, each to its optimum given the others.

Bishop (2006), Pattern Recognition and Machine Learning, section 10.1; Blei, Kucukelbir and McAuliffe (2017),
Variational inference: a review for statisticians, JASA 112.
"""

from typing import Any

import torch
from torch import Tensor

from .ascent import ascend
from .info import CaviInfo
from .posterior import Posterior
from .traces.isolate import isolated


def cavi(
    steps: Any,
    *data: Tensor,
    num_steps: int = 2000,
    tol: float = 1e-6,
    num_restarts: int = 10,
    num_draws: int = 1000,
    seed: int = 0,
) -> Posterior[CaviInfo]:
    """Raise a bound on the log evidence by coordinate ascent, from several starts.

    Parameters
    ----------
    steps : Steps
        As a model's ``cavi_steps(**options)`` returns them; see `guidebook.models.Steps`.
    *data : Tensor
        What the steps take; floating point is computed in float64.
    num_steps : int
        Most sweeps of one restart.
    tol : float
        A restart stops when Aitken's extrapolation puts the bound's limit less than this away, in nats.
    num_restarts : int
        How many starts; the highest bound wins.
    num_draws : int
        Draws from the best q, for `Posterior.draws`.
    seed : int

    Returns
    -------
    Posterior
        ``params`` are those of q; ``info`` is a `CaviInfo`.

    Raises
    ------
    ValueError
        If an option is out of range.
    ArithmeticError
        If the bound falls after any coordinate, so that the steps are wrong.
    """
    if num_draws < 1:
        raise ValueError(f"cavi: num_draws must be at least 1, got {num_draws}")
    result = ascend(
        steps,
        data,
        method="cavi",
        num_steps=num_steps,
        tol=tol,
        num_restarts=num_restarts,
        seed=seed,
        each_half=True,
    )
    with isolated(seed), torch.no_grad():
        draws = steps.draw(result.best.params, num_draws)
    info = CaviInfo(
        objective=torch.tensor(result.best.objective, dtype=torch.float64),
        elbo=result.best.objective[-1],
        optima=result.optima,
        seconds=result.seconds,
        seed=seed,
        converged=result.best.converged,
        message=result.message,
    )
    return Posterior(
        draws={name: value.cpu()[None] for name, value in draws.items()},
        params={name: value.cpu() for name, value in result.best.params.items()},
        info=info,
    )
