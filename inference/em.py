"""Expectation maximisation: any record of steps, iterated from several starts until the objective is level.

Dempster, Laird and Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm, JRSS B 39.
"""

from typing import Any

import torch
from torch import Tensor

from .ascent import ascend
from .info import EmInfo
from .posterior import Posterior, point_draws


def em(
    steps: Any,
    *data: Tensor,
    num_steps: int = 2000,
    tol: float = 1e-6,
    num_restarts: int = 10,
    accelerate: bool | None = None,
    seed: int = 0,
) -> Posterior[EmInfo]:
    """Maximise the objective of ``steps`` by expectation maximisation, from several starts.

    Parameters
    ----------
    steps : Steps
        As a model's ``em_steps(**options)`` returns them; see `guidebook.models.Steps`.
    *data : Tensor
        What the steps take; floating point is computed in float64.
    num_steps : int
        Most iterations of one restart.
    tol : float
        A restart stops when Aitken's extrapolation puts the objective's limit less than this away, in nats.
    num_restarts : int
        How many starts; the best optimum that is not degenerate wins.
    accelerate : bool, optional
        Whether to extrapolate after every second iteration where that raises the objective (SQUAREM, Varadhan and
        Roland 2008), which pays where EM crawls; as the steps have it where left out.
    seed : int

    Returns
    -------
    Posterior
        One draw, the estimates; also in ``params``. ``info`` (`EmInfo`) has the objective's curve and the optima.

    Raises
    ------
    ValueError
        If an option is out of range.
    ArithmeticError
        If the objective falls, so that the steps are wrong; or if every restart ends degenerate.
    """
    result = ascend(
        steps,
        data,
        method="em",
        num_steps=num_steps,
        tol=tol,
        num_restarts=num_restarts,
        seed=seed,
        accelerate=steps.accelerate if accelerate is None else accelerate,
    )
    info = EmInfo(
        objective=torch.tensor(result.best.objective, dtype=torch.float64),
        log_likelihood=result.best.objective[-1],
        optima=result.optima,
        seconds=result.seconds,
        seed=seed,
        converged=result.best.converged,
        message=result.message,
    )
    params = {name: value.cpu() for name, value in result.best.params.items()}
    return Posterior(draws=point_draws(params), params=params, info=info)
