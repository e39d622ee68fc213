"""Methods tried in their order until one is good: each judged, its cost noted, and why it was left."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .advice import NEXT
from .check import Check
from .info import CheckInfo, FitInfo
from .mcmc.beside_chains import COLUMNS
from .mcmc.own_chains import by_own_chains
from .options import positive
from .posterior import Posterior
from .quantities import Coords
from .verdict import GOOD_SHIFT, USABLE_SHIFT, Certain, distance, grade, is_sampler

ORDER = ("good", "usable", "sampled", "cannot say", "bad")  # of judgements, the best first
MOVED = ", moved"  # after the name of a method: draws that the check of it has moved
FAILURES = (ValueError, ArithmeticError, RuntimeError)  # of a method on a model that another may be right on


class Rung(NamedTuple):
    """A method to try: its name, and a function of the best posterior so far, or None, that returns another."""

    name: str
    run: Callable[[Posterior | None], Posterior]


class _Tried(NamedTuple):
    posterior: Posterior
    row: dict[str, Any]  # of `FitInfo.rungs`
    advice: str  # what to call next
    merely_few: bool  # whether longer chains of a sampler would do
    multiple: float  # the worst shift or ratio as a multiple of what is allowed; infinite if unknown


def climb(
    rungs: Sequence[Rung],
    model: Callable,
    data: tuple,
    judge: Callable[..., Check],
    *,
    identify: Any = None,
    coords: Coords | None = None,
    tolerance: float = GOOD_SHIFT,
    max_seconds: float | None = None,
    seed: int = 0,
    otherwise: str | None = None,
) -> Posterior[FitInfo]:
    """Try methods in their order until one is good; options are those of `fit`.

    ``judge(posterior, model, *data)`` judges those that are no samplers, as `check` does. A sampler is judged by its
    own chains, as the reference of `compare` is. ``otherwise`` is what to do next where nothing is good and the best is
    not merely a chain too short; default: what the judgement of the best says.

    Raises
    ------
    ValueError
        If a limit is out of range, or every method fails, with the first one's reason.
    """
    check_limits(tolerance, max_seconds)
    begin, tried, rows, failures = time.perf_counter(), [], [], []

    def judge_one(posterior: Posterior) -> Check:
        return judge(posterior, model, *data)

    for rung in rungs:
        started = time.perf_counter()
        if max_seconds is not None and tried and started - begin >= max_seconds:
            rows.append(_row(rung.name, 0.0, "not tried", f"{max_seconds:g} s were over"))
            continue
        best = _best(tried).posterior if tried else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say is in the records
                found = _judged(rung.name, rung.run(best), started, judge_one, identify, coords, tolerance)
        except FAILURES as error:
            failures.append(error)
            rows.append(_row(rung.name, time.perf_counter() - started, "failed", str(error)))
            continue
        rows += [one.row for one in found]  # that of the rung, then its moved draws
        tried += found
        if any(one.row["judgement"] == "good" for one in found):
            break
    if not tried:
        raise ValueError(f"fit: no method succeeded: {failures[0]}")
    return _posterior(_best(tried), rows, time.perf_counter() - begin, seed, otherwise)


def _judged(
    name: str,
    posterior: Posterior,
    started: float,
    judge: Callable[[Posterior], Check],
    identify: Any,
    coords: Coords | None,
    tolerance: float,
) -> list[_Tried]:
    """Return a posterior, begun at a time, with its judgement; and its moved draws, if these are good."""
    if is_sampler(posterior):
        alone = by_own_chains(name, posterior, identify=identify, coords=coords)
        return [_tried(posterior, name, started, alone.judgement, alone.sentence, alone.are_merely_few)]
    found = judge(posterior)
    tried = [_by_check(name, posterior, started, found, tolerance)]
    if tried[0].row["judgement"] != "good" and found.improved is not None and found.improved.info.converged:
        started = time.perf_counter()
        again = judge(found.improved)  # chains that crept must not be taken for chains that stand
        moved = _by_check(name + MOVED, found.improved, started, again, tolerance)
        tried += [moved] if moved.row["judgement"] == "good" else []
    return tried


def _by_check(name: str, posterior: Posterior, started: float, found: Check, tolerance: float) -> _Tried:
    """Return what a check says of a posterior, by the tolerance where that is not the check's own."""
    judgement = found.judgement
    sentence = found.sentence.replace(f"{found.method} ", f"{name}{',' if ',' in name else ''} ", 1)
    taken = 0 if isinstance(posterior.info, CheckInfo) else getattr(posterior.info, "gradients", None)
    gradients = None if taken is None else taken + found.gradients
    if judgement == "cannot say":
        return _tried(posterior, name, started, judgement, sentence, gradients=gradients)
    figures = [found.table[column].to_numpy() for column in COLUMNS]
    multiples = Certain.of(*figures, errors=1).worst(tolerance, 1 + tolerance)
    multiple = max(0.0, float(np.nan_to_num(multiples, nan=math.inf).max()))
    is_good = multiple <= 1 and not grade(*figures).unknown.any()
    if tolerance != GOOD_SHIFT and is_good != (judgement == "good"):
        judgement = "good" if is_good else "usable"
        sentence = f"{name} is {judgement} at a tolerance of {tolerance:g}; by that of compare, {sentence}"
    error = USABLE_SHIFT * float(distance(found.table).max())
    return _tried(posterior, name, started, judgement, sentence, multiple=multiple, gradients=gradients, error=error)


