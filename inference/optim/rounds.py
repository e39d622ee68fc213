"""Rounds of fits at fixed draws: from the mode to coordinates of unit scale, with more draws until nothing moves.

Burroni, Domke and Sheldon (2024), Sample average approximation for black-box variational inference, UAI: draws are
doubled until the optimum stands still.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checkpoints.trees import moved_to
from ..engines.batched import Batched
from .balanced import balanced_normals
from .coordinates import Coordinates
from .large import low_rank_response, start_large
from .mode import MAX_DENSE, find_mode, inverse_root
from .normal import NormalFit, fit_normal
from .response import linear_response

MIN_DRAWS, MAX_DRAWS = 64, 4096  # of the objective, where they grow
MIN_RESPONSE, MAX_RESPONSE = 128, 1024  # draws at which Hessians are averaged
RESPONSE_PRODUCTS = 4096  # with Hessians that they may take, if more than the least number of draws do
TOLERANCE = 0.03  # posterior sds by which means, and relative to sds, sds may move when draws are doubled
VALLEY_SHIFT, VALLEY_ELBO = 0.5, 0.05  # sds that would cost .125 nats if there were one optimum
FIRST_SD = 0.3  # of a normal that starts where there is no mode, in units of the curvature there


class Rounds(NamedTuple):
    """Where a fit ended: the optimum at fixed draws, and the normal with its covariance by linear response."""

    normal: Coordinates
    response: Coordinates | None  # None if the Hessian is not positive, or not asked for
    loss: float  # negative ELBO of `normal` at the last draws, nats
    num_draws: int
    history: list[dict[str, Any]]  # per round: num_draws, elbo, shift and spread
    converged: bool
    message: str


def fit_rounds(batched: Batched, start: Tensor, num_draws: int | None, *, response: bool, seed: int) -> Rounds:
    """Fit a normal from one start (d); ``num_draws`` None lets the draws grow."""
    first = (start_large if batched.dim > MAX_DENSE else start_at_mode)(batched, start)
    return rounds_from(batched, *first, num_draws, response=response, seed=seed)


def rounds_from(
    batched: Batched, coordinates: Coordinates, words: str, num_draws: int | None, *, response: bool, seed: int
) -> Rounds:
    """Fit a normal from a first one, which ``words`` describe; ``num_draws`` None lets the draws grow."""
    dim, start = batched.dim, batched.start
    is_large = dim > MAX_DENSE
    full = not is_large and 2 * dim + 2 <= (num_draws or MAX_DRAWS)
    count = num_draws or max(MIN_DRAWS, 1 << (2 * dim + 1).bit_length() if full else 0)
    fit = None
    history: list[dict[str, Any]] = []
    settled = num_draws is not None
    while True:
        noise = balanced_normals(count, dim, seed + len(history)).to(start)
        new = _fit(batched, coordinates, noise, full=full)
        moved = _moved(fit, new)
        history.append({"num_draws": len(noise), "elbo": -new.loss} | moved)
        fit, coordinates = new, new.coordinates
        settled = settled or (history[1:] != [] and max(moved["shift"], moved["spread"]) <= TOLERANCE)
        undetermined = not settled and _is_undetermined(history)
        if settled or undetermined or 2 * count > MAX_DRAWS:
            break
        count *= 2
    found = None
    if response:
        if is_large:
            found = low_rank_response(batched, fit.coordinates, balanced_normals(MIN_DRAWS, dim, seed).to(start))
        else:
            few = balanced_normals(_response_draws(dim), dim, seed).to(start)
            found = _response(batched, fit.coordinates, few, full=full)
    problems = [] if fit.converged else ["the optimiser stopped before the optimum"]
    if undetermined:
        words += "; the data do not determine every direction (rotations, say): means moved, and the ELBO did not"
    elif not settled:
        shift, spread = history[-1]["shift"], history[-1]["spread"]
        problems.append(f"the answer still moved at {count} draws, means by {shift:.2f} sd and sds by {spread:.0%}")
    if response and found is None:
        problems.append(
            "the Hessian of the objective is not positive, and gives no linear response: sds are the optimum's own"
        )
    message = "; ".join([words, f"{len(history)} rounds, the last with {len(noise)} fixed draws", *problems])
    return Rounds(fit.coordinates, found, fit.loss, len(noise), history, not problems, message)


def rounds_of(kept: tuple, device: torch.device) -> Rounds:
    """Return the rounds that a checkpoint kept as a tuple."""
    normal, response, *rest = moved_to(device, kept)
    return Rounds(Coordinates(*normal), None if response is None else Coordinates(*response), *rest)


def start_at_mode(batched: Batched, start: Tensor) -> tuple[Coordinates, str]:
    """Return Laplace's normal at the mode; where there is none, a diagonal one fitted from the start."""
    mode = find_mode(batched, start)
    root = inverse_root(mode.hessian) if mode.is_mode and mode.hessian is not None else None
    if root is not None:
        return Coordinates(mode.point, root), "started from the mode"
    first = Coordinates(start, first_sds(batched.hessian(start)))
    fit = fit_normal(batched, first, first_noise(start), full=False)
    return Coordinates(fit.coordinates.centre, fit.coordinates.root.diag()), f"no mode ({mode.message})"


