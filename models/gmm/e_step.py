"""Rows shared out among normal components: the E-step of EM and of coordinate ascent, and its sums.

Two ways give the same numbers. Matrix products (`models._shared.responsibilities`) expand the quadratic form about
the data's centre, which costs half the operations or less, and digits where the data spread far in units of a
component. Where too few would be left, every component has the rows measured from its own mean.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .._shared.responsibilities import chunks, moments, normalise_, rows_at_once, share_out
from .conjugate import Statistics
from .model import Covariance

_LOST = 1e-10  # nats that rounding may cost a log density
_SHRUNK = 1e-5  # share of the second moment that a variance may be, to be had as a difference
_WIDEST = 160  # columns beyond which products of two of them are too many to hold
_BUILT = 5  # components for which d features cost as much to work out as to use


class Components(NamedTuple):
    """Log joint densities c[k] - ½ ‖S[k]⁻¹ (x - m[k])‖² of rows and components.

    Attributes
    ----------
    constant : Tensor, shape (..., k)
        c, in nats.
    loc : Tensor, shape (..., k, d)
        m.
    root : Tensor
        S: lower triangular (..., k, d, d), tied (..., 1, d, d), diagonal (..., k, d), isotropic (..., k).
    """

    constant: Tensor
    loc: Tensor
    root: Tensor


class Shared(NamedTuple):
    """Rows shared out.

    Attributes
    ----------
    statistics : Statistics
    log_norm : Tensor, shape (...)
        Σ_n log Σ_k of the joint densities, in nats.
    """

    statistics: Statistics
    log_norm: Tensor


class Frame(NamedTuple):
    """Coordinates z = S⁻¹ (x - centre) of the data.

    Attributes
    ----------
    centre : Tensor, shape (d,)
        Mean of the rows.
    covariance : Tensor, shape (d, d)
        Of the rows, with 1/n.
    root : Tensor, shape (d, d)
        S: the Cholesky factor of the covariance where components have matrices, else the identity.
    inverse : Tensor, shape (d, d)
        S⁻¹.
    square : Tensor, shape (d, d)
        Σ_n z zᵀ.
    reach : Tensor, shape (f,)
        A bound of the absolute value of each feature.
    """

    centre: Tensor
    covariance: Tensor
    root: Tensor
    inverse: Tensor
    square: Tensor
    reach: Tensor


def expect(components: Components, x: Tensor, covariance: Covariance) -> Shared:
    """Share the rows out by their joint densities; x, shape (n, d), may have any floating-point type."""
    frame = frame_of(x, covariance)
    columns, many = len(frame.centre), components.constant.numel()
    if covariance != "full" or (columns <= _WIDEST and _BUILT * many >= columns):
        shared = _by_products(components, x, covariance, frame)
        if shared is not None:
            return shared
    shared, sound = _by_distances(components, x, covariance, components.loc)
    if not sound:
        means = shared.statistics.mean
        about = torch.where(torch.isfinite(means), means, components.loc)
        shared, _ = _by_distances(components, x, covariance, about)
    return shared


def entropy(components: Components, shared: Shared, covariance: Covariance) -> Tensor:
    """Entropy of the shares that `expect` gives, in nats, shape (...): log_norm less the expected log joint density."""
    (counts, mean, scatter), (constant, loc, root) = shared.statistics, components
    inverse, gap = _inverse(root, loc, covariance), mean.nan_to_num() - loc
    if covariance in ("full", "tied"):
        gap = (inverse @ gap.unsqueeze(-1)).squeeze(-1)
        inside = ((inverse @ scatter.nan_to_num()) * inverse).sum((-1, -2, -3))
    else:
        gap, scatter = inverse * gap, scatter.nan_to_num()
        inside = (inverse.square() * (scatter if covariance == "diagonal" else scatter.unsqueeze(-1))).sum((-1, -2))
    return shared.log_norm + 0.5 * inside - (counts * (constant - 0.5 * gap.square().sum(-1))).sum(-1)


def frame_of(x: Tensor, covariance: Covariance) -> Frame:
    """Coordinates for the data, worked out once for a tensor."""
    return _remembered_frame(x, x._version, covariance)


@functools.lru_cache(maxsize=4)
def _remembered_frame(x: Tensor, version: int, kind: Covariance) -> Frame:  # the version counts x's changes
    centre, covariance = moments(x)
    root = inverse = _eye(len(centre), centre.device)
    if kind in ("full", "tied"):
        factor, info = torch.linalg.cholesky_ex(covariance)
        if not info:
            root, inverse = factor, torch.linalg.solve_triangular(factor, root, upper=False)
    furthest = torch.zeros_like(centre)
    for part in chunks(x, len(centre)):
        furthest = torch.maximum(furthest, ((part - centre) @ inverse.mT).abs().amax(0))
    reach = _features(furthest.unsqueeze(-1), "full" if kind == "tied" else kind).squeeze(-1)
    return Frame(centre, covariance, root, inverse, len(x) * (inverse @ covariance @ inverse.mT), reach)


def _by_products(components: Components, x: Tensor, covariance: Covariance, frame: Frame) -> Shared | None:
    """Two products a chunk; None where rounding would cost too much."""
    constant, loc, root = components
    dim = len(frame.centre)
    middle = (loc - frame.centre) @ frame.inverse.mT
    if covariance in ("full", "tied"):
        inner = torch.linalg.solve_triangular(frame.inverse @ root, _eye(dim, loc.device), upper=False)
        precision = inner.mT @ inner
        linear = (precision @ middle.unsqueeze(-1)).squeeze(-1)
        pairs = _pairs(dim, loc.device)
        quadratic = precision.flatten(-2).index_select(-1, pairs.entry) * pairs.factor
    else:
        precision = root.square().reciprocal()
        precision = precision if covariance == "diagonal" else precision.unsqueeze(-1)
        linear, quadratic = middle * precision, -0.5 * precision
    constant = constant - 0.5 * (linear * middle).sum(-1)
    theta = torch.cat([linear, quadratic.expand(*constant.shape, -1)], -1)
    far = float((theta.abs() @ frame.reach).max())
    if not far * torch.finfo(loc.dtype).eps < _LOST:
        return None

    theta = linear if covariance == "tied" else theta
    log_norm, counts, sums = share_out(constant, theta, _blocks(x, covariance, frame))
    first, second = sums[..., :dim], sums[..., dim:]
    mean = first / counts.unsqueeze(-1)
    if covariance == "full":
        total = second.index_select(-1, _pairs(dim, loc.device).place).unflatten(-1, (dim, dim))
        scatter = total - first.unsqueeze(-1) * mean.unsqueeze(-2)
    elif covariance == "tied":
        log_norm = log_norm - 0.5 * (precision * frame.square).sum((-1, -2)).squeeze(-1)
        total = frame.square
        scatter = (total - first.mT @ mean.nan_to_num()).unsqueeze(-3)
    else:
        total = second
        scatter = total - (first * mean if covariance == "diagonal" else (first * mean).sum(-1, keepdim=True))
    if not _sound(scatter, total, covariance):
        return None
    if covariance in ("full", "tied"):
        scatter = frame.root @ scatter @ frame.root.mT
        mean = mean @ frame.root.mT
    elif covariance == "isotropic":
        scatter = scatter.squeeze(-1)
    return Shared(Statistics(counts, frame.centre + mean, scatter), log_norm)


def _by_distances(components: Components, x: Tensor, covariance: Covariance, about: Tensor) -> tuple[Shared, bool]:
    """Distances from each component's mean, sums from means ``about`` it, and whether these leave the scatter sound."""
    constant, loc, root = components
    matrices = covariance in ("full", "tied")
    inverse = _inverse(root, loc, covariance)
    same = about is loc
    counts, log_norm = torch.zeros_like(constant), constant.new_zeros(constant.shape[:-1])
    first = torch.zeros_like(loc)
    second = loc.new_zeros(*loc.shape, loc.shape[-1]) if matrices else torch.zeros_like(loc)
    for part in x.split(max(128, rows_at_once(16 * loc.numel()))):
        rows = part.double().mT
        gap = rows - loc.unsqueeze(-1)  # (..., k, d, b)
        joint = inverse @ gap if matrices else inverse.unsqueeze(-1) * gap
        shares = constant.unsqueeze(-1) - 0.5 * joint.square_().sum(-2)
        log_norm += normalise_(shares).sum(-1)
        counts += shares.sum(-1)
        gap = gap if same else rows - about.unsqueeze(-1)
        shared = shares.unsqueeze(-2) * gap
        first += shared.sum(-1)
        second += shared @ gap.mT if matrices else (shared * gap).sum(-1)
    shift = first / counts.unsqueeze(-1)
    scatter = second - (first.unsqueeze(-1) * shift.unsqueeze(-2) if matrices else first * shift)
    if covariance == "tied":
        second, scatter = second.sum(-3, keepdim=True), scatter.nan_to_num().sum(-3, keepdim=True)
    elif covariance == "isotropic":
        second, scatter = second.sum(-1, keepdim=True), scatter.sum(-1, keepdim=True)
    sound = _sound(scatter, second, covariance)
    if covariance == "isotropic":
        scatter = scatter.squeeze(-1)
    return Shared(Statistics(counts, about + shift, scatter), log_norm), sound


