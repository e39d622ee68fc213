"""The E-step of EM and of coordinate ascent for normal components: responsibilities, and sums weighted by them.

Two ways give the same numbers. Matrix products (`models._shared.responsibilities`) expand the quadratic form about
the data's centre: at least twice as fast, but inaccurate if the data spread far in units of a component. Then the
distances of all rows from each component's own mean are computed.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._shared.blocks import Blocks, is_blocks
from .._shared.inputs import check_shape, rows_of
from .._shared.responsibilities import chunk_size, chunks, moments, normalise_, weighted_sums
from .._shared.row_weights import checked_weights
from .conjugate import Statistics
from .covariance import Form, form_of
from .missing import Gaps, gaps_of
from .prior import Prior, check, default_prior

_MAX_ROUNDING = 1e-10  # nats of rounding error allowed in a log density
_MIN_SHARE = 1e-5  # a variance below this share of the second moment has lost too many digits as a difference
_MAX_COLUMNS = 160  # beyond, products of pairs of columns take too much memory
_COLUMNS_PER_COMPONENT = 5  # with more, products of pairs of columns take longer to compute than they save


class Components(NamedTuple):
    """Log joint densities c[k] - ½ ‖S[k]⁻¹ (x - m[k])‖² of rows and components.

    Attributes
    ----------
    constant : Tensor, shape (..., k)
        c, in nats.
    loc : Tensor, shape (..., k, d)
        m.
    inverse : Tensor
        S⁻¹: lower triangular (..., k, d, d), tied (..., 1, d, d), diagonal (..., k, d), isotropic (..., k, 1).
    """

    constant: Tensor
    loc: Tensor
    inverse: Tensor


class Whitening(NamedTuple):
    """Coordinates z = S⁻¹ (x - centre) of the data.

    Attributes
    ----------
    centre : Tensor, shape (d,)
        Mean of the rows.
    covariance : Tensor, shape (d, d)
        Of the rows, with 1/n.
    root : Tensor, shape (d, d), diagonal (d,), isotropic (1,)
        S: that of the covariance, as a component has it.
    inverse : Tensor
        S⁻¹.
    max_abs : Tensor, shape (f,)
        A bound on the absolute value of each feature: of the coordinates, then of their products.
    """

    centre: Tensor
    covariance: Tensor
    root: Tensor
    inverse: Tensor
    max_abs: Tensor


class Rows(NamedTuple):
    """Data, and all that they alone determine.

    Attributes
    ----------
    x : Tensor, shape (n, d)
        Any floating-point type; or blocks of them.
    prior : Prior
        The default one, in float64.
    whitening : Whitening
    features : Tensor, shape (f, n), or None
        φ of all rows if they fit one chunk.
    row_weights : Tensor, shape (n,), or None
        How many times each row counts; None for once.
    gaps : Gaps or None
        The rows with their missing values, in place of which ``x`` has the means of columns.
    """

    x: Any  # Tensor or Blocks
    prior: Prior
    whitening: Whitening
    features: Tensor | None
    row_weights: Tensor | None = None
    gaps: Gaps | None = None

    @property
    def total(self) -> float:
        """How many rows there are, each as many times as it counts."""
        return float(len(self.x) if self.row_weights is None else self.row_weights.sum())

    @property
    def num_positive(self) -> int:
        """How many rows there are that count."""
        return len(self.x) if self.row_weights is None else int((self.row_weights > 0).sum())


def prepare(
    x: Any,
    num_components: int,
    covariance: str,
    row_weights: Tensor | None = None,
    *,
    missing: bool = False,
) -> Rows:
    """Return data with what they alone determine; unchanged if it is there already. ``missing`` says what NaN are.

    ``x`` is a tensor, `Blocks`, or the result.

    Raises
    ------
    ValueError
        For an unknown covariance, more components than rows, data that are not finite or have no `default_prior`, or
        weights that are none.
    """
    if isinstance(x, Rows):
        return x
    gaps = None
    if missing:
        if is_blocks(x):
            raise ValueError("gmm: missing values need all rows in memory, and these come in blocks")
        check_shape("gmm", x)
        if x.isnan().any():
            if (column := x.isnan().all(0).nonzero()).numel():
                raise ValueError(f"gmm: column {int(column[0])} has no value")
            gaps = gaps_of(x)
            x = torch.where(x.isnan(), x.nanmean(0), x)
    x = rows_of("gmm", x)
    form, row_weights = form_of(covariance), checked_weights("gmm", row_weights, len(x))
    check(num_components, len(x) if row_weights is None else int((row_weights > 0).sum()))
    prior = default_prior(x, num_components, torch.float64, row_weights)
    centre, matrix = moments(x, row_weights)
    root = form.root(form.project(matrix))
    inverse = form.inverse(root)
    furthest = torch.zeros_like(centre)
    for part in chunks(x, len(centre)):
        furthest = torch.maximum(furthest, form.times(inverse, (part - centre).mT).abs().amax(-1))
    max_abs = torch.cat([furthest.unsqueeze(-1), _products(furthest.unsqueeze(-1), form)]).squeeze(-1)
    rows = Rows(x, prior, Whitening(centre, matrix, root, inverse, max_abs), None, row_weights, gaps)
    return rows._replace(features=next(_features(rows, form))) if len(x) <= _chunk_size(rows, form) else rows


def expect(components: Components, rows: Rows, form: Form) -> tuple[Statistics, Tensor]:
    """Return expected statistics under the responsibilities, and Σ_n log Σ_k of the joint densities, in nats (...)."""
    many, columns = components.constant.numel(), rows.x.shape[1]
    if form.tied or not form.matrices or columns <= min(_MAX_COLUMNS, _COLUMNS_PER_COMPONENT * many):
        found, accurate = _by_products(components, rows, form)
        if found is not None and accurate.all():
            return found
        if found is not None and accurate.any():  # of a batch, one that degenerates does not hold up the others
            places = (~accurate).nonzero(as_tuple=True)
            (statistics, log_norm), others = found, Components(*(value[places] for value in components))
            exact, exact_norm = _by_either_distance(others, rows, form)
            mended = [value.index_put(places, new) for value, new in zip(statistics, exact, strict=True)]
            return Statistics(*mended), log_norm.index_put(places, exact_norm)
    return _by_either_distance(components, rows, form)


def _by_either_distance(components: Components, rows: Rows, form: Form) -> tuple[Statistics, Tensor]:
    """Statistics about the components' means, or where that costs digits about the new ones, in a second pass."""
    found, accurate = by_distances(components, rows.x, form, components.loc, rows.row_weights)
    if not accurate:
        mean = found[0].mean
        about = torch.where(mean.isfinite(), mean, components.loc)
        found, _ = by_distances(components, rows.x, form, about, rows.row_weights)
    return found


