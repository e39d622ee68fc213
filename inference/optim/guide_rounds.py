"""Rounds of fits of any guide at fixed noise, with more draws until nothing moves."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from ..progress import Progress
from ..traces.draws import draw_guide
from ..traces.log_joint import LogJoint
from .fixed_noise import FixedNoise
from .lbfgs import fit_lbfgs
from .rounds import MIN_DRAWS

MAX_DRAWS = 1024  # of the objective, where they grow
MAX_STEPS = 500  # of L-BFGS, per round
TOLERANCE = 0.05  # sds by which means, and relative to sds, sds may move when draws are doubled
JUDGED_DRAWS = 1000  # by which rounds are compared, the same noise in each


class GuideRounds(NamedTuple):
    """How a guide was fitted; its parameters were changed in place."""

    num_draws: int
    history: list[dict[str, Any]]  # as of `Rounds`
    gradients: int
    converged: bool
    message: str


def fit_guide(
    loss: Any,
    model: Callable,
    guide: Callable,
    leaves: Sequence[Tensor],
    joint: LogJoint,
    num_draws: int | None,
    seed: int,
) -> GuideRounds:
    """Minimise a loss over the unconstrained ``leaves`` at fixed noise; ``num_draws`` None lets the draws grow."""
    noise = FixedNoise(loss, model, guide, leaves, joint.data)
    count, settled = num_draws or MIN_DRAWS, num_draws is not None
    history: list[dict[str, Any]] = []
    before, gradients, problems = None, 0, []
    while True:
        calls = 0
        estimate = noise.estimate(count, seed + len(history))

        def counted(estimate: Callable[[], float] = estimate) -> float:
            nonlocal calls
            calls += 1
            return estimate()

        fit = fit_lbfgs(counted, leaves, num_steps=MAX_STEPS, bar=Progress("", 1, False))
        gradients += calls * count
        if fit is None:
            problems = ["L-BFGS found no optimum: a flexible guide can shrink onto fixed draws; take more, or svi"]
            break
        problems = [] if fit.converged else [fit.message]
        after = None if settled else _moments(joint, guide, seed)
        moved = _moved(before, after)
        history.append({"num_draws": count, "elbo": -float(fit.losses[-1])} | moved)
        if settled or (before is not None and max(moved["shift"], moved["spread"]) <= TOLERANCE):
            break
        if 2 * count > MAX_DRAWS:
            shift, spread = moved["shift"], moved["spread"]
            problems.append(f"the answer still moved at {count} draws, means by {shift:.2f} sd and sds by {spread:.0%}")
            break
        before, count = after, 2 * count
    message = "; ".join([f"{len(history)} rounds, the last with {count} fixed draws", *problems])
    return GuideRounds(count, history, gradients, not problems, message)


def _moments(joint: LogJoint, guide: Callable, seed: int) -> tuple[Tensor, Tensor]:
    """Return means and sds of all latent numbers under the guide."""
    with torch.random.fork_rng(), pyro.poutine.block():
        torch.manual_seed(seed)
        drawn = draw_guide(joint, guide, JUDGED_DRAWS, True).sites
    values = torch.cat(
        [drawn[name].flatten(1) if drawn[name].dim() > 1 else drawn[name][:, None] for name in joint.latent], 1
    )
    return values.mean(0), values.std(0)


def _moved(before: tuple[Tensor, Tensor] | None, after: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    if before is None or after is None:
        return {"shift": None, "spread": None}
    sds = after[1].clamp(min=torch.finfo(after[1].dtype).tiny)
    spread = (before[1] / sds).log().abs().max().expm1()
    return {"shift": float(((after[0] - before[0]).abs() / sds).max()), "spread": float(spread)}
