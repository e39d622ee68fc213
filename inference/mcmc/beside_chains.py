"""What draws come to beside those of short chains: figures of each quantity, the judgement, and both in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..advice import NEXT
from ..diagnostics import of_quantities
from ..info import CheckInfo
from ..judge import words_of_faults, words_of_means, words_of_sds
from ..verdict import GOOD_RATIO, GOOD_SHIFT, USABLE_RATIO, USABLE_SHIFT, Certain, Grade, grade, margin
from .moved import Moved

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["mean_shift_in_sd", "sd_ratio", "error_of_shift", "error_of_ratio"]
IMPROVED = "its moved draws, .improved"
UNSEEN = "Modes that no draw is near are not seen."


class Judged(NamedTuple):
    """Figures beside those of the chains, what they come to, and those which the judgement is by."""

    table: pd.DataFrame
    graded: Grade
    by: pd.DataFrame


def judge_moved(moved: Moved) -> Judged:
    """Return the figures of the draws beside those of the chains, and what they come to.

    Where that cannot be said, draws are bad nevertheless if chains have come farther from them than is usable.
    """
    found, before = moved.moments, torch.stack(list(moved.before.values()))  # (quantity, chain, draw)
    own = of_quantities(before.movedim(0, 2))
    mean, own_sd, broken = before.flatten(1).mean(1), before.flatten(1).std(1), ~before.isfinite().all(2).all(1)
    table = _figures(moved, mean, own_sd, found.mean, found.sd, found.error_of_mean, found.error_of_sd)
    table[broken.numpy()] = [math.inf, math.inf, 0.0, 0.0]
    graded, by = _graded(table, (own["mcse"] / found.sd).numpy(), (own["mcse_sd"] / own_sd).numpy())
    if graded.judgement == "cannot say":
        at, sd, error, error_of_sd = found.plain
        seen = _figures(moved, mean, own_sd, at, sd, torch.hypot(error, own["mcse"].nan_to_num()), error_of_sd)
        seen["mean_shift_in_sd"] *= (sd / torch.maximum(sd, own_sd)).numpy()
        if (by_seen := grade(*(seen[c] for c in COLUMNS))).judgement == "bad":
            return Judged(table, by_seen, seen)
    return Judged(table, graded, by)


def is_clear(moved: Moved) -> bool:
    """Return whether draws are not good, or so good that errors of the figures could not hide that they are not."""
    judged = judge_moved(moved)
    with_errors = Certain.of(*(judged.table[c] for c in COLUMNS), errors=-1)
    return judged.graded.judgement != "good" or bool((with_errors.worst(GOOD_SHIFT, GOOD_RATIO) <= 1).all())


def _figures(
    moved: Moved, mean: Tensor, own_sd: Tensor, at: Tensor, sd: Tensor, error: Tensor, error_of_sd: Tensor
) -> pd.DataFrame:
    """Return one row per quantity: means and sds of the draws beside others, and the errors of these."""
    import pandas as pd

    shift, ratio = (mean - at) / sd, own_sd / sd
    columns = [shift, ratio, torch.hypot(error / sd, shift * error_of_sd / sd), ratio * error_of_sd / sd]
    index = pd.Index(list(moved.before), name="quantity")
    return pd.DataFrame({name: c.numpy() for name, c in zip(COLUMNS, columns, strict=True)}, index=index)


def _graded(table: pd.DataFrame, mcse: np.ndarray, mcse_of_log_sd: np.ndarray) -> tuple[Grade, pd.DataFrame]:
    """Grade figures by the chains' errors, and by those of the draws, too, where these may be the whole difference.

    Thus draws of the posterior itself are not bad for being few. What is good exceeds a limit by one error at most,
    without a margin for many quantities, since errors are conservative; of sds, which chains that have not gone far
    enough let seem too close, by one of the draws and half one of the chains. Also returned are the figures with the
    errors that count.
    """
    shift, ratio, error, error_of_ratio = (table[c].to_numpy() for c in COLUMNS)
    both = np.hypot(error, mcse)
    error = np.where(np.abs(shift) <= margin(len(table)) * both, both, error)
    with np.errstate(all="ignore"):
        log_ratio, relative = np.log(ratio), error_of_ratio / ratio
        both = np.hypot(relative, mcse_of_log_sd)
        by_chance = np.abs(log_ratio) <= margin(len(table)) * both
        error_of_ratio = ratio * np.where(by_chance, both, relative)
    graded = grade(shift, ratio, error, error_of_ratio)
    if graded.judgement != "good":
        return graded, table
    allowed = np.hypot(table["error_of_ratio"] / 2, ratio * np.where(by_chance, mcse_of_log_sd, 0.0))
    by = table.assign(error_of_shift=error, error_of_ratio=allowed)
    is_close = Certain.of(*(by[c] for c in COLUMNS), errors=1).worst(GOOD_SHIFT, GOOD_RATIO) <= 1
    return (graded, by) if is_close.all() else (graded._replace(judgement="usable"), table)


def sentence(
    name: str,
    judged: Judged,
    moved: Moved,
    notes: str,
    next_call: str,
    more: str = "more draws",
    better: str = IMPROVED,
) -> str:
    """Return the judgement of draws in words, by the name of what they are of.

    ``notes`` are sentences, or empty; ``next_call`` is what to call where chains have not settled, ``more`` where draws
    are too few, and ``better`` where they are wrong.
    """
    graded = judged.graded
    figures = judged.by.rename(columns={"error_of_shift": "mcse_in_sd", "error_of_ratio": "sd_ratio_error"})
    if not_finite := [name for name, value in moved.before.items() if not value.isfinite().all()]:
        return f"{name} is bad: draws of {not_finite[0]} are not finite.{notes}"
    nested, at = _largest(moved)
    under_way = f"nested R̂ is {nested:.2f} at {at} after {moved.chains.trajectories} trajectories"
    settled = bool(moved.moments.settled.all())
    if graded.judgement == "cannot say":
        if settled:
            why = "it has too few draws to tell an error from chance"
            return f"{name} cannot be judged: {why}.{notes}{NEXT}{more}."
        why = f"these depend on where they began, or still move: {under_way}"
        return f"{name} cannot be judged by short chains: {why}.{notes}{NEXT}{next_call}."
    if graded.judgement == "bad":
        words = " and ".join(words_of_faults("the posterior", graded, figures).values())
        if settled:
            return f"{name} is bad: {words}.{notes}{NEXT}{better}."
        unsure = f"Chains from its draws have not settled ({under_way}), so that it may be worse"
        return f"{name} is bad: {words}. {unsure}.{notes}{NEXT}{next_call}."
    good = graded.judgement == "good"
    if good:  # it keeps to its limits by one error
        figures[["mcse_in_sd", "sd_ratio_error"]] /= margin(len(figures))
    means = words_of_means(figures, GOOD_SHIFT if good else USABLE_SHIFT, " of the posterior's")
    sds = words_of_sds(figures, GOOD_RATIO if good else USABLE_RATIO)
    words = f"{name} is {graded.judgement}: means {means}, sds {sds}, by short chains from its draws. {UNSEEN}{notes}"
    return words if good or not settled else f"{words}{NEXT}{better}."


def _largest(moved: Moved) -> tuple[float, str]:
    """Return the largest nested R̂ and its quantity."""
    nested = moved.moments.nested_r_hat.nan_to_num(math.inf)
    return float(nested.max()), list(moved.before)[int(nested.argmax())]


def info_of(moved: Moved, seed: int, seconds: float) -> CheckInfo:
    """Return the record of the moved draws, which says how far they can be trusted."""
    chains, length = moved.vectors.shape[:2]
    nested, at = _largest(moved)
    message = f"moved {chains} draws by {moved.chains.trajectories} trajectories and kept the last {length} of each"
    settled = bool(moved.moments.settled.all())
    away = [name for name, does in zip(moved.before, moved.moments.settled.tolist(), strict=True) if not does]
    message += f"; nested R̂ at most {nested:.3f}, at {at}"
    if away:
        message += f"; chains have not settled at {', '.join(away[:3])}{', …' if len(away) > 3 else ''}: run nuts"
    return CheckInfo(
        seed=seed,
        seconds=seconds,
        converged=settled,
        message=message,
        nested_r_hat=moved.moments.nested_r_hat,
        accept_rate=moved.chains.accept_rate,
        step_size=moved.chains.step,
    )
