"""Expectation maximisation: E-step and M-step in turn, from several starts, until the objective is level.

Dempster, Laird and Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm, JRSS B 39.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .checkpoints import Checkpoint, Place, states_of
from .info import EmInfo
from .optim.acceleration import Anderson, gained_lately
from .optim.restarts import (
    Params,
    Restarts,
    Run,
    State,
    distance_to_limit,
    kept_path,
    on_device,
    optima,
    restored_path,
    rounding_of,
    runs_of,
)
from .options import as_double, at_least_one, device_of, options_by_name, positive
from .posterior import Posterior, point_draws
from .streams.rows import Stream, check_blocks
from .traces.isolate import isolated

if TYPE_CHECKING:
    from ..models import Steps


@options_by_name
def em(
    steps: "Steps",
    *data: Tensor,
    num_steps: int = 2000,
    tol: float = 1e-6,
    num_restarts: int = 10,
    accelerate: bool | None = None,
    seed: int = 0,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[EmInfo]:
    """Maximise the objective of ``steps`` by expectation maximisation, from several starts.

    Parameters
    ----------
    steps : Steps
        As a model's ``em_steps(**options)`` returns them; see `guidebook.models.Steps`.
    *data : Tensor or Stream
        Data that the steps take; floating point is computed in float64. Rows of a `guidebook.inference.streams.stream`
        are read anew in every iteration, which all restarts of batched steps share. `gmm`, `mixture`, `ppca`,
        `factor_analysis` and, by `cavi`, `lda` of `guidebook.models` take one.
    num_steps : int
        Maximum number of iterations per restart.
    tol : float
        A restart stops when its objective is less than this below its limit, in nats, as Aitken extrapolates it; if
        accelerated, when the last five iterations together gained less.
    num_restarts : int
        Number of starts; the best optimum that is not degenerate wins.
    accelerate : bool, optional
        Whether to go on from where the last iterations lead, if the objective is no lower there (Anderson's
        acceleration; Henderson and Varadhan 2019), which pays if EM converges slowly. Default: what the steps
        recommend.
    seed : int
    checkpoint, every
        As in `svi`: restarts that have ended, and where the others stand between iterations.

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
    accelerate = steps.accelerate if accelerate is None else accelerate
    limits = num_steps, tol, num_restarts
    best, run = ascend("em", steps, data, *limits, seed, states_of(checkpoint), accelerate=accelerate)
    params = {name: value.cpu() for name, value in best.params.items()}
    info = EmInfo(log_likelihood=best.objective[-1], **run)
    return Posterior(draws=point_draws(params), params=params, info=info)


def iterate(
    steps: "Steps",
    data: tuple,
    params: Params,
    restarts: Restarts,
    num_steps: int,
    accelerate: bool,
    both_halves: bool,
    states: Checkpoint,
) -> list[Run]:
    """Alternate E-steps and M-steps from a batch of starts; restarts leave the batch as they end."""

    def e_step(params: Params) -> State:
        expectations = steps.e_step(params, *data)
        return State(params, expectations, steps.objective(params, expectations))

    memory = Anderson() if accelerate else None
    previous: State | None = None
    ahead: State | None = None  # where accelerated restarts go on
    first = 0
    if (saved := states.take("iterations")) is not None:
        first, params = saved["iteration"] + 1, on_device(saved["params"], params)
        path = restored_path(saved["path"], params, e_step)
        if memory is not None:
            previous, ahead = path
            memory.restore(saved["memory"], ahead.objective)
        elif path:
            previous = path[0]
    for iteration in range(first, num_steps + 1):
        state = ahead or e_step(params)  # and the objective there
        going = restarts.record(state, previous, must_stop=iteration == num_steps)
        if not going:
            break
        if len(going) < state.objective.numel():
            state = state.at(going)
            if memory is not None:
                memory.keep(going)
        params = steps.m_step(state.expectations, *data)
        if both_halves:
            restarts.check_m_step(steps.objective(params, state.expectations))
        else:
            previous = state
        if memory is not None:
            ahead = memory.advance(state, params, e_step)
        del state  # it can be as large as the data: hold one
        states.offer("iterations", partial(_stand, iteration, params, previous, ahead, memory))
    return [run for _, run in sorted(restarts.runs.items())]


