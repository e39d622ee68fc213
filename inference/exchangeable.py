"""Exchangeable components of any model: which sites have them, and draws with their components in one order.

The posterior of a mixture is the same for every order of its components, so that chains and methods may each end in
another one, and a chain may change it on its way. Components are put in the order in which they are likeliest under
independent normals, one for each component and coordinate, with the moments of all draws in their present order.

Celeux (1998), Bayesian inference for mixture: the label switching problem, COMPSTAT 98: relabelling by k-means;
Stephens (2000), Dealing with label switching in mixture models, JRSS B 62, section 4: alternate orders and moments.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Sites = Mapping[str, Tensor]
MAX_COMPONENTS = 100
MAX_ENTRIES = 64  # of a component at a site: those that vary most
ENOUGH_DRAWS = 400  # to choose and to standardise coordinates by
ENOUGH_COMPONENTS = 8000  # in the draws by which orders are found: draws of many components tell more, and take longer
LEAST_SPREAD = 0.01  # of a component in a coordinate, in its spread over all components; a point has none
LEAST_GAIN = 0.1  # of log variances, below which no site leads the others
MAX_GROWTH = 0.2  # of the log variance of a site that follows, by chance


def identification(
    method: str, identify: Callable[..., dict[str, Tensor]] | str | Mapping[str, int] | None, *posteriors: Sites
) -> Callable[..., dict[str, Tensor]]:
    """Return the map ``(draws, anchor=None) -> quantities`` that a method's option ``identify`` stands for.

    ``posteriors`` are draws of the sites that all of them share. A ValueError, in the method's name, says if they have
    no components, or the option is none of a function, "exchangeable", a dictionary and None.
    """
    if callable(identify):
        return identify
    if identify is None:
        return lambda draws, anchor=None: dict(draws)
    if isinstance(identify, Mapping):
        return partial(match_components, dims=identify, method=method)
    if identify != "exchangeable":
        raise ValueError(f"{method}: identify must be a function, 'exchangeable' or a dictionary; got {identify!r}")
    if dims := component_dims(*posteriors):
        return partial(match_components, dims=dims, method=method)
    raise ValueError(f"{method}: no shared site has components: say which do, as in identify={{'loc': 0}}")


def component_dims(*posteriors: Sites) -> dict[str, int]:
    """Return the sites that have exchangeable components, and in which dimension, chain and draw not counted.

    Components are looked for in the first dimension of each site and in simplices along the last. Their number is the
    length of a simplex on its own (a mixture's weights), or else that of most sites; one site alone has none. A square
    matrix that is symmetric or triangular is no row of components. One site leads: that whose components, once in one
    order, leave the least variance in the other sites that follow them. A site that varies more if it follows is left
    out, such as one entry per feature where there are as many features as components.

    Parameters
    ----------
    *posteriors : dict of Tensor
        Shape (chain, draw, *site), the same sites in all.

    Returns
    -------
    dict of int
        Empty if there are no such sites.
    """
    return _components(posteriors)[0]


def swapping_dims(*posteriors: Sites) -> dict[str, int]:
    """Return the sites whose components are in different orders among these draws, as `component_dims` finds them."""
    dims, swap = _components(posteriors)
    return dims if swap else {}


def match_components(
    draws: Sites, anchor: Sites | None = None, *, dims: Mapping[str, int], method: str = "compare"
) -> dict[str, Tensor]:
    """Return the draws with their components in one order, and all other sites as they are.

    Each draw is matched to the moments of all, until orders hardly change; then all draws together are matched to the
    anchor. One by one, draws at another mode than the anchor would each pick an order of their own.

    Parameters
    ----------
    draws : dict of Tensor
        Shape (chain, draw, *site).
    anchor : dict of Tensor, optional
        The result of an earlier call, whose order to adopt.
    dims : dict of int
        Site → dimension of its components, chain and draw not counted.
    method : str
        With which errors begin.

    Raises
    ------
    ValueError
        If there is no such site or dimension, or the sites differ in their number of components.
    """
    lengths = {}
    for site, dim in dims.items():
        shape = tuple(draws[site].shape[2:]) if site in draws else None
        if shape is None:
            raise ValueError(f"{method}: identify names {site!r}, and the posteriors share {', '.join(draws)}")
        if not -len(shape) <= dim < len(shape):
            raise ValueError(f"{method}: identify gives dimension {dim} of {site!r}, which has shape {shape}")
        lengths[site] = shape[dim]
    if len(set(lengths.values())) > 1:
        several = ", ".join(f"{length} of {site!r}" for site, length in lengths.items())
        raise ValueError(f"{method}: the sites of identify must have one number of components, not {several}")
    return _reordered(draws, _orders(draws, anchor, dims), dims)


def _components(posteriors: Sequence[Sites]) -> tuple[dict[str, int], bool]:
    """Return the sites that have components, and whether these are in different orders."""
    dims = _largest_group(posteriors[0])
    few = [{site: _thinned(draws[site]) for site in dims} for draws in posteriors]
    most, kept = LEAST_GAIN, dims
    for leader in dims:
        growth = _growth(few, dims, leader)
        gain = -sum(min(0.0, value) for value in growth.values())
        if gain > most:
            most, kept = gain, {site: dim for site, dim in dims.items() if growth.get(site, 0.0) < MAX_GROWTH}
    return kept, most > LEAST_GAIN


def _largest_group(draws: Sites) -> dict[str, int]:
    """Return the sites that may have components, of the number that is most plausible, with their dimensions."""
    groups: dict[int, dict[str, int]] = defaultdict(dict)
    weights = set()
    for site, value in draws.items():
        shape = value.shape[2:]
        if not shape or not value.is_floating_point() or not value.isfinite().all():
            continue
        if _is_simplex(value):
            groups[shape[-1]][site] = len(shape) - 1
            weights |= {shape[0]} if len(shape) == 1 else set()
        if not _is_matrix(value):
            groups[shape[0]][site] = 0

    def plausible(length: int) -> tuple[bool, bool, int, bool]:
        fits = 2 <= length <= MAX_COMPONENTS and len(groups[length]) > 1
        return fits, length in weights, len(groups[length]), not any(groups[length].values())

    best = max(groups, key=plausible, default=0)
    return groups[best] if plausible(best)[0] else {}


def _is_simplex(value: Tensor) -> bool:
    return bool((value >= 0).all()) and torch.allclose(value.sum(-1), value.new_ones(()), atol=1e-4)


def _is_matrix(value: Tensor) -> bool:
    """Whether each draw is a square matrix, symmetric or triangular."""
    if value.dim() != 4 or value.shape[2] != value.shape[3]:
        return False
    return torch.allclose(value, value.mT) or not value.tril(-1).any() or not value.triu(1).any()


def _growth(posteriors: Sequence[Sites], dims: Mapping[str, int], leader: str) -> dict[str, float]:
    """Return how the log variance of each other site, over all posteriors, changes as it follows the leader's order."""
    by_leader = {leader: dims[leader]}
    orders = [_orders(posteriors[0], None, by_leader)]
    anchor = _reordered(posteriors[0], orders[0], by_leader)
    orders += [_orders(draws, anchor, by_leader) for draws in posteriors[1:]]
    found = {}
    for site, dim in dims.items():
        if site != leader:
            coordinates = _coordinates(posteriors[0], {site: dim})
            drawn = [_place(draws, coordinates) for draws in posteriors]
            ordered = [_permuted(values, order) for values, order in zip(drawn, orders, strict=True)]
            found[site] = math.log(_variance(ordered) / _variance(drawn))
    return found


def _variance(parts: Sequence[Tensor]) -> float:
    """Return the total variance of several sets of draws, (s, k, coordinate), each of the same weight."""
    mean = torch.stack([part.mean(0) for part in parts]).mean(0)
    return float(sum((part - mean).square().mean(0).sum() for part in parts)) + 1e-300


class _Coordinates(NamedTuple):
    """How entries of a site become coordinates: logarithms of what is positive, square roots of a simplex."""

    site: str
    dim: int
    scale: str  # "log", "sqrt" or "linear"
    least: float
    entries: Tensor
    mean: Tensor
    spread: Tensor


def _coordinates(draws: Sites, dims: Mapping[str, int]) -> list[_Coordinates]:
    """Return standardised coordinates of the entries that vary most."""
    found = []
    for site, dim in dims.items():
        few = _thinned(draws[site])
        values = _by_component(few, dim).double()
        least = float(values.min())
        scale = "sqrt" if _is_simplex(few) else "log" if least > 0 else "linear"
        spread, mean = torch.std_mean(_scaled(values, scale, least), (0, 1), correction=0)
        entries = spread.topk(min(MAX_ENTRIES, len(spread))).indices
        found.append(_Coordinates(site, dim, scale, least, entries, mean[entries], spread[entries].clamp(min=1e-300)))
    return found


def _place(draws: Sites, coordinates: list[_Coordinates]) -> Tensor:
    """Return the coordinates of every component, (s, k, coordinate)."""
    values = [
        (_scaled(_by_component(draws[c.site], c.dim)[..., c.entries].double(), c.scale, c.least) - c.mean) / c.spread
        for c in coordinates
    ]
    return torch.cat(values, -1)


def _scaled(values: Tensor, scale: str, least: float) -> Tensor:
    if scale == "linear":
        return values
    return values.clamp(min=least).log() if scale == "log" else values.clamp(min=0).sqrt()


def _thinned(value: Tensor) -> Tensor:
    return value[:, :: 1 + value.shape[0] * value.shape[1] // ENOUGH_DRAWS]


def _by_component(value: Tensor, dim: int) -> Tensor:
    """Return draws as (s, k, entry), on the CPU."""
    moved = value.detach().cpu().movedim(_position(value, dim), 2)
    return moved.reshape(moved.shape[0] * moved.shape[1], moved.shape[2], -1)


def _position(value: Tensor, dim: int) -> int:
    return dim + 2 if dim >= 0 else value.dim() + dim


def _orders(draws: Sites, anchor: Sites | None, dims: Mapping[str, int]) -> Tensor:
    """Return which of its components each draw has in first place, in second …: (s, k)."""
    points = _place(draws, _coordinates(draws if anchor is None else anchor, dims))
    few = points[:: 1 + len(points) * points.shape[1] // ENOUGH_COMPONENTS]
    starts = {len(few) - 1, 0, len(few) // 2}
    _, order = min((_relabelled(few, start) for start in sorted(starts)), key=lambda found: found[0])
    if len(few) < len(points):
        order, _ = _assigned(points, *_moments(_permuted(few, order)))
    if anchor is None:
        return order
    goal = _place(anchor, _coordinates(anchor, dims))
    mean = _permuted(points, order).mean(0, keepdim=True)
    last, _ = _assigned(mean, *_moments(goal))
    return order[:, last[0]]


def _relabelled(points: Tensor, start: int) -> tuple[float, Tensor]:
    """Return the cost and the orders to which one draw's order leads."""
    order, cost = _assigned(points, points[start], torch.ones_like(points[start]))
    for _ in range(20):
        last = order
        order, cost = _assigned(points, *_moments(_permuted(points, order)))
        if float((order != last).any(1).double().mean()) < 1e-3:
            break
    return cost, order


def _moments(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Return means and variances of each component's coordinates, (k, coordinate)."""
    variance, mean = torch.var_mean(ordered, 0, correction=0)
    return mean, variance.clamp(min=LEAST_SPREAD**2)


def _assigned(points: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, float]:
    """Return each draw's likeliest order under normals with these moments, and -2 times the log likelihood of all."""
    precision = 1 / variance
    constant = (mean.square() * precision + variance.log()).sum(-1)
    cost = points.square() @ precision.T - 2 * points @ (mean * precision).T + constant
    cost = cost.nan_to_num()  # (s, component, place)
    order = cost.argmin(1)
    clash = order.sort(1).values.ne(torch.arange(order.shape[1])).any(1)
    if clash.any():
        from scipy.optimize import linear_sum_assignment  # slow to import

        order[clash] = torch.tensor(np.stack([linear_sum_assignment(c)[1] for c in cost[clash].mT.numpy()]))
    return order, float(cost.gather(1, order[:, None]).sum())


def _permuted(values: Tensor, order: Tensor) -> Tensor:
    return values[torch.arange(len(order))[:, None], order]


def _reordered(draws: Sites, order: Tensor, dims: Mapping[str, int]) -> dict[str, Tensor]:
    found = dict(draws)
    for site, dim in dims.items():
        value = draws[site]
        moved = value.movedim(_position(value, dim), 2)
        rows = _permuted(moved.flatten(0, 1), order.to(value.device))
        found[site] = rows.unflatten(0, moved.shape[:2]).movedim(2, _position(value, dim))
    return found
