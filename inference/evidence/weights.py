"""Importance weights, from the prior or a guide, and what they say about an integral."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from ..diagnostics import ess, k_hat
from ..traces.draws import Sites, draw_chunk, nodes
from ..traces.guides import is_point
from .space import LatentSpace, has_density, is_by_row, many

ENOUGH_FOR_K_HAT = 100  # weights


class Mean(NamedTuple):
    """The logarithm of a mean of weights, block by block.

    Attributes
    ----------
    estimate, error : Tensor, shape (block,)
        log of the mean weight, and its standard error by the delta method; in nats.
    ess : Tensor, shape (block,)
        (Σ w)² / Σ w².
    """

    estimate: Tensor
    error: Tensor
    ess: Tensor


def log_mean(log_weights: Tensor) -> Mean:
    """Logarithm of the mean of weights given in nats, shape (chain, draw, block): independent unless drawn by chains.

    With fewer than four draws a chain all count as independent; else the autocorrelation of Markov chains is allowed
    for by the effective sample size.
    """
    log_weights = log_weights.detach().cpu().double()
    draws = log_weights.shape[1]
    flat = log_weights.flatten(0, 1)
    count = len(flat)
    estimate = flat.logsumexp(0) - math.log(count)
    relative = (flat - flat.amax(0)).exp()
    relative = relative / relative.mean(0)
    spread = relative.std(0)
    size = torch.full_like(spread, count)
    if draws >= 4:
        size = torch.minimum(size, ess(log_weights).nan_to_num(float(count)))
    return Mean(estimate, spread / size.sqrt(), count / relative.square().mean(0))


def independent(log_weights: Tensor) -> Mean:
    """`log_mean` of independent weights, shape (draw, block)."""
    return log_mean(log_weights.unsqueeze(1))


def diagnose(log_weights: Tensor, means: Mean) -> dict[str, float | None]:
    """Effective sample size and k̂ of the worst block, the mean log weight, and the bias of the estimate to expect.

    Parameters
    ----------
    log_weights : Tensor, shape (draw, block)
    means : Mean
        What `log_mean` made of them.
    """
    worst = int(means.ess.argmin())
    return {
        "ess": float(means.ess[worst]),
        "k_hat": _tail(log_weights[:, worst]),
        "mean_log_weight": float(log_weights.double().mean(0).sum()),
        "bias": -0.5 * float(means.error.square().sum()),
    }


def draw_sites(function: Callable, data: tuple, count: int, chunk: int) -> Sites:
    """Draws of every unobserved site of a model or guide, shape (draw, *site), those of autoguides' own included."""
    drawer = function if isinstance(function, AutoGuide) else poutine.block(function, hide_fn=_is_observed)
    parts = [draw_chunk(drawer, data, min(chunk, count - start))[0] for start in range(0, count, chunk)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _is_observed(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and site["is_observed"]


def _tail(log_weights: Tensor) -> float | None:
    """k̂, or None where the weights are few, or all the same."""
    try:
        return k_hat(log_weights) if len(log_weights) >= ENOUGH_FOR_K_HAT else None
    except ValueError:
        return None


def prior_weights(space: LatentSpace, model: Callable, data: tuple, count: int) -> Tensor:
    """Log likelihoods at draws of the prior, shape (draw, block)."""

    def one(draw: Sites) -> Tensor:
        trace = poutine.trace(poutine.condition(model, data=draw)).get_trace(*data)
        trace.compute_log_prob()
        return space.by_block(trace, lambda name: name not in space.names)

    return many(one, draw_sites(model, data, count, space.chunk), space.chunk)


def guide_weights(space: LatentSpace, model: Callable, guide: Callable, data: tuple, count: int) -> Tensor:
    """Of draws of the guide: log p(x, z) - log q(z), shape (draw, block)."""
    steering = guide_sites(guide, space, data)

    def one(draw: Sites) -> Tensor:
        of_guide, of_model = (
            poutine.trace(poutine.condition(function, data={name: draw[name] for name in names})).get_trace(*data)
            for function, names in ((guide, steering), (model, space.names))
        )
        of_guide.compute_log_prob()
        of_model.compute_log_prob()
        return space.by_block(of_model) - space.by_block(of_guide)

    return many(one, draw_sites(guide, data, count, space.chunk), space.chunk)


def start_draws(space: LatentSpace, function: Callable, data: tuple, count: int) -> Tensor:
    """Draws of a model's prior, or of a guide, unconstrained: shape (draw, block, size)."""
    sites = draw_sites(function, data, count, space.chunk)
    return many(space.matrix, {name: sites[name] for name in space.names}, space.chunk)


def fits_rows(guide: Callable, space: LatentSpace, data: tuple) -> bool:
    """Whether the guide, too, is a product over the rows.

    Raises
    ------
    ValueError
        If the guide leaves out a latent site of the model, or is a point.
    """
    trace = poutine.trace(guide).get_trace(*data)
    for name in space.names:
        if name not in trace.nodes:
            raise ValueError(f"evidence: the guide leaves out the model's site {name!r}")
    if is_point(guide, data):
        raise ValueError("evidence: the guide is a point, which has no weights")
    return is_by_row(trace, data)


def guide_sites(guide: Callable, space: LatentSpace, data: tuple) -> list[str]:
    """The sites of a guide that the others follow from: the model's own, or those that stand behind an autoguide's.

    Raises
    ------
    ValueError
        If the guide has other sites that are random, so that its density is an integral.
    """
    trace = poutine.trace(guide).get_trace(*data)
    extra = [name for name, node in nodes(trace).items() if has_density(node) and name not in space.names]
    if _is_flat(extra, trace, space):
        return extra
    behind = {f"{name}_unconstrained": name for name in space.names}
    for name in extra:
        if name not in behind:
            raise ValueError(f"evidence: the guide's site {name!r} is none of the model's: its density is not known")
    return [*extra, *(name for name in space.names if name not in {behind[one] for one in extra})]


def guide_density(guide: Callable, space: LatentSpace, data: tuple) -> Callable[[Tensor], Tensor]:
    """Log density of a guide on the unconstrained scale, (block, size) → (block); raises as `guide_sites`."""
    steering = guide_sites(guide, space, data)
    trace = poutine.trace(guide).get_trace(*data)
    flat = _is_flat(steering, trace, space)

    def log_q(matrix: Tensor) -> Tensor:
        if flat:
            given = {steering[0]: matrix.reshape(nodes(trace)[steering[0]]["value"].shape)}
        else:
            behind = {f"{name}_unconstrained": value for name, value in space.unconstrained(matrix).items()}
            given = {name: value for name, value in (space.sites(matrix) | behind).items() if name in steering}
        at = poutine.trace(poutine.condition(guide, data=given)).get_trace(*data)
        at.compute_log_prob()
        return space.by_block(at) + space.log_jacobian(matrix)

    return log_q


def _is_flat(names: list[str], trace: poutine.Trace, space: LatentSpace) -> bool:
    """Whether one site of a guide, none of the model's, holds all latent variables, unconstrained and in order."""
    if len(names) != 1 or names[0] in space.names or names[0].endswith("_unconstrained"):
        return False
    return nodes(trace)[names[0]]["value"].numel() == space.start.numel()
