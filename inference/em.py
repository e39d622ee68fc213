"""Expectation maximisation: any record of steps, iterated from several starts until the objective is level.

References
----------
1. Dempster, Laird and Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm, JRSS B 39.
2. McLachlan and Krishnan (2008), The EM Algorithm and Extensions, section 4.9: stopping by Aitken's extrapolation.
"""

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .info import EmInfo
from .isolate import isolated
from .posterior import Posterior, point_draws


class _Run(NamedTuple):
    params: dict[str, Tensor]
    objective: list[float]
    converged: bool
    flaw: str | None


def em(
    steps: Any, *data: Tensor, num_steps: int = 2000, tol: float = 1e-6, num_restarts: int = 10, seed: int = 0
) -> Posterior[EmInfo]:
    """Maximise the objective of ``steps`` by expectation maximisation, from several starts.

    Parameters
    ----------
    steps : Steps
        ``(init, e_step, m_step, objective, flaw)``, as a model's ``em_steps(**options)`` returns them.
    *data : Tensor
        What the steps take; floating point is computed in float64.
    num_steps : int
        Most iterations of one restart.
    tol : float
        A restart stops when Aitken's extrapolation puts the objective's limit less than this away, in nats.
    num_restarts : int
        How many starts; the best optimum without a flaw wins.
    seed : int

    Returns
    -------
    Posterior
        One draw, the estimates; also in ``params``. ``info`` (`EmInfo`) has the objective's curve and the basins.

    Raises
    ------
    ValueError
        If an option is out of range.
    ArithmeticError
        If the objective falls, so that the steps are wrong; or if every restart ends in a flaw.
    """
    for name, value in (("num_steps", num_steps), ("num_restarts", num_restarts)):
        if value < 1:
            raise ValueError(f"em: {name} must be at least 1, got {value}")
    if not tol > 0:
        raise ValueError(f"em: tol must be positive, got {tol}")
    data = tuple(value.double() if value.is_floating_point() else value for value in data)
    begin = time.perf_counter()
    with isolated(seed), torch.no_grad():
        runs = []
        for restart in range(num_restarts):
            torch.manual_seed(int(np.random.SeedSequence([seed, restart]).generate_state(1)[0]))
            runs.append(_run(steps, restart, data, num_steps, tol))
    seconds = time.perf_counter() - begin

    basins = _basins(runs, tol)
    sound = [run for run in runs if run.flaw is None]
    if not sound:
        raise ArithmeticError(
            f"em: none of {num_restarts} restarts reached an optimum, the first because {runs[0].flaw}; "
            "take fewer components, a simpler covariance or more restarts"
        )
    best = max(sound, key=lambda run: run.objective[-1])
    flawed = num_restarts - len(sound)
    because = f"level within {tol:g} nats" if best.converged else f"{num_steps} iterations were not enough: take more"
    if flawed:
        because += f"; {flawed} of {num_restarts} restarts were set aside as degenerate"
    info = EmInfo(
        objective=torch.tensor(best.objective, dtype=torch.float64),
        log_likelihood=best.objective[-1],
        basins=basins,
        seconds=seconds,
        seed=seed,
        converged=best.converged,
        stopped_because=because,
    )
    params = {name: value.cpu() for name, value in best.params.items()}
    return Posterior(draws=point_draws(params), params=params, info=info)


def _run(steps: Any, restart: int, data: tuple, num_steps: int, tol: float) -> _Run:
    params = steps.init(restart, *data)
    expectations = steps.e_step(params, *data)
    curve = [float(steps.objective(params, expectations))]
    converged = False
    for iteration in range(1, num_steps + 1):
        last = params, expectations
        params = steps.m_step(expectations, *data)
        expectations = steps.e_step(params, *data)
        value = float(steps.objective(params, expectations))
        if value != value:
            params, expectations = last  # the objective is undefined here: judge the last parameters where it was
            reason = steps.flaw(params, expectations, *data) or "the objective stopped being a number"
            return _Run(params, curve, False, reason)
        if value < curve[-1] - 1e-9 * (1 + abs(curve[-1])):
            reason = steps.flaw(params, expectations, *data)
            if reason:  # next to a singularity the objective loses its digits
                return _Run(last[0], curve, False, reason)
            raise ArithmeticError(
                f"em: the objective fell from {curve[-1]:.9g} to {value:.9g} in iteration {iteration}: "
                "the M-step does not maximise what the E-step expects"
            )
        curve.append(value)
        if _distance_to_limit(curve) < tol:
            converged = True
            break
    return _Run(params, curve, converged, steps.flaw(params, expectations, *data))


def _distance_to_limit(curve: list[float]) -> float:
    """Aitken's estimate of how far the last value is from the limit of a linearly converging sequence."""
    if len(curve) < 3:
        return float("inf")
    before, last = curve[-2] - curve[-3], curve[-1] - curve[-2]
    if last <= 1e-13 * (1 + abs(curve[-1])):  # rounding
        return 0.0
    return last * last / (before - last) if before > last else float("inf")


def _basins(runs: list[_Run], tol: float) -> list[dict]:
    """Ends of the restarts, equal ones counted together, best first, sound ones before flawed ones."""
    basins: list[dict] = []
    for run in sorted(runs, key=lambda run: (run.flaw is not None, -run.objective[-1])):
        value = run.objective[-1]
        same = [b for b in basins if abs(b["objective"] - value) <= max(100 * tol, 1e-6 * abs(value))]
        same = [b for b in same if (b["flaw"] is None) == (run.flaw is None)]
        if same:
            same[0]["restarts"] += 1
        else:
            basins.append({"objective": value, "restarts": 1, "flaw": run.flaw})
    return basins
