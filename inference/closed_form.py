"""Maximum likelihood where it takes no iteration, in the form in which other methods give their results."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from .info import ClosedFormInfo
from .posterior import Posterior, point_draws


def closed_form(solve: Callable[..., dict[str, Tensor]], *data: Tensor, seed: int = 0) -> Posterior[ClosedFormInfo]:
    """Solve for a model's maximum-likelihood parameters.

    Parameters
    ----------
    solve : callable
        ``(*data) -> params`` by the model's site names, and ``log_likelihood`` if it likes, as
        `guidebook.models.ppca.maximum_likelihood` with its options bound.
    *data : Tensor
        What it takes; floating point is computed in float64.
    seed : int
        For the record: nothing is random.

    Returns
    -------
    Posterior
        One draw, the estimates; also in ``params``. ``info`` is a `ClosedFormInfo`.
    """
    data = tuple(value.double() if value.is_floating_point() else value for value in data)
    begin = time.perf_counter()
    with torch.no_grad():
        params = {name: value.cpu() for name, value in solve(*data).items()}
    seconds = time.perf_counter() - begin
    reached = params.pop("log_likelihood", None)
    info = ClosedFormInfo(log_likelihood=None if reached is None else float(reached), seconds=seconds, seed=seed)
    return Posterior(draws=point_draws(params), params=params, info=info)
