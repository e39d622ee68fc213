"""Coordinate ascent variational inference: the factors of q updated in turn, each to its optimum given the others.

Bishop (2006), Pattern Recognition and Machine Learning, section 10.1; Blei, Kucukelbir and McAuliffe (2017),
Variational inference: a review for statisticians, JASA 112.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .checkpoints import Place, states_of
from .em import ascend
from .info import CaviInfo
from .options import at_least_one, options_by_name
from .posterior import Posterior
from .traces.isolate import isolated

if TYPE_CHECKING:
    from ..models import Steps


@options_by_name
def cavi(
    steps: "Steps",
    *data: Tensor,
    num_steps: int = 2000,
    tol: float = 1e-6,
    num_restarts: int = 10,
    num_draws: int = 1000,
    seed: int = 0,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[CaviInfo]:
    """Raise a bound on the log evidence by coordinate ascent, from several starts.

    Parameters
    ----------
    steps : Steps
        As a model's ``cavi_steps(**options)`` returns them; see `guidebook.models.Steps`.
    *data, num_steps, tol, num_restarts, seed, checkpoint, every
        As in `em`, the bound being the objective and a sweep the iteration.
    num_draws : int
        Number of draws from the best q.

    Returns
    -------
    Posterior
        ``params`` are those of q; ``info`` is a `CaviInfo`.

    Raises
    ------
    ValueError
        If an option is out of range, or the steps are not those of coordinate ascent.
    ArithmeticError
        If the bound falls after any coordinate, so that the steps are wrong.
    """
    at_least_one("cavi", num_draws=num_draws)
    if steps.draw is None:
        raise ValueError("cavi: these steps cannot draw from q: take a model's cavi_steps, not its em_steps")
    limits = num_steps, tol, num_restarts
    best, run = ascend("cavi", steps, data, *limits, seed, states_of(checkpoint), both_halves=True)
    with isolated(seed), torch.no_grad():
        draws = steps.draw(best.params, num_draws)
    return Posterior(
        draws={name: value.cpu()[None] for name, value in draws.items()},
        params={name: value.cpu() for name, value in best.params.items()},
        info=CaviInfo(elbo=best.objective[-1], **run),
    )