def expected_log_joint(components: Components, given: Statistics, form: Form) -> Tensor:
    """Σ_nk r[n, k] log p(x[n], k), shape (...), for responsibilities that have these statistics."""
    gap = given.mean.nan_to_num() - components.loc
    density = components.constant - 0.5 * squared_distance(components.inverse, gap, form)
    return (given.counts * density).sum(-1) - 0.5 * form.traces(components.inverse, given.scatter).sum(-1)


def squared_distance(inverse: Tensor, gap: Tensor, form: Form) -> Tensor:
    """‖S⁻¹ gap‖², shape (..., k), for gaps (..., k, d)."""
    return form.times(inverse, gap.unsqueeze(-1)).square().sum((-1, -2))


def _by_products(components: Components, rows: Rows, form: Form) -> tuple[tuple[Statistics, Tensor] | None, Tensor]:
    """Two matrix products per chunk, or None; and for which of a batch, (...), rounding does not cost too much."""
    whitening, dim = rows.whitening, rows.x.shape[1]
    root = whitening.root
    middle = form.times(whitening.inverse, (components.loc - whitening.centre).mT).mT
    if form.matrices:
        inverse = components.inverse @ root
        precision, pairs = inverse.mT @ inverse, _pairs(dim, root.device)
        linear = (precision @ middle.unsqueeze(-1)).squeeze(-1)
        quadratic = precision.flatten(-2).index_select(-1, pairs.entry) * pairs.factor
    else:
        precision = (components.inverse * root).square()
        linear, quadratic = precision * middle, -0.5 * precision
    constant = components.constant - 0.5 * (linear * middle).sum(-1)
    theta = torch.cat([linear, quadratic.expand(*constant.shape, -1)], -1)
    rounding = (theta.abs() @ whitening.max_abs).amax(-1) * torch.finfo(theta.dtype).eps
    accurate = rounding < _MAX_ROUNDING
    if not accurate.any():
        return None, accurate

    blocks = _features(rows, form) if rows.features is None else [rows.features]
    log_norm, counts, sums = weighted_sums(constant, linear if form.tied else theta, blocks, rows.row_weights)
    mean, second = sums[..., :dim] / counts.unsqueeze(-1), sums[..., dim:]
    scatter = -form.scatter(counts.unsqueeze(-1), mean.nan_to_num().unsqueeze(-1))
    if form.tied:  # Σ z zᵀ = n I, whatever the responsibilities
        log_norm = log_norm - 0.5 * rows.total * precision.diagonal(dim1=-2, dim2=-1).sum((-1, -2))
        total = rows.total * torch.eye(dim, dtype=theta.dtype, device=theta.device)
    else:
        second = second.index_select(-1, _pairs(dim, root.device).place) if form.matrices else second
        total = second.reshape(scatter.shape)
    scatter = total + scatter
    accurate = accurate & _accurate(scatter, total, form).reshape(*accurate.shape, -1).all(-1)
    scatter = root @ scatter @ root.mT if form.matrices else root.square() * scatter
    return (Statistics(counts, whitening.centre + form.times(root, mean.mT).mT, scatter), log_norm), accurate


