"""Restarts of EM or coordinate ascent, run as one batch: their curves, when to stop, and where each ended.

McLachlan and Krishnan (2008), The EM Algorithm and Extensions, section 4.9: stopping by Aitken's extrapolation.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ...models import Steps

Params = dict[str, Tensor]


class State(NamedTuple):
    """A batch of restarts after an E-step.

    The objective has shape (restart,), and every other tensor has that dimension first. Steps that are not batched
    run one restart, and have no such dimension.
    """

    params: Params
    expectations: Any
    objective: Tensor

    def at(self, index: int | list[int]) -> "State":
        """Return one restart, or several."""
        if not self.objective.dim():
            return self
        chosen = torch.tensor(index, device=self.objective.device) if isinstance(index, list) else index
        return self.map(lambda value: value[chosen])

    def map(self, function: Callable[..., Tensor], *others: "State") -> "State":
        """Apply a function to every tensor of this state and its counterparts in the others."""
        params = {name: function(value, *(o.params[name] for o in others)) for name, value in self.params.items()}
        pairs = zip(self.expectations, *(other.expectations for other in others), strict=True)
        mapped = [function(*values) if isinstance(values[0], Tensor) else values[0] for values in pairs]
        objective = function(self.objective, *(other.objective for other in others))
        return State(params, type(self.expectations)(*mapped), objective)


class Run(NamedTuple):
    """One restart: where it ended, its objective after each iteration in nats, and why it is degenerate, if it is."""

    params: Params
    objective: list[float]
    converged: bool
    degenerate: str | None


class Restarts:
    """The curves of a batch of restarts, which of them are still running, and the runs that have ended."""

    def __init__(
        self, size: int, steps: "Steps", data: tuple, method: str, tol: float, left: Callable[[list[float]], float]
    ) -> None:
        self.steps, self.data, self.method, self.tol = steps, data, method, tol
        self.left = left  # from the end of a curve to its limit, in nats
        self.curves: list[list[float]] = [[] for _ in range(size)]
        self.runs: dict[int, Run] = {}
        self.running = list(range(size))
        self.values = [-math.inf] * size  # the objectives of those running, which may not fall

    def record(self, state: State, previous: State | None, *, must_stop: bool) -> list[int]:
        """Check and note the objective after an E-step, end restarts that are level, and return which go on.

        ``previous`` is the state after the E-step before, if it was kept; ``must_stop`` ends all of them. If the
        objective falls, raise ArithmeticError, except at a degenerate point, where rounding makes the objective
        unreliable: there only that restart ends.
        """
        going, values = [], state.objective.reshape(-1).tolist()
        for index, (restart, before, value) in enumerate(zip(self.running, self.values, values, strict=True)):
            curve = self.curves[restart]
            if math.isnan(value) or fell(before, value):  # judge the last parameters with a sound objective
                because = "the objective stopped being a number" if math.isnan(value) else None
                run = self._end(restart, (previous or state).at(index), because=because)
                if run.degenerate is None:
                    raise self._fallen(before, value, f"iteration {len(curve)}" if previous else "its E-step")
                continue
            curve.append(value)
            is_level = self.left(curve) < self.tol
            if is_level or must_stop:
                self._end(restart, state.at(index), converged=is_level)
            else:
                going.append(index)
        self.running, self.values = ([old[index] for index in going] for old in (self.running, values))
        return going

    def check_m_step(self, objective: Tensor) -> None:
        """Check the objective between M-step and E-step, for methods that define it there."""
        values = objective.reshape(-1).tolist()
        for before, value in zip(self.values, values, strict=True):
            if fell(before, value):
                raise self._fallen(before, value, "its M-step")
        self.values = values

    def state(self) -> dict[str, Any]:
        """Return the curves and the runs that have ended."""
        runs = {restart: tuple(run) for restart, run in self.runs.items()}
        return {"curves": self.curves, "runs": runs, "running": self.running, "values": self.values}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to these curves and runs."""
        self.curves, self.running, self.values = state["curves"], state["running"], state["values"]
        self.runs = dict(zip(state["runs"], runs_of(state["runs"].values()), strict=True))
        for restart, run in self.runs.items():  # a run's curve is the batch's
            self.curves[restart] = run.objective

    def _end(self, restart: int, state: State, *, converged: bool = False, because: str | None = None) -> Run:
        degenerate = self.steps.degenerate(state.params, state.expectations, *self.data) or because
        self.runs[restart] = Run(state.params, self.curves[restart] or [math.nan], converged, degenerate)
        return self.runs[restart]

    def _fallen(self, before: float, after: float, where: str) -> ArithmeticError:
        return ArithmeticError(
            f"{self.method}: the objective fell from {before:.9g} to {after:.9g} in {where}: "
            "the M-step does not maximise what the E-step expects"
        )


def runs_of(kept: Iterable[tuple]) -> list[Run]:
    """Return the runs that a checkpoint kept as tuples."""
    return [Run(*run) for run in kept]


def on_device(values: Params, like: Params) -> Params:
    """Return the values that a checkpoint kept where others are."""
    return {name: value.to(like[name].device) for name, value in values.items()}


def kept_path(path: list[State]) -> list[tuple]:
    """Return states as a checkpoint keeps them; of the expectations, the tensors."""
    return [(s.params, [v if isinstance(v, Tensor) else None for v in s.expectations], s.objective) for s in path]


def restored_path(kept: list[tuple], params: Params, e_step: Callable[[Params], State]) -> list[State]:
    """Return the states of `kept_path`; an E-step says what else there is in their expectations."""
    if not kept:
        return []
    like = e_step(params)
    found = []
    for at, tensors, objective in kept:
        each = zip(tensors, like.expectations, strict=True)
        expectations = type(like.expectations)(*(old if new is None else new.to(old.device) for new, old in each))
        found.append(State(on_device(at, params), expectations, objective.to(like.objective.device)))
    return found


def fell(before: float, after: float) -> bool:
    """Whether the objective fell by more than rounding."""
    return after < before - 1e-9 * (1 + abs(before))


def distance_to_limit(curve: list[float]) -> float:
    """Return how far the last value of a linearly converging sequence is from its limit, by Aitken."""
    if len(curve) < 3:
        return math.inf
    before, last = curve[-2] - curve[-3], curve[-1] - curve[-2]
    if last <= rounding_of(curve[-1]):
        return 0.0
    return last * last / (before - last) if before > last else math.inf


def rounding_of(objective: float) -> float:
    """Return how much an objective in float64 may change without meaning, in nats."""
    return 1e-13 * (1 + abs(objective))


def optima(runs: list[Run], tol: float) -> list[dict]:
    """Count restarts that ended at the same objective; best first, degenerate ones last."""
    found: list[dict] = []
    for run in sorted(runs, key=lambda run: (run.degenerate is not None, -run.objective[-1])):
        value = run.objective[-1]
        for known in found:
            near = abs(known["objective"] - value) <= max(100 * tol, 1e-6 * abs(value))
            if near and (known["degenerate"] is None) == (run.degenerate is None):
                known["restarts"] += 1
                break
        else:
            found.append({"objective": value, "restarts": 1, "degenerate": run.degenerate})
    return found
