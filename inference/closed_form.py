"""Maximum likelihood, or the exact posterior, in closed form, returned as other methods return their results."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .checkpoints import Place
from .info import ClosedFormInfo
from .options import as_double, at_least_one, options_by_name
from .posterior import Posterior, point_draws
from .traces.isolate import isolated

if TYPE_CHECKING:
    from ..models import ExactPosterior


@options_by_name
def closed_form(
    solve: "Callable[..., dict[str, Tensor] | ExactPosterior]",
    *data: Tensor,
    num_draws: int = 1000,
    seed: int = 0,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[ClosedFormInfo]:
    """Solve for a model's maximum-likelihood parameters, or for its posterior.

    Parameters
    ----------
    solve : callable
        ``(*data) -> params`` by site name, with ``log_likelihood`` among them if known, such as
        `guidebook.models.ppca.maximum_likelihood` with its options bound; or ``(*data) -> ExactPosterior``, such as
        `guidebook.models.linear.closed_form`.
    *data : Tensor
        Data that ``solve`` takes; floating point is computed in float64.
    num_draws : int
        Number of independent draws from an exact posterior.
    seed : int
    checkpoint, every
        As in `svi`, but that the solution is kept when it is there.

    Returns
    -------
    Posterior
        Of estimates one draw, also in ``params``; of a posterior its draws, ``params`` those of the distribution.
        ``info`` is a `ClosedFormInfo`.

    Raises
    ------
    ValueError
        If an option is out of range.
    FloatingPointError
        If the solution is not finite.
    """
    at_least_one("closed_form", num_draws=num_draws)
    begin = time.perf_counter()
    with isolated(seed), torch.no_grad():
        found = solve(*as_double(data))
        if isinstance(found, dict):
            params, draws, log_evidence = found, point_draws(found), None
        else:
            params, log_evidence = found.params, float(found.log_evidence)
            draws = {name: value[None] for name, value in found.draw(num_draws).items()}
    for name, value in (params | draws).items():
        if not torch.isfinite(torch.as_tensor(value)).all():
            raise FloatingPointError(f"closed_form: {name!r} of the solution is not finite")
    seconds = time.perf_counter() - begin
    params, draws = ({name: value.cpu() for name, value in values.items()} for values in (params, draws))
    log_likelihood = float(params.pop("log_likelihood")) if "log_likelihood" in params else None
    draws.pop("log_likelihood", None)
    info = ClosedFormInfo(
        log_likelihood=log_likelihood,
        log_evidence=log_evidence,
        is_point=log_evidence is None,
        seconds=seconds,
        seed=seed,
    )
    return Posterior(draws=draws, params=params, info=info)