def _inverse(root: Tensor, loc: Tensor, covariance: Covariance) -> Tensor:
    """S⁻¹ of `Components`: (..., k, d, d), tied (..., 1, d, d), diagonal (..., k, d), isotropic (..., k, 1)."""
    if covariance in ("full", "tied"):
        return torch.linalg.solve_triangular(root, _eye(loc.shape[-1], loc.device), upper=False)
    return (root if covariance == "diagonal" else root.unsqueeze(-1)).reciprocal()


def _sound(scatter: Tensor, total: Tensor, covariance: Covariance) -> bool:
    """Whether no variance is so small a difference of second moments that few digits are left of it."""
    if covariance in ("full", "tied"):
        scatter, total = scatter.diagonal(dim1=-2, dim2=-1), total.diagonal(dim1=-2, dim2=-1)
    return not bool((scatter < _SHRUNK * total).any())


def _blocks(x: Tensor, covariance: Covariance, frame: Frame) -> Iterable[Tensor]:
    """Features of all rows, chunk by chunk; of few rows, worked out once for a tensor."""
    size = rows_at_once(_num_features(len(frame.centre), covariance))
    if len(x) <= size:
        return [_remembered_features(x, x._version, covariance)]
    return _stream(x, covariance, frame, size)


@functools.lru_cache(maxsize=4)
def _remembered_features(x: Tensor, version: int, covariance: Covariance) -> Tensor:
    frame = frame_of(x, covariance)
    return _features(_coordinates(x, covariance, frame), covariance)


