"""Maximum likelihood in closed form, returned as other methods return their results."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from .info import ClosedFormInfo
from .options import as_double
from .posterior import Posterior, point_draws


def closed_form(solve: Callable[..., dict[str, Tensor]], *data: Tensor, seed: int = 0) -> Posterior[ClosedFormInfo]:
    """Solve for a model's maximum-likelihood parameters.

    Parameters
    ----------
    solve : callable
        ``(*data) -> params`` by site name, with ``log_likelihood`` among them if known; such as
        `guidebook.models.ppca.maximum_likelihood` with its options bound.
    *data : Tensor
        Data that ``solve`` takes; floating point is computed in float64.
    seed : int
        Only recorded: nothing is random.

    Returns
    -------
    Posterior
        One draw, the estimates; also in ``params``. ``info`` is a `ClosedFormInfo`.
    """
    begin = time.perf_counter()
    with torch.no_grad():
        params = {name: value.cpu() for name, value in solve(*as_double(data)).items()}
    seconds = time.perf_counter() - begin
    log_likelihood = float(params.pop("log_likelihood")) if "log_likelihood" in params else None
    info = ClosedFormInfo(log_likelihood=log_likelihood, seconds=seconds, seed=seed)
    return Posterior(draws=point_draws(params), params=params, info=info)