def by_distances(
    components: Components, x: Tensor | Blocks, form: Form, about: Tensor, row_weights: Tensor | None = None
) -> tuple[tuple[Statistics, Tensor], bool]:
    """Distances from each component's mean, sums about points ``about``; and whether the scatter is accurate."""
    constant, loc, inverse = components
    counts, log_norm = torch.zeros_like(constant), constant.new_zeros(constant.shape[:-1])
    first, second = torch.zeros_like(loc), loc.new_zeros(())
    size = max(128, chunk_size(16 * loc.numel()))
    for start, part in zip(range(0, len(x), size), x.split(size), strict=True):
        rows = part.double().mT
        gap = rows - loc.unsqueeze(-1)  # (..., k, d, b)
        r = constant.unsqueeze(-1) - 0.5 * form.times(inverse, gap).square_().sum(-2)
        log_density = normalise_(r)
        if row_weights is not None:
            times = row_weights[start : start + size]
            log_density, r = log_density * times, r * times
        log_norm += log_density.sum(-1)
        counts += r.sum(-1)
        gap = gap if about is loc else rows - about.unsqueeze(-1)
        first += (gap @ r.unsqueeze(-1)).squeeze(-1)
        second = second + form.scatter(r, gap)
    shift = first / counts.unsqueeze(-1)
    scatter = second - form.scatter(counts.unsqueeze(-1), shift.nan_to_num().unsqueeze(-1))
    return (Statistics(counts, about + shift, scatter), log_norm), bool(_accurate(scatter, second, form).all())


def _accurate(scatter: Tensor, total: Tensor, form: Form) -> Tensor:
    """Whether each variance kept enough digits when it was computed as a difference of second moments."""
    if form.matrices:
        scatter, total = scatter.diagonal(dim1=-2, dim2=-1), total.diagonal(dim1=-2, dim2=-1)
    return ~(scatter < _MIN_SHARE * total)


def _chunk_size(rows: Rows, form: Form) -> int:
    """Rows in a chunk of φ: of the columns and, unless all components have their coefficients in common, products."""
    dim = rows.x.shape[1]
    return chunk_size(dim if form.tied else len(rows.whitening.max_abs))


def _features(rows: Rows, form: Form) -> Iterator[Tensor]:
    """Yield φ of all rows as columns, chunk by chunk; each chunk overwrites the last."""
    whitening, (num_rows, dim) = rows.whitening, rows.x.shape
    size = _chunk_size(rows, form)
    buffer = whitening.centre.new_empty(dim if form.tied else len(whitening.max_abs), min(size, num_rows))
    for part in rows.x.split(size):
        out = buffer[:, : len(part)]
        out[:dim] = form.times(whitening.inverse, (part.double() - whitening.centre).mT)
        if not form.tied:
            _products(out[:dim], form, out[dim:])
        yield out


def _products(z: Tensor, form: Form, out: Tensor | None = None) -> Tensor:
    """Products of columns z, (d, n), that have coefficients: of all pairs, squares, or (isotropic) their sum."""
    if not form.matrices:
        return torch.sum(z.square(), 0, keepdim=True, out=out) if form.shared else torch.mul(z, z, out=out)
    start, dim = 0, len(z)
    out = z.new_empty(dim * (dim + 1) // 2, z.shape[1]) if out is None else out
    for i in range(dim):
        torch.mul(z[i], z[i:], out=out[start : start + dim - i])
        start += dim - i
    return out


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
