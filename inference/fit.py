"""The cheapest posterior that is right: methods from fast to slow, until one is found good without a reference.

`fit` tries deterministic variational inference (`dadvi`); the draws that `check` has moved towards the posterior while
it judged those, if another check finds them good; NUTS started from the best so far; and NUTS with smaller steps and
more draws.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .check import check
from .checkpoints import Place, states_of
from .climb import Rung, check_limits, climb
from .coords import by_site
from .dadvi import dadvi
from .info import FitInfo
from .nuts import nuts
from .options import options_by_name
from .posterior import Posterior
from .quantities import Coords
from .traces.prepare import prepare
from .verdict import GOOD_SHIFT

CAREFUL: tuple[dict[str, Any], ...] = (  # options of NUTS, until its chains can be believed
    {},
    {"target_accept": 0.95, "num_draws": 2000},
    {"target_accept": 0.99, "num_draws": 4000},
)


@options_by_name
def fit(
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    tolerance: float = GOOD_SHIFT,
    max_seconds: float | None = None,
    identify: Callable[..., dict[str, Tensor]] | str | Mapping[str, int] | None = None,
    coords: Coords | None = None,
    params: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[FitInfo]:
    """Return the cheapest posterior that is found good without a reference.

    Parameters
    ----------
    model : callable
        Any Pyro model; discrete latent sites are summed out. Bind its options with ``functools.partial``.
    *data
        Its arguments.
    model_kwargs : mapping, optional
        Further arguments of the model by name: data or options.
    tolerance : float
        How far any mean may be off, in standard deviations of the posterior, and any standard deviation, relatively.
    max_seconds : float, optional
        After this time no other method is begun, and the best so far is returned.
    identify : callable, "exchangeable" or dict of int, optional
        As in `compare`: which quantities to judge by, where labels, signs or rotations are arbitrary.
    coords : dict of sequences of str, optional
        As in `compare`: names of entries by site, or by plate. Default: those that come with data frames and series,
        as `guidebook.inference.coords` finds them.
    params : dict of Tensor, optional
        Values of the model's ``pyro.param`` statements, as in `nuts`.
    seed : int
    device : str or torch.device, optional
        Where to fit, such as "cuda"; default: where the data are.
    progress : bool
        Whether to show progress bars.
    checkpoint, every
        As in `svi`, for each method that is tried. What was judged is judged again, and ``max_seconds`` count anew.

    Returns
    -------
    Posterior
        ``info``, a `FitInfo`, says what was tried, what each cost and why it was left.

    Raises
    ------
    ValueError
        If the model cannot be run on the data, an option is out of range, or every method fails.

    Warns
    -----
    UserWarning
        If nothing was found good.
    """
    check_limits(tolerance, max_seconds)
    prepared = prepare("fit", model, data, device=device, params=params)
    names = by_site("fit", coords or {}, prepared.trace)
    shared: dict[str, Any] = {"seed": seed, "device": device, "progress": progress}
    given: dict[str, Any] = shared | {"params": params}
    states = states_of(checkpoint)
    rungs = [Rung("dadvi", lambda _: dadvi(model, *data, **given, **states.inside("dadvi")))]
    for careful in CAREFUL:
        name = ", ".join(["nuts", *(f"{option}={value}" for option, value in careful.items())])
        options = careful | given | states.inside(name)
        rungs.append(Rung(name, lambda best, options=options: nuts(model, *data, init=best, **options)))
    judge = partial(check, identify=identify, coords=names, **shared)
    limits: dict[str, Any] = {"identify": identify, "coords": names, "tolerance": tolerance, "seed": seed}
    found = climb(rungs, model, data, judge, max_seconds=max_seconds, **limits)
    if not found.info.converged:
        warnings.warn(f"fit: {found.info.message}", stacklevel=3)
    return found
