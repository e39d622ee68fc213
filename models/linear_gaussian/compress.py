"""Few rows with the same squares and products as all rows about their mean: their triangular factor, R with RᵀR = XᵀX.

A sum of products over the rows, and its Cholesky factor, are quick to compute; a QR decomposition of the rows takes
several times as long, and loses no digits where columns are nearly dependent (Higham 2002, Accuracy and Stability of
Numerical Algorithms, section 20.4).
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.blocks import Blocks, held
from .._shared.cache import is_transformed

ERROR = 1e-8  # relative, of the variance in any direction, up to which sums of products are taken


def compress(
    x: Float[Tensor, "n d"] | Blocks, row_weights: Float[Tensor, " n"] | None = None
) -> tuple[Float[Tensor, " d"], Float[Tensor, "r d"]]:
    """Return the mean row, and at most d rows with the same squares and products as the rows about their mean.

    ``row_weights`` say how many times each row counts; default: once. All is in float64, whatever the dtype of ``x``,
    and computed chunk by chunk: `Blocks` are read once, again if their first rows lie apart from the others, and again
    if their columns are nearly dependent. Of d rows or fewer the mean is only taken off.
    """
    if row_weights is not None and not isinstance(x, Tensor):
        raise ValueError("em: weights of rows need all rows in memory, and these come in blocks")
    if len(x) <= x.shape[1]:
        rows = held(x).double()
        if row_weights is None:
            mean = rows.mean(0)
            return mean, rows - mean
        mean = row_weights @ rows / row_weights.sum()
        return mean, row_weights.sqrt()[:, None] * (rows - mean)
    mean, products = _moments(x, row_weights)
    factor = _cholesky(products)
    return mean, _qr(x, mean, row_weights) if factor is None else factor


def _moments(x: Tensor | Blocks, row_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the mean row, and the sum of squares and products about it.

    One pass takes them about the mean of the first rows, and a second one about what it found, if half of a column's
    sum of squares is due to the distance of the two.
    """
    centre = next(iter(x.split(_rows_together(x)))).double().mean(0)
    for last in (False, True):
        total = torch.zeros(len(centre) + 1, len(centre) + 1, dtype=torch.float64, device=centre.device)
        for rows in _bordered(x, centre, row_weights, _rows_together(x)):
            total += _products(rows)
        moved = total[-1, :-1] / total[-1, -1]
        products = total[:-1, :-1] - total[-1, -1] * torch.outer(moved, moved)
        centre = centre + moved
        if last or bool((products.diagonal() > total.diagonal()[:-1] / 2).all()):
            break
    return centre, products


def _rows_together(x: Tensor | Blocks) -> int:
    """Enough for a QR decomposition to be worth its call, few enough for a processor's cache."""
    return max(8 * x.shape[1], min(4096, 256 * x.shape[1]))


def _bordered(x: Tensor | Blocks, centre: Tensor, row_weights: Tensor | None, size: int) -> Iterator[Tensor]:
    """Rows about a centre with a column of ones behind them, each times the root of its weight, ``size`` together.

    In float64, and in one piece of memory: the next rows replace these.
    """
    memory = torch.empty(min(size, len(x)), len(centre) + 1, dtype=torch.float64, device=centre.device)
    roots = None if row_weights is None else row_weights.sqrt().split(size)
    for number, part in enumerate(x.split(size)):
        rows = memory[: len(part)]
        rows[:, -1] = 1
        torch.sub(part.detach(), centre, out=rows[:, :-1])
        yield rows if roots is None else rows.mul_(roots[number][:, None])


def _products(rows: Tensor) -> Tensor:
    """Return rowsᵀ rows; by NumPy where it can be, which computes one half and mirrors it."""
    if rows.device.type != "cpu" or type(rows) is not Tensor or is_transformed(rows):
        return rows.mT @ rows
    values = rows.numpy()
    return torch.from_numpy(values.T @ values)


def _cholesky(products: Tensor) -> Tensor | None:
    """Return the triangular factor, or None unless variances in all directions keep their digits.

    With columns scaled to length 1, the relative error of a sum of squares in any direction is d ε or so over the least
    eigenvalue of the products, whatever the columns' units (Higham 2002, section 10.1); and the inverse of that is less
    than the sum of squares of the inverse factor.
    """
    finfo, squares = torch.finfo(products.dtype), products.diagonal()
    if not bool(((squares > finfo.tiny / finfo.eps) & (squares < finfo.max)).all()):
        return None
    lengths = squares.sqrt()
    factor, info = torch.linalg.cholesky_ex(products / lengths / lengths[:, None], upper=True)
    if info:
        return None
    inverse = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).to(factor), upper=True)
    return factor * lengths if float(inverse.square().sum()) * len(factor) * finfo.eps < ERROR else None


def _qr(x: Tensor | Blocks, centre: Tensor, row_weights: Tensor | None) -> Tensor:
    """Return the triangular factor of a QR decomposition of the rows about a centre, chunk by chunk."""
    factor = centre.new_zeros(0, len(centre))
    for rows in _bordered(x, centre, row_weights, _rows_together(x)):
        factor = torch.linalg.qr(torch.cat([factor, rows[:, :-1]]), mode="r").R
    return factor
