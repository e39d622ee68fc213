"""ATen operations as functions of JAX arrays: the one place where the two meet, one line per operation.

A function takes the arguments of the operation, except those that say where a result is stored (device, layout and so
on); its result is cast to the dtype of torch's result. A name without overload stands for the overloads in
`translate.SHARED`. Operations that draw random numbers, or whose result's shape depends on values, do not belong here.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy import linalg, special

Axes = int | Sequence[int] | None


def _axes(dims: Axes) -> Any:
    """Return torch's dimensions to reduce over as JAX's; none means all."""
    return None if dims is None or dims == [] else dims if isinstance(dims, int) else tuple(dims)


def _scaled(combine: Callable) -> Callable:
    return lambda a, b, alpha=1: combine(a, b if alpha == 1 else alpha * b)


def _reduced(reduce: Callable) -> Callable:
    return lambda a, dims=None, keepdim=False, **dtype: reduce(a, _axes(dims), keepdims=keepdim, **dtype)


def _divide(a: Any, b: Any, *, rounding_mode: str | None = None) -> Array:
    quotient = jnp.divide(a, b)
    return quotient if rounding_mode is None else getattr(jnp, rounding_mode)(quotient)


def _power(a: Any, exponent: Any) -> Array:
    whole = isinstance(exponent, float) and exponent.is_integer()
    return jnp.power(a, int(exponent) if whole else exponent)  # by multiplication


def _elu(a: Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Array:
    return scale * jnp.where(a > 0, a, alpha * jnp.expm1(jnp.minimum(a, 0) * input_scale))


def _bce_with_logits(a: Array, target: Any, weight: Any = None, pos_weight: Any = None, reduction: int = 1) -> Array:
    if pos_weight is None:
        loss = jax.nn.softplus(a) - target * a
    else:
        loss = (1 - target) * a + (1 + (pos_weight - 1) * target) * jax.nn.softplus(-a)
    loss = loss if weight is None else weight * loss
    return (loss, jnp.mean(loss), jnp.sum(loss))[reduction]


def _x_log_y(a: Any, b: Any) -> Array:
    zero = jnp.equal(a, 0) & jnp.less_equal(b, 0)  # torch's gradient is zero here, too
    return jnp.where(zero, 0, a * jnp.log(jnp.where(zero, 1, b)))


def _variance(a: Array, dims: Axes = None, *, correction: float | None = 1, keepdim: bool = False) -> Array:
    ddof: Any = 1 if correction is None else correction
    return jnp.var(a, _axes(dims), ddof=ddof, keepdims=keepdim)


def _layer_norm(a: Array, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> tuple[Array, Array, Array]:
    axes = tuple(range(a.ndim - len(shape), a.ndim))
    mean = jnp.mean(a, axes, keepdims=True)
    scale = lax.rsqrt(jnp.var(a, axes, keepdims=True) + eps)
    out = (a - mean) * scale
    out = out if weight is None else out * weight
    return out if bias is None else out + bias, mean, scale


def _distances(a: Array, b: Array, order: float, mode: int | None = None) -> Array:
    gap = a[..., :, None, :] - b[..., None, :, :]
    if order != 2:
        return _norm(gap, order, -1)
    square = jnp.sum(gap * gap, -1)
    apart = square > 0  # torch's gradient is zero elsewhere
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


def _windows(a: Array, dim: int, size: int, step: int) -> Array:
    starts = jnp.arange(0, a.shape[dim] - size + 1, step)
    return jnp.moveaxis(jnp.take(a, starts[:, None] + jnp.arange(size), dim), dim % a.ndim + 1, -1)


def _norm(a: Array, order: float = 2, dims: Axes = None, keepdim: bool = False, **_: Any) -> Array:
    if order == math.inf or order == -math.inf:
        return (jnp.max if order > 0 else jnp.min)(jnp.abs(a), _axes(dims), keepdims=keepdim)
    if order == 2:
        return jnp.sqrt(jnp.sum(a * a, _axes(dims), keepdims=keepdim))
    return jnp.sum(jnp.abs(a) ** order, _axes(dims), keepdims=keepdim) ** (1 / order)


def _extreme(index_of: Callable) -> Callable:
    def run(a: Array, dim: int, keepdim: bool = False) -> tuple[Array, Array]:
        index = index_of(a, dim, keepdims=True)
        value = jnp.take_along_axis(a, index, dim)
        return (value, index) if keepdim else (jnp.squeeze(value, dim), jnp.squeeze(index, dim))

    return run


def _cumulative(scan: Callable) -> Callable:
    return lambda a, dim, dtype=None: scan(a, dim, dtype=dtype) if a.ndim else a


def _sort(a: Array, dim: int = -1, descending: bool = False) -> tuple[Array, Array]:
    order = jnp.argsort(a, dim, stable=True, descending=descending)
    return jnp.take_along_axis(a, order, dim), order


def _top(a: Array, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Array, Array]:
    return tuple(lax.slice_in_dim(part, 0, k, axis=dim) for part in _sort(a, dim, largest))  # pyright: ignore[reportReturnType]


def _expand(a: Array, size: Sequence[int], implicit: bool = False) -> Array:
    shape = (1,) * (len(size) - a.ndim) + a.shape
    return jnp.broadcast_to(a, [old if new == -1 else new for old, new in zip(shape, size, strict=True)])


def _squeeze(a: Array, dims: Axes = None) -> Array:
    dims = range(a.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    return jnp.squeeze(a, tuple(dim for dim in dims if a.ndim and a.shape[dim] == 1))


def _window(a: Array, dim: int, part: Any) -> tuple:
    return (slice(None),) * (dim % a.ndim) + (part,)


def _split(a: Array, size: int | Sequence[int], dim: int = 0) -> list[Array]:
    length = a.shape[dim]
    sizes = [min(size, length - at) for at in range(0, length, size)] if isinstance(size, int) else size
    ends = [sum(sizes[: part + 1]) for part in range(len(sizes))]
    return [lax.slice_in_dim(a, end - size, end, axis=dim) for size, end in zip(sizes, ends, strict=True)]


def _places(size: int, offset: int) -> tuple[Array, Array]:
    at = jnp.arange(size)
    return at + max(-offset, 0), at + max(offset, 0)


def _diagonal_embedded(a: Array, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Array:
    side = a.shape[-1] + abs(offset)
    row, column = _places(a.shape[-1], offset)
    matrix = jnp.zeros((*a.shape[:-1], side, side), a.dtype).at[..., row, column].set(a)
    return jnp.moveaxis(matrix, (-2, -1), (dim1, dim2))


def _diagonal_replaced(a: Array, part: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    front = jnp.moveaxis(a, (dim1, dim2), (-2, -1))
    row, column = _places(part.shape[-1], offset)
    return jnp.moveaxis(front.at[..., row, column].set(part), (-2, -1), (dim1, dim2))


def _padded(a: Array, pad: Sequence[int], value: float = 0) -> Array:
    pairs = list(zip(pad[::2], pad[1::2], strict=True))[::-1]  # torch counts from the last dimension
    widths = [(0, 0, 0)] * (a.ndim - len(pairs)) + [(low, high, 0) for low, high in pairs]
    return lax.pad(a, jnp.asarray(value, a.dtype), widths)


def _at(indices: Sequence[Array | None]) -> tuple:
    return tuple(slice(None) if index is None else index for index in indices)


def _put(a: Array, indices: Sequence[Array | None], values: Array, accumulate: bool = False) -> Array:
    mask = indices[0]
    if len(indices) == 1 and mask is not None and mask.dtype == bool and jnp.size(values) == 1:  # its size is unknown
        chosen = jnp.reshape(mask, mask.shape + (1,) * (a.ndim - mask.ndim))
        return jnp.where(chosen, values + a if accumulate else values, a)
    place = a.at[_at(indices)]
    return place.add(values) if accumulate else place.set(values)


def _along(a: Array, dim: int, index: Array) -> tuple[Array, ...]:
    """Return the indices of elements ``index`` along ``dim``, at their own positions along every other dimension."""
    grid = [lax.broadcasted_iota(index.dtype, index.shape, axis) for axis in range(index.ndim)]
    grid[dim % a.ndim] = index
    return tuple(grid)


def _scatter(a: Array, dim: int, index: Array, values: Any) -> Array:
    place = _along(a, dim, index)
    return a.at[place].set(values[tuple(map(slice, index.shape))] if jnp.ndim(values) else values)


def _scatter_add(a: Array, dim: int, index: Array, values: Array) -> Array:
    return a.at[_along(a, dim, index)].add(values[tuple(map(slice, index.shape))])


def _product_plus(a: Array, left: Array, right: Array, *, beta: float = 1, alpha: float = 1) -> Array:
    product = jnp.matmul(left, right)
    return (a if beta == 1 else beta * a) + (product if alpha == 1 else alpha * product)


def _cholesky(a: Array, *, upper: bool = False, check_errors: bool = False) -> tuple[Array, Array]:
    root = jnp.linalg.cholesky(a, upper=upper)
    return root, jnp.zeros(a.shape[:-2], jnp.int32)  # a failure shows as nan


def _solve_triangular(a: Array, b: Array, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Array:
    lead = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (jnp.broadcast_to(part, lead + part.shape[-2:]) for part in (a, b))
    return lax.linalg.triangular_solve(a, b, left_side=left, lower=not upper, unit_diagonal=unitriangular)


def _triangular_solve(
    b: Array, a: Array, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Array, Array]:
    a = jnp.swapaxes(a, -2, -1) if transpose else a
    return _solve_triangular(a, b, upper=upper != transpose, unitriangular=unitriangular), a


def _cholesky_solve(b: Array, root: Array, upper: bool = False) -> Array:
    adjoint = jnp.swapaxes(root, -2, -1)
    lower, higher = (adjoint, root) if upper else (root, adjoint)
    return _solve_triangular(higher, _solve_triangular(lower, b, upper=False), upper=True)


def _solve(a: Array, b: Array, *, left: bool = True, check_errors: bool = False) -> tuple[Array, None, None, Array]:
    is_vector = b.ndim == a.ndim - 1 and b.shape == a.shape[:-1]
    columns = b[..., None] if is_vector else b
    if left:
        solved = jnp.linalg.solve(a, columns)
    else:
        solved = jnp.swapaxes(jnp.linalg.solve(jnp.swapaxes(a, -2, -1), jnp.swapaxes(columns, -2, -1)), -2, -1)
    return solved[..., 0] if is_vector else solved, None, None, jnp.zeros(a.shape[:-2], jnp.int32)


def _convolution(
    a: Array,
    weight: Array,
    bias: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Array:
    spatial = range(2, weight.ndim)
    reach = [(weight.shape[axis] - 1) * step for axis, step in zip(spatial, dilation, strict=True)]
    options: dict[str, Any] = {"rhs_dilation": dilation, "feature_group_count": groups}
    if transposed:  # the gradient of a convolution: flipped kernel, dilated input
        fan_in, fan_out = weight.shape[0] // groups, weight.shape[1]
        weight = jnp.flip(weight, tuple(spatial)).reshape(groups, fan_in, fan_out, *weight.shape[2:])
        weight = jnp.swapaxes(weight, 1, 2).reshape(groups * fan_out, fan_in, *weight.shape[3:])
        pads = [(r - p, r - p + more) for r, p, more in zip(reach, padding, output_padding, strict=True)]
        out = lax.conv_general_dilated(a, weight, [1] * len(pads), pads, lhs_dilation=stride, **options)
    else:
        out = lax.conv_general_dilated(a, weight, stride, [(p, p) for p in padding], **options)
    return out if bias is None else out + bias.reshape(-1, *(1 for _ in spatial))


# Operations of the same name and arguments in jax.numpy, in jax.scipy.special (also as special_…) and in jax.nn.
_IN_NUMPY = """
abs acos acosh asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or ceil cos cosh dot exp exp2 expm1 floor
floor_divide fmod full_like hypot isinf isnan log log10 log1p log2 logaddexp logical_and logical_not logical_or max
maximum min minimum ones_like reciprocal remainder round sign sin sinh sqrt stack tan tanh tril triu trunc zeros_like
"""
_IN_SPECIAL = "digamma erf erfc erfinv i0 polygamma"
_IN_SPECIAL_AS_THERE = "entr i0e log_ndtr ndtri xlog1py zeta"
_IN_NN = "relu sigmoid silu"

TABLE: dict[str, Callable] = {
    **{name: getattr(jnp, name) for name in _IN_NUMPY.split()},
    **{name: getattr(special, name) for name in _IN_SPECIAL.split()},
    **{f"special_{name}": getattr(special, name) for name in _IN_SPECIAL_AS_THERE.split()},
    **{name: getattr(jax.nn, name) for name in _IN_NN.split()},
    **dict.fromkeys(("addmm", "addmv", "baddbmm"), _product_plus),
    **dict.fromkeys(("bmm", "mm", "mv"), jnp.matmul),
    # one argument
    "elu": _elu,
    "frac": lambda a: a - jnp.trunc(a),
    "gelu": lambda a, approximate="none": jax.nn.gelu(a, approximate == "tanh"),
    "hardtanh": lambda a, low=-1, high=1: jnp.clip(a, low, high),
    "leaky_relu": lambda a, slope=0.01: jnp.where(a > 0, a, slope * a),
    "lgamma": special.gammaln,
    "log_sigmoid_forward": lambda a: (-jax.nn.softplus(-a), jnp.zeros(0, a.dtype)),
    "logit": lambda a, eps=None: special.logit(a if eps is None else jnp.clip(a, eps, 1 - eps)),
    "nan_to_num": lambda a, nan=None, posinf=None, neginf=None: jnp.nan_to_num(a, True, nan or 0.0, posinf, neginf),
    "neg": jnp.negative,
    "rsqrt": lax.rsqrt,
    "sgn": jnp.sign,
    "softplus": lambda a, beta=1, threshold=20: jnp.where(a * beta > threshold, a, jax.nn.softplus(a * beta) / beta),
    # two or three
    "add": _scaled(jnp.add),
    "addcdiv": lambda a, over, under, value=1: a + value * over / under,
    "addcmul": lambda a, left, right, value=1: a + value * left * right,
    "binary_cross_entropy_with_logits": _bce_with_logits,
    "clamp": jnp.clip,
    "clamp_max": jnp.minimum,
    "clamp_min": jnp.maximum,
    "div": _divide,
    "eq": jnp.equal,
    "ge": jnp.greater_equal,
    "gt": jnp.greater,
    "igamma": special.gammainc,
    "igammac": special.gammaincc,
    "le": jnp.less_equal,
    "lerp": lambda a, b, weight: a + weight * (b - a),
    "lt": jnp.less,
    "masked_fill": lambda a, mask, value: jnp.where(mask, value, a),
    "mul": jnp.multiply,
    "ne": jnp.not_equal,
    "pow": _power,
    "rsub": lambda a, b, alpha=1: b - alpha * a,
    "sub": _scaled(jnp.subtract),
    "where.self": jnp.where,
    "xlogy": _x_log_y,
    # reductions and scans
    "_cdist_forward": _distances,
    "_log_softmax": lambda a, dim, half_to_float=False: jax.nn.log_softmax(a, dim),
    "_softmax": lambda a, dim, half_to_float=False: jax.nn.softmax(a, dim),
    "all": _reduced(jnp.all),
    "amax": _reduced(jnp.max),
    "amin": _reduced(jnp.min),
    "any": _reduced(jnp.any),
    "cumprod": _cumulative(jnp.cumprod),
    "cumsum": _cumulative(jnp.cumsum),
    "linalg_vector_norm": _norm,
    "logcumsumexp": lambda a, dim: lax.cumlogsumexp(a, dim % a.ndim) if a.ndim else a,
    "logsumexp": _reduced(special.logsumexp),
    "max.dim": _extreme(jnp.argmax),
    "mean": _reduced(jnp.mean),
    "min.dim": _extreme(jnp.argmin),
    "native_layer_norm": _layer_norm,
    "prod": _reduced(jnp.prod),
    "sort": _sort,
    "std.correction": lambda *args, **options: jnp.sqrt(_variance(*args, **options)),
    "sum": _reduced(jnp.sum),
    "topk": _top,
    "var.correction": _variance,
    "var_mean.correction": lambda a, dims=None, *, correction=1, keepdim=False: (
        _variance(a, dims, correction=correction, keepdim=keepdim),
        jnp.mean(a, _axes(dims), keepdims=keepdim),
    ),
    # shapes and places
    "_to_copy": lambda a, dtype=None: a,  # every result is cast to its dtype
    "_unsafe_view": jnp.reshape,
    "alias": lambda a: a,
    "cat": lambda parts, dim=0: jnp.concatenate([part for part in parts if part.shape != (0,)], dim),  # as in torch
    "clone": lambda a: a,
    "constant_pad_nd": _padded,
    "copy": lambda a, b: jnp.broadcast_to(b, a.shape),
    "detach": lax.stop_gradient,
    "diag_embed": _diagonal_embedded,
    "diagonal": jnp.diagonal,
    "diagonal_scatter": _diagonal_replaced,
    "embedding": lambda weight, index, *_: weight[index],
    "expand": _expand,
    "flip": lambda a, dims: jnp.flip(a, tuple(dims)),
    "gather": lambda a, dim, index, sparse_grad=False: a[_along(a, dim, index)] if a.ndim else a,
    "index": lambda a, indices: a[_at(indices)],
    "index_add": lambda a, dim, index, source, *, alpha=1: a.at[_window(a, dim, index)].add(alpha * source),
    "index_put": _put,
    "index_select": lambda a, dim, index: jnp.take(a, index, dim),
    "permute": lambda a, dims: jnp.transpose(a, tuple(dims)),
    "repeat": jnp.tile,
    "roll": lambda a, shifts, dims=(): jnp.roll(a, tuple(shifts), tuple(dims)) if dims else jnp.roll(a, shifts[0]),
    "scatter.src": _scatter,
    "scatter.value": _scatter,
    "scatter_add": _scatter_add,
    "select.int": lambda a, dim, index: a[_window(a, dim, index)],
    "select_scatter": lambda a, part, dim, index: a.at[_window(a, dim, index)].set(part),
    "slice": lambda a, dim=0, start=None, end=None, step=1: a[_window(a, dim, slice(start, end, step))],
    "slice_scatter": lambda a, part, dim=0, start=None, end=None, step=1: a.at[
        _window(a, dim, slice(start, end, step))
    ].set(part),
    "split": _split,
    "split_with_sizes": _split,
    "squeeze": _squeeze,
    "t": jnp.transpose,
    "transpose.int": jnp.swapaxes,
    "unbind.int": lambda a, dim=0: [jnp.take(a, index, dim) for index in range(a.shape[dim])],
    "unfold": _windows,
    "unsqueeze": jnp.expand_dims,
    "view": jnp.reshape,
    # new tensors, of which only those shaped like another reach the table: the rest are constants
    "empty_like": jnp.zeros_like,
    "fill": jnp.full_like,
    "new_empty": lambda a, size, dtype=None: jnp.zeros(size, dtype or a.dtype),
    "new_full": lambda a, size, value, dtype=None: jnp.full(size, value, dtype or a.dtype),
    "new_ones": lambda a, size, dtype=None: jnp.ones(size, dtype or a.dtype),
    "new_zeros": lambda a, size, dtype=None: jnp.zeros(size, dtype or a.dtype),
    # linear algebra
    "_linalg_check_errors": lambda *_, **__: None,
    "_linalg_det": lambda a: (jnp.linalg.det(a), None, None),
    "_linalg_eigh": lambda a, lower="L", compute_v=True: tuple(jnp.linalg.eigh(a, lower, symmetrize_input=False)),
    "_linalg_slogdet": lambda a: (*jnp.linalg.slogdet(a), None, None),
    "_linalg_solve_ex": _solve,
    "cholesky": lambda a, upper=False: _cholesky(a, upper=upper)[0],
    "cholesky_inverse": lambda root, upper=False: _cholesky_solve(
        jnp.eye(root.shape[-1], dtype=root.dtype), root, upper
    ),
    "cholesky_solve": _cholesky_solve,
    "linalg_cholesky_ex": _cholesky,
    "linalg_cross": lambda a, b, *, dim=-1: jnp.cross(a, b, axis=dim),
    "linalg_inv_ex": lambda a, *, check_errors=False: (jnp.linalg.inv(a), jnp.zeros(a.shape[:-2], jnp.int32)),
    "linalg_matrix_exp": linalg.expm,
    "linalg_solve_triangular": _solve_triangular,
    "triangular_solve": _triangular_solve,
    # networks
    "convolution": _convolution,
}