def _tried(
    posterior: Posterior,
    name: str,
    started: float,
    judgement: str,
    sentence: str,
    merely_few: bool = False,
    multiple: float = math.inf,
    gradients: int | None = None,
    error: float = math.nan,
) -> _Tried:
    words, _, advice = sentence.partition(NEXT)
    seconds = time.perf_counter() - started
    return _Tried(posterior, _row(name, seconds, judgement, words, gradients, error), advice, merely_few, multiple)


def _row(
    name: str, seconds: float, judgement: str, sentence: str, gradients: int | None = None, error: float = math.nan
) -> dict[str, Any]:
    return {
        "method": name,
        "seconds": seconds,
        "gradients": gradients,
        "judgement": judgement,
        "error": error if math.isfinite(error) else None,
        "sentence": sentence,
    }


def check_limits(tolerance: float, max_seconds: float | None) -> None:
    """Raise ValueError for a limit of `fit` that is not positive."""
    positive("fit", tolerance=tolerance)
    if max_seconds is not None:
        positive("fit", max_seconds=max_seconds)


def _best(tried: list[_Tried]) -> _Tried:
    return min(reversed(tried), key=_rank)  # of equals, the one that took more care


def _rank(tried: _Tried) -> tuple[int, float]:
    """Return what is least for the best: chains that cannot be believed are better than what is known to be bad."""
    refused = is_sampler(tried.posterior) and tried.row["judgement"] == "cannot say"
    return ORDER.index("sampled" if refused else tried.row["judgement"]), tried.multiple


def _posterior(
    best: _Tried, rows: list[dict[str, Any]], seconds: float, seed: int, otherwise: str | None
) -> Posterior[FitInfo]:
    """Return the posterior chosen, with a record of all that was tried."""
    own, row = best.posterior.info, best.row
    good = row["judgement"] == "good"
    info = FitInfo(
        seed=seed,
        seconds=seconds,
        engine=own.engine,
        converged=good,
        message=_message(row, rows, best.advice if otherwise is None or best.merely_few else otherwise),
        is_point=own.is_point,
        guide=own.guide,
        elbo=own.elbo,
        k_hat=own.k_hat,
        r_hat=own.r_hat,
        ess=own.ess,
        divergences=own.divergences,
        per_row=own.per_row,
        learned=own.learned,
        chosen=row["method"],
        judgement=row["judgement"],
        rungs=rows,
        log_weights=best.posterior.log_weights,
    )
    return replace(best.posterior, info=info)


def _message(best: dict[str, Any], rows: list[dict[str, Any]], otherwise: str) -> str:
    """Return what was found and what was tried, and, if nothing is good, what to call next."""
    others = [row for row in rows if row is not best]
    left = [f"{row['method']} ({row['judgement']}, {row['seconds']:.1f} s)" for row in others if row["seconds"]]
    untried = [row for row in others if row["judgement"] == "not tried"]
    good, sentence = best["judgement"] == "good", best["sentence"].rstrip(".")
    if not good:
        nearest = f"{best['method']} comes nearest; it" if left else best["method"]
        sentence = f"nothing was found good. {nearest}{sentence.removeprefix(best['method'])}"
        otherwise = "a larger max_seconds" if untried else otherwise
    parts = [sentence]
    if left:
        parts.append(f"Tried besides: {', '.join(left)}")
    if untried:
        parts.append(f"Not tried, since {untried[0]['sentence']}: {', '.join(row['method'] for row in untried)}")
    return ". ".join(parts) + "." + (f"{NEXT}{otherwise.rstrip('.')}." if otherwise and not good else "")