def _stream(x: Tensor, covariance: Covariance, frame: Frame, size: int) -> Iterator[Tensor]:
    buffer = frame.centre.new_empty(_num_features(len(frame.centre), covariance), size)
    for part in x.split(size):
        found = buffer[:, : len(part)]
        _features(_coordinates(part, covariance, frame), covariance, found)
        yield found


def _coordinates(x: Tensor, covariance: Covariance, frame: Frame) -> Tensor:
    """Coordinates of rows x, as columns."""
    gap = (x.double() - frame.centre).mT
    return frame.inverse @ gap if covariance in ("full", "tied") else gap


def _features(z: Tensor, covariance: Covariance, out: Tensor | None = None) -> Tensor:
    """φ of columns z, (d, b): z itself; if full all products, if diagonal the squares, if isotropic their sum."""
    dim = len(z)
    if out is None:
        out = z.new_empty(_num_features(dim, covariance), z.shape[1])
    out[:dim] = z
    if covariance == "full":
        start = dim
        for i in range(dim):
            torch.mul(z[i], z[i:], out=out[start : start + dim - i])
            start += dim - i
    elif covariance == "diagonal":
        torch.mul(z, z, out=out[dim:])
    elif covariance == "isotropic":
        torch.sum(z.square(), 0, keepdim=True, out=out[dim:])
    return out


def _num_features(dim: int, covariance: Covariance) -> int:
    return dim + {"full": dim * (dim + 1) // 2, "tied": 0, "diagonal": dim, "isotropic": 1}[covariance]


class _Pairs(NamedTuple):
    """Products of two columns: which entry of a matrix each is, its factor there, and which product each entry is."""

    entry: Tensor
    factor: Tensor
    place: Tensor


@functools.lru_cache(maxsize=8)
def _pairs(dim: int, device: torch.device) -> _Pairs:
    row, column = torch.triu_indices(dim, dim, device=device)
    place = torch.empty(dim, dim, dtype=torch.long, device=device)
    place[row, column] = place[column, row] = torch.arange(len(row), device=device)
    factor = torch.where(row == column, -0.5, -1.0).double()
    return _Pairs(row * dim + column, factor, place.flatten())


@functools.lru_cache(maxsize=8)
def _eye(dim: int, device: torch.device) -> Tensor:
    return torch.eye(dim, dtype=torch.float64, device=device)