def _stand(
    iteration: int, params: Params, previous: State | None, ahead: State | None, memory: Anderson | None
) -> dict[str, Any]:
    path = kept_path([state for state in (previous, ahead) if state is not None])
    return {"iteration": iteration, "params": params, "path": path, "memory": memory and memory.state()}


def ascend(
    method: str,
    steps: "Steps",
    data: tuple,
    num_steps: int,
    tol: float,
    num_restarts: int,
    seed: int,
    states: Checkpoint,
    *,
    accelerate: bool = False,
    both_halves: bool = False,
) -> tuple[Run, dict[str, Any]]:
    """Raise the objective of ``steps`` from several starts: `em` and, with ``both_halves``, `cavi`.

    With ``both_halves`` the objective is defined, and may not fall, after the M-step too. Returns the best run, and
    what the records of both methods have in common.
    """
    streams = [value for value in data if isinstance(value, Stream)]
    check_blocks(method, streams, steps.by_blocks)
    at_least_one(method, num_steps=num_steps, num_restarts=num_restarts)
    positive(method, tol=tol)
    begin = time.perf_counter()
    size = num_restarts if steps.batched else 1
    left = gained_lately if accelerate else distance_to_limit
    runs: list[Run] = []
    kept: dict[str, int] = {}
    with isolated(seed), torch.no_grad():
        on_cpu = device_of(data).type == "cpu"
        seeded = torch.default_generator.manual_seed if on_cpu else torch.manual_seed  # the latter takes a millisecond
        data = steps.prepare(*(data if steps.batched else as_double(data)))
        for first in range(0, num_restarts, size):
            restarts = Restarts(size, steps, data, method, tol, left)
            batch = states.part(f"restart-{first}") if size < num_restarts else states
            if (ended := batch.result) is not None:
                runs += runs_of(ended)
                continue
            batch.add(restarts=restarts)
            starts = _starts(steps, data, seed, seeded, range(first, first + size))
            found = iterate(steps, data, starts, restarts, num_steps, accelerate, both_halves, batch)
            if streams and steps.of_rows:
                kept = {"bytes_kept": sum(found[0].params[name].nbytes for name in steps.of_rows)}
                found = [_without(run, steps.of_rows) for run in found]
            if batch is not states:
                batch.finish([tuple(run) for run in found])
            runs += found
    seconds = time.perf_counter() - begin

    valid = [run for run in runs if run.degenerate is None]
    if not valid:
        raise ArithmeticError(
            f"{method}: none of {num_restarts} restarts reached an optimum, the first because {runs[0].degenerate}; "
            "take a simpler model or more restarts"
        )
    best = max(valid, key=lambda run: run.objective[-1])
    within = max(tol, rounding_of(best.objective[-1]))
    message = (
        f"level within {within:.3g} nats" if best.converged else f"{num_steps} iterations were not enough: take more"
    )
    if degenerate := num_restarts - len(valid):
        message += f"; {degenerate} of {num_restarts} restarts were set aside as degenerate"
    return best, {
        "objective": torch.tensor(best.objective, dtype=torch.float64),
        "optima": optima(runs, tol),
        "seconds": seconds,
        "seed": seed,
        "converged": best.converged,
        "message": message,
        "streamed": streams[0].held() | kept if streams else None,
    }


def _without(run: Run, names: tuple[str, ...]) -> Run:
    """Leave out parameters of which there is one per row."""
    return run._replace(params={name: value for name, value in run.params.items() if name not in names})


def _starts(steps: "Steps", data: tuple, seed: int, seeded: Callable[[int], Any], restarts: range) -> Params:
    """Return starting values, each restart's from a seed of its own, stacked for batched steps."""
    starts = []
    for restart in restarts:
        seeded(int(np.random.SeedSequence([seed, restart]).generate_state(1)[0]))
        starts.append(steps.init(restart, *data))
    return {name: torch.stack([one[name] for one in starts]) for name in starts[0]} if steps.batched else starts[0]
