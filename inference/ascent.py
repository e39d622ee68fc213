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

from .traces.isolate import isolated

Params = dict[str, Tensor]


class Run(NamedTuple):
    """One restart: where it ended, its objective after each iteration in nats, and why it is no optimum, if so."""

    params: Params
    objective: list[float]
    converged: bool
    degenerate: str | None


class Ascent(NamedTuple):
    """All restarts: the best one not degenerate, where all ended, and what to say of them."""

    best: Run
    optima: list[dict]
    seconds: float
    message: str


class _State(NamedTuple):
    """Where the live restarts are: all tensors have them as their first dimension if steps take many at once."""

    params: Params
    expectations: Any
    values: list[float]


class _Loop(NamedTuple):
    """Steps bound to data, and to the name of the method that runs them, for its sentences."""

    steps: Any
    data: tuple
    method: str
    each_half: bool
    many: bool

    def start(self, params: Params) -> _State:
        expectations = self.steps.e_step(params, *self.data)
        return _State(params, expectations, self.values(params, expectations))

    def improve(self, expectations: Any, values: list[float]) -> tuple[Params, list[float]]:
        """An M-step, and the objective after it, checked, where it is defined there; else that before it."""
        params = self.steps.m_step(expectations, *self.data)
        if not self.each_half:
            return params, values
        between = self.values(params, expectations)
        self.check(values, between, "its M-step")
        return params, between

    def values(self, params: Params, expectations: Any) -> list[float]:
        return self.steps.objective(params, expectations).reshape(-1).tolist()

    def extrapolate(self, zero: _State, one: _State, two: _State) -> _State:
        """As far along the path of two steps as the objective rises (reference 2, equation 9); else their end."""
        change = {name: one.params[name] - zero.params[name] for name in zero.params}
        bend = {name: two.params[name] - one.params[name] - change[name] for name in zero.params}
        length = -self.norm(change) / self.norm(bend).clamp(min=1e-300)
        if not (length < -1).any():
            return two
        far = {}
        for name, value in zero.params.items():
            by = length.reshape(-1, *[1] * (value.dim() - 1)) if self.many else length
            far[name] = value - 2 * by * change[name] + by**2 * bend[name]
        try:
            state = self.start(far)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            return two
        longer = zip((length < -1).reshape(-1).tolist(), state.values, two.values, strict=True)
        return self.mix([far and new > old for far, new, old in longer], state, two)

    def norm(self, params: Params) -> Tensor:
        return torch.cat([value.flatten(1 if self.many else 0) for value in params.values()], -1).norm(dim=-1)

    def mix(self, chosen: list[bool], state: _State, other: _State) -> _State:
        """The one state for the restarts chosen, and the other for the rest."""
        if all(chosen) or not any(chosen):
            return state if all(chosen) else other
        mask = torch.tensor(chosen, device=next(iter(state.params.values())).device)

        def choose(value: Any, second: Any) -> Any:
            return torch.where(mask.reshape(-1, *[1] * (value.dim() - 1)), value, second)

        params = {name: choose(value, other.params[name]) for name, value in state.params.items()}
        pairs = zip(state.expectations, other.expectations, strict=True)
        mixed = [choose(*pair) if isinstance(pair[0], Tensor) else pair[0] for pair in pairs]
        values = [one if first else two for first, one, two in zip(chosen, state.values, other.values, strict=True)]
        return _State(params, type(state.expectations)(*mixed), values)

    def take(self, state: _State, index: int | list[int]) -> _State:
        """One restart, as if it had run alone, or several."""
        values = [state.values[i] for i in (index if isinstance(index, list) else [index])]
        if not self.many:
            return state
        params = {name: value[index] for name, value in state.params.items()}
        taken = [value[index] if isinstance(value, Tensor) else value for value in state.expectations]
        return _State(params, type(state.expectations)(*taken), values)

    def end(self, state: _State, index: int, curve: list[float], converged: bool, because: str | None = None) -> Run:
        last = self.take(state, index)
        return Run(
            last.params, curve, converged, self.steps.degenerate(last.params, last.expectations, *self.data) or because
        )

    def check(self, before: list[float], after: list[float], where: str) -> None:
        for old, new in zip(before, after, strict=True):
            if _fell(old, new):
                raise self.fallen(old, new, where)

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
        Floating point is computed in float64: here, or chunk by chunk by batched steps.
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
        If the objective falls, or every restart ends degenerate.
    """
    for name, value in (("num_steps", num_steps), ("num_restarts", num_restarts)):
        if value < 1:
            raise ValueError(f"{method}: {name} must be at least 1, got {value}")
    if not tol > 0:
        raise ValueError(f"{method}: tol must be positive, got {tol}")
    begin = time.perf_counter()
    many = steps.batched
    if not many:
        data = tuple(value.double() if value.is_floating_point() else value for value in data)
    with isolated(seed), torch.no_grad():
        loop = _Loop(steps, steps.prepare(*data), method, each_half, many)
        if many:
            starts = [_start(loop, seed, restart) for restart in range(num_restarts)]
            together = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
            runs = _run(loop, loop.start(together), num_steps, tol, accelerate)
        else:
            runs = [
                _run(loop, loop.start(_start(loop, seed, restart)), num_steps, tol, accelerate)[0]
                for restart in range(num_restarts)
            ]
    seconds = time.perf_counter() - begin

    sound = [run for run in runs if run.degenerate is None]
    if not sound:
        raise ArithmeticError(
            f"{method}: none of {num_restarts} restarts reached an optimum, the first because {runs[0].degenerate}; "
            "take a simpler model or more restarts"
        )
    best = max(sound, key=lambda run: run.objective[-1])
    because = f"level within {tol:g} nats" if best.converged else f"{num_steps} iterations were not enough: take more"
    if flawed := num_restarts - len(sound):
        because += f"; {flawed} of {num_restarts} restarts were set aside as degenerate"
    return Ascent(best, _optima(runs, tol), seconds, because)


def _start(loop: _Loop, seed: int, restart: int) -> Params:
    own = int(np.random.SeedSequence([seed, restart]).generate_state(1)[0])
    if all(value.device.type == "cpu" for value in loop.data if isinstance(value, Tensor)):
        torch.default_generator.manual_seed(own)  # torch.manual_seed takes a millisecond to see to other devices
    else:
        torch.manual_seed(own)
    return loop.steps.init(restart, *loop.data)


def _run(loop: _Loop, state: _State, num_steps: int, tol: float, accelerate: bool) -> list[Run]:
    """Restarts in step with each other; one that has ended leaves the batch."""
    live = list(range(len(state.values)))
    curves, ended = [[value] for value in state.values], {}
    path = [state] if accelerate else []  # since the last extrapolation
    for iteration in range(1, num_steps + 1):
        expectations, before, last = state.expectations, state.values, None if loop.each_half else state
        del state  # what coordinate ascent updates can be as large as the data
        params, between = loop.improve(expectations, before)
        del expectations
        state = loop.start(params)
        if loop.each_half:
            loop.check(between, state.values, "its E-step")
        taken = len(path) if accelerate else iteration
        path += [state] if accelerate else []
        done = {}
        for index, restart in enumerate(live):
            value, curve = state.values[index], curves[restart]
            if value != value:  # undefined here: judge the last parameters where it was defined
                done[index] = loop.end(last or state, index, curve, False, "the objective stopped being a number")
            elif _fell(before[index], value):
                run = loop.end(state, index, curve, False)
                if run.degenerate is None or last is None:  # next to a singularity the objective loses its digits
                    raise loop.fallen(before[index], value, f"iteration {iteration}")
                done[index] = run._replace(params=loop.take(last, index).params)
            else:
                curve.append(value)
                if taken >= 2 and _distance_to_limit(*curve[-3:]) < tol:
                    done[index] = loop.end(state, index, curve, True)
        ended |= {live[index]: run for index, run in done.items()}
        if len(done) == len(live):
            break
        if done:
            kept = [index for index in range(len(live)) if index not in done]
            live, path = [live[index] for index in kept], [loop.take(s, kept) for s in path]
            state = path[-1] if path else loop.take(state, kept)
        if len(path) == 3:
            state = loop.extrapolate(*path)
            path = [state]
            for index, restart in enumerate(live):
                if state.values[index] > curves[restart][-1]:
                    curves[restart].append(state.values[index])
    else:
        ended |= {restart: loop.end(state, index, curves[restart], False) for index, restart in enumerate(live)}
    return [ended[restart] for restart in range(len(curves))]


def _fell(before: float, after: float) -> bool:
    return after < before - 1e-9 * (1 + abs(before))


def _distance_to_limit(first: float, second: float, third: float) -> float:
    """Aitken's estimate of how far the last of three values of a linearly converging sequence is from its limit."""
    before, last = second - first, third - second
    if last <= 1e-13 * (1 + abs(third)):  # rounding
        return 0.0
    return last * last / (before - last) if before > last else float("inf")


def _optima(runs: list[Run], tol: float) -> list[dict]:
    """Ends of the restarts, equal ones counted together, best first, sound ones before flawed ones."""
    optima: list[dict] = []
    for run in sorted(runs, key=lambda run: (run.degenerate is not None, -run.objective[-1])):
        value = run.objective[-1]
        same = [b for b in optima if abs(b["objective"] - value) <= max(100 * tol, 1e-6 * abs(value))]
        same = [b for b in same if (b["degenerate"] is None) == (run.degenerate is None)]
        if same:
            same[0]["restarts"] += 1
        else:
            optima.append({"objective": value, "restarts": 1, "degenerate": run.degenerate})
    return optima
