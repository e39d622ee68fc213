"""The loop behind EM and coordinate ascent: two half-steps in turn, from several starts, until the objective is level.

References
----------
1. McLachlan and Krishnan (2008), The EM Algorithm and Extensions, section 4.9: stopping by Aitken's extrapolation.
2. Varadhan and Roland (2008), Simple and globally convergent methods for accelerating the convergence of any EM
   algorithm, Scandinavian Journal of Statistics 35: squared extrapolation (SQUAREM, scheme S3).
"""

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .isolate import isolated

Params = dict[str, Tensor]


class Run(NamedTuple):
    """One restart: where it ended, its objective after each iteration in nats, and why it is no optimum, if so."""

    params: Params
    objective: list[float]
    converged: bool
    flaw: str | None


class Ascent(NamedTuple):
    """All restarts: the best one without a flaw, where all ended, and what to say of them."""

    best: Run
    basins: list[dict]
    seconds: float
    stopped_because: str


class _State(NamedTuple):
    params: Params
    expectations: Any
    value: float


class _Loop(NamedTuple):
    """Steps bound to data, and to the name of the method that runs them, for its sentences."""

    steps: Any
    data: tuple
    method: str
    each_half: bool

    def start(self, params: Params) -> _State:
        expectations = self.steps.e_step(params, *self.data)
        return _State(params, expectations, float(self.steps.objective(params, expectations)))

    def step(self, state: _State) -> _State:
        """An M-step and an E-step; checks the objective in between where it is defined there."""
        params = self.steps.m_step(state.expectations, *self.data)
        if self.each_half:
            between = float(self.steps.objective(params, state.expectations))
            if _fell(state.value, between):
                raise self.fallen(state.value, between, "its M-step")
            state = state._replace(value=between)
        return self.start(params)

    def extrapolate(self, zero: _State, one: _State, two: _State) -> _State:
        """As far along the path of two steps as the objective rises (reference 2, equation 9); else their end."""
        change = {name: one.params[name] - zero.params[name] for name in zero.params}
        bend = {name: two.params[name] - one.params[name] - change[name] for name in zero.params}
        length = -_norm(change) / max(_norm(bend), 1e-300)
        if length >= -1:
            return two
        far = {n: zero.params[n] - 2 * length * change[n] + length**2 * bend[n] for n in zero.params}
        try:
            state = self.start(far)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            return two
        return state if state.value > two.value else two

    def flaw(self, state: _State) -> str | None:
        return self.steps.flaw(state.params, state.expectations, *self.data)

    def fallen(self, before: float, after: float, where: str) -> ArithmeticError:
        return ArithmeticError(
            f"{self.method}: the objective fell from {before:.9g} to {after:.9g} in {where}: "
            "the M-step does not maximise what the E-step expects"
        )


def ascend(
    steps: Any,
    data: tuple,
    *,
    method: str,
    num_steps: int,
    tol: float,
    num_restarts: int,
    seed: int,
    accelerate: bool = False,
    each_half: bool = False,
) -> Ascent:
    """Raise the objective of ``steps`` from ``num_restarts`` starts.

    Parameters
    ----------
    steps : Steps
        See `guidebook.models.Steps`.
    data : tuple of Tensor
        Floating point is computed in float64.
    method : str
        For error messages.
    num_steps : int
        Most iterations of one restart.
    tol : float
        A restart stops when Aitken's extrapolation puts the objective's limit less than this away, in nats.
    num_restarts : int
    seed : int
    accelerate : bool
        Whether to extrapolate after every second step, where that raises the objective.
    each_half : bool
        Whether the objective is defined, and may not fall, after the M-step too.

    Raises
    ------
    ValueError
        If an option is out of range.
    ArithmeticError
        If the objective falls, or every restart ends in a flaw.
    """
    for name, value in (("num_steps", num_steps), ("num_restarts", num_restarts)):
        if value < 1:
            raise ValueError(f"{method}: {name} must be at least 1, got {value}")
    if not tol > 0:
        raise ValueError(f"{method}: tol must be positive, got {tol}")
    data = tuple(value.double() if value.is_floating_point() else value for value in data)
    loop = _Loop(steps, data, method, each_half)
    begin = time.perf_counter()
    runs = []
    with isolated(seed), torch.no_grad():
        for restart in range(num_restarts):
            torch.manual_seed(int(np.random.SeedSequence([seed, restart]).generate_state(1)[0]))
            runs.append(_run(loop, restart, num_steps, tol, accelerate))
    seconds = time.perf_counter() - begin

    sound = [run for run in runs if run.flaw is None]
    if not sound:
        raise ArithmeticError(
            f"{method}: none of {num_restarts} restarts reached an optimum, the first because {runs[0].flaw}; "
            "take a simpler model or more restarts"
        )
    best = max(sound, key=lambda run: run.objective[-1])
    because = f"level within {tol:g} nats" if best.converged else f"{num_steps} iterations were not enough: take more"
    if flawed := num_restarts - len(sound):
        because += f"; {flawed} of {num_restarts} restarts were set aside as degenerate"
    return Ascent(best, _basins(runs, tol), seconds, because)


def _run(loop: _Loop, restart: int, num_steps: int, tol: float, accelerate: bool) -> Run:
    state = loop.start(loop.steps.init(restart, *loop.data))
    path, curve = [state], [state.value]  # the path since the last extrapolation
    for iteration in range(1, num_steps + 1):
        last, state = state, loop.step(state)
        if state.value != state.value:  # undefined here: judge the last parameters where it was defined
            return Run(last.params, curve, False, loop.flaw(last) or "the objective stopped being a number")
        if _fell(last.value, state.value):
            if reason := loop.flaw(state):  # next to a singularity the objective loses its digits
                return Run(last.params, curve, False, reason)
            raise loop.fallen(last.value, state.value, f"iteration {iteration}")
        curve.append(state.value)
        path.append(state)
        if len(path) >= 3 and _distance_to_limit(*(s.value for s in path[-3:])) < tol:
            return Run(state.params, curve, True, loop.flaw(state))
        if accelerate and len(path) == 3:
            state = loop.extrapolate(*path)
            path = [state]
            if state.value > curve[-1]:
                curve.append(state.value)
    return Run(state.params, curve, False, loop.flaw(state))


def _fell(before: float, after: float) -> bool:
    return after < before - 1e-9 * (1 + abs(before))


def _norm(params: Params) -> float:
    return float(torch.cat([value.flatten() for value in params.values()]).norm())


def _distance_to_limit(first: float, second: float, third: float) -> float:
    """Aitken's estimate of how far the last of three values of a linearly converging sequence is from its limit."""
    before, last = second - first, third - second
    if last <= 1e-13 * (1 + abs(third)):  # rounding
        return 0.0
    return last * last / (before - last) if before > last else float("inf")


def _basins(runs: list[Run], tol: float) -> list[dict]:
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