def first_sds(hessians: Tensor) -> Tensor:
    """Return sds, (…, d), of normals that start where there is no mode, by Hessians there, (…, d, d)."""
    curvature = hessians.diagonal(dim1=-2, dim2=-1).abs()
    known = torch.isfinite(curvature) & (curvature > 0)
    return FIRST_SD * torch.where(known, curvature, torch.ones_like(curvature)).rsqrt()


def first_noise(like: Tensor) -> Tensor:
    """Return the fixed draws (n, d) of normals before the first round, for points like these, (…, d)."""
    return balanced_normals(MIN_DRAWS, like.shape[-1], 0).to(like)


def _fit(batched: Batched, start: Coordinates, noise: Tensor, *, full: bool) -> NormalFit:
    """Fit, and once more in coordinates whitened by the first optimum."""
    first = fit_normal(batched, start, noise, full=full)
    if full or not start.is_dense:
        return fit_normal(batched, first.coordinates, noise, full=full)
    whitened = _response(batched, first.coordinates, noise, full=False)
    return first if whitened is None else fit_normal(batched, whitened, noise, full=False)


def _response_draws(dim: int) -> int:
    return max(MIN_RESPONSE, 2 * dim + 2, min(MAX_RESPONSE, RESPONSE_PRODUCTS // dim))


def _response(batched: Batched, at: Coordinates, noise: Tensor, *, full: bool) -> Coordinates | None:
    covariance = linear_response(batched, at, noise, full=full)
    if covariance is None:
        return None
    root, failed = torch.linalg.cholesky_ex(covariance)
    return None if int(failed) else Coordinates(at.centre, at.root @ root)


def _is_undetermined(history: list[dict[str, Any]]) -> bool:
    """Whether the last optimum is as good as the one before, and elsewhere: in a valley, such as symmetries make."""
    if len(history) < 2:
        return False
    before, after = history[-2:]
    return after["shift"] > VALLEY_SHIFT and abs(after["elbo"] - before["elbo"]) < VALLEY_ELBO


def _moved(before: NormalFit | None, after: NormalFit) -> dict[str, Any]:
    """Return how far means and sds moved: the largest, in sds and as a ratio less one."""
    if before is None:
        return {"shift": None, "spread": None}
    sds = after.coordinates.sds
    shift = (after.coordinates.centre - before.coordinates.centre).abs() / sds
    ratio = (before.coordinates.sds / sds).log().abs()
    return {"shift": float(shift.max()), "spread": float(ratio.max().expm1())}
