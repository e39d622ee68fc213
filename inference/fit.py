"""The cheapest posterior that is right: methods from fast to slow, until one is found good without a reference.

`fit` tries deterministic variational inference (`dadvi`); the draws that `check` has moved towards the posterior while
it judged those, if another check finds them good; NUTS started from the best so far; and NUTS with smaller steps and
more draws. `climb` does so with any methods.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .check import Check, check
from .compare import compare
from .dadvi import dadvi
from .info import FitInfo
from .nuts import nuts
from .options import options_by_name, positive
from .posterior import Posterior
from .traces.prepare import prepare
from .verdict import GOOD_SHIFT, is_sampler, margin

CAREFUL: tuple[dict[str, Any], ...] = (  # options of NUTS, until its chains can be believed
    {},
    {"target_accept": 0.95, "num_draws": 2000},
    {"target_accept": 0.99, "num_draws": 4000},
)
ORDER = ("good", "usable", "sampled", "cannot say", "bad")  # of judgements, the best first
FAILURES = (ValueError, ArithmeticError, RuntimeError)  # of a method on a model that another may be right on


class Rung(NamedTuple):
    """A method to try: its name, and a function of the best posterior so far, or None, that returns another."""

    name: str
    run: Callable[[Posterior | None], Posterior]


class _Tried(NamedTuple):
    name: str
    posterior: Posterior
    judgement: str
    sentence: str
    distance: float  # the worst shift or ratio as a multiple of what is allowed; infinite if unknown


@options_by_name
def fit(
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    tolerance: float = GOOD_SHIFT,
    max_seconds: float | None = None,
    identify: Callable[..., dict[str, Tensor]] | str | Mapping[str, int] | None = None,
    params: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
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
    params : dict of Tensor, optional
        Values of the model's ``pyro.param`` statements, as in `nuts`.
    seed : int
    device : str or torch.device, optional
        Where to fit, such as "cuda"; default: where the data are.
    progress : bool
        Whether to show progress bars.

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
    _check_limits(tolerance, max_seconds)
    prepare("fit", model, data, device=device, params=params)
    shared: dict[str, Any] = {"seed": seed, "device": device, "progress": progress}
    given: dict[str, Any] = shared | {"params": params}
    rungs = [Rung("dadvi", lambda _: dadvi(model, *data, **given))]
    for careful in CAREFUL:
        name = ", ".join(["nuts", *(f"{option}={value}" for option, value in careful.items())])
        rungs.append(Rung(name, lambda best, careful=careful: nuts(model, *data, init=best, **careful, **given)))
    judge = partial(check, identify=identify, **shared)
    found = climb(rungs, model, data, judge, identify=identify, tolerance=tolerance, max_seconds=max_seconds, seed=seed)
    if not found.info.converged:
        warnings.warn(f"fit: {found.info.message}", stacklevel=3)
    return found


def climb(
    rungs: Sequence[Rung],
    model: Callable,
    data: tuple,
    judge: Callable[..., Check],
    *,
    identify: Any = None,
    tolerance: float = GOOD_SHIFT,
    max_seconds: float | None = None,
    seed: int = 0,
) -> Posterior[FitInfo]:
    """Try methods in their order until one is good; options are those of `fit`.

    ``judge(posterior, model, *data)`` judges those that are no samplers, as `check` does. A sampler is judged by its
    own chains, as the reference of `compare` is.

    Raises
    ------
    ValueError
        If a limit is out of range, or every method fails, with the first one's reason.
    """
    _check_limits(tolerance, max_seconds)
    begin, tried, rows, failures = time.perf_counter(), [], [], []
    for rung in rungs:
        started = time.perf_counter()
        if max_seconds is not None and tried and started - begin >= max_seconds:
            rows.append(_row(rung.name, 0.0, "not tried", f"{max_seconds:g} s were over"))
            continue
        best = _best(tried).posterior if tried else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say is in the records
                found = _judged(rung.name, rung.run(best), model, data, judge, identify, tolerance)
        except FAILURES as error:
            failures.append(error)
            rows.append(_row(rung.name, time.perf_counter() - started, "failed", str(error)))
            continue
        seconds = time.perf_counter() - started
        for one in found:  # that of the rung, then its moved draws
            rows.append(_row(one.name, seconds, one.judgement, one.sentence))
            seconds = 0.0
        tried += found
        if any(one.judgement == "good" for one in found):
            break
    if not tried:
        raise ValueError(f"fit: no method succeeded: {failures[0]}")
    return _posterior(_best(tried), rows, time.perf_counter() - begin, seed)


def _judged(
    name: str, posterior: Posterior, model: Callable, data: tuple, judge: Callable, identify: Any, tolerance: float
) -> list[_Tried]:
    """Return a posterior with its judgement, and its draws moved towards the true one, if these are good."""
    if is_sampler(posterior):
        beside_itself = compare(posterior, posterior, identify=identify, names=[name, "itself"])
        words = beside_itself.verdicts[name].sentence
        if beside_itself.refused:
            return [_Tried(name, posterior, "cannot say", words.replace("fit to judge", "to be believed", 1), 0.0)]
        return [_Tried(name, posterior, "good", words.replace("the reference", "good", 1), 0.0)]
    found = judge(posterior, model, *data)
    distance = _distance(found, tolerance)
    judgement, sentence = found.judgement, found.sentence
    if judgement != "cannot say" and (judgement == "good") != (distance <= 1):
        judgement = "good" if distance <= 1 else "usable"
        sentence = f"{name} is {judgement} at a tolerance of {tolerance:g}; by that of compare, {sentence}"
    tried = [_Tried(name, posterior, judgement, sentence, distance)]
    if judgement != "good" and found.improved is not None and found.improved.info.converged:
        again = judge(found.improved, model, *data)  # chains that crept must not be taken for chains that stand
        if again.judgement == "good" and _distance(again, tolerance) <= 1:
            moved = f"{name}, moved"
            sentence = again.sentence.replace(again.method, moved, 1)
            tried.append(_Tried(moved, found.improved, "good", sentence, _distance(again, tolerance)))
    return tried


def _check_limits(tolerance: float, max_seconds: float | None) -> None:
    positive("fit", tolerance=tolerance)
    if max_seconds is not None:
        positive("fit", max_seconds=max_seconds)


def _distance(found: Check, tolerance: float) -> float:
    """Return the worst certain shift or ratio, as a multiple of the tolerance."""
    if found.judgement == "cannot say":
        return math.inf
    table = found.table
    errors = margin(len(table))
    shift = (table["mean_shift_in_sd"].abs() - errors * table["error_of_shift"]).max() / tolerance
    ratio, error = table["sd_ratio"], errors * table["error_of_ratio"]
    narrow = np.log(np.maximum(ratio + error, 1e-12)).min() / -math.log1p(tolerance)
    wide = np.log(np.maximum(ratio - error, 1e-12)).max() / math.log1p(tolerance)
    return float(max(shift, narrow, wide, 0.0))


def _best(tried: list[_Tried]) -> _Tried:
    return min(reversed(tried), key=_rank)  # of equals, the one that took more care


def _rank(tried: _Tried) -> tuple[int, float]:
    """Return what is least for the best: chains that cannot be believed are better than what is known to be bad."""
    refused = is_sampler(tried.posterior) and tried.judgement == "cannot say"
    return ORDER.index("sampled" if refused else tried.judgement), tried.distance


def _row(name: str, seconds: float, judgement: str, sentence: str) -> dict[str, Any]:
    return {"method": name, "seconds": seconds, "judgement": judgement, "sentence": sentence}


def _posterior(best: _Tried, rows: list[dict[str, Any]], seconds: float, seed: int) -> Posterior[FitInfo]:
    """Return the posterior chosen, with a record of all that was tried."""
    own = best.posterior.info
    good = best.judgement == "good"
    left = [
        f"{row['method']} {row['judgement']} ({row['seconds']:.1f} s)" for row in rows if row["method"] != best.name
    ]
    words = best.sentence.rstrip(".") if good else f"nothing was found good; the best is {best.sentence.rstrip('.')}"
    info = FitInfo(
        seed=seed,
        seconds=seconds,
        engine=own.engine,
        converged=good,
        message="; ".join([words, *(["tried besides: " + ", ".join(left)] if left else [])]),
        is_point=own.is_point,
        guide=own.guide,
        elbo=own.elbo,
        k_hat=own.k_hat,
        r_hat=own.r_hat,
        ess=own.ess,
        divergences=own.divergences,
        chosen=best.name,
        judgement=best.judgement,
        rungs=rows,
    )
    return replace(best.posterior, info=info)
