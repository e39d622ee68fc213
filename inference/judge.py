"""The sentence of a verdict: what is wrong with the fit, then how far off it is, then what to call next."""

from __future__ import annotations

from typing import Any

import numpy as np

from .advice import NEXT, draws_call, for_reference, more_draws, next_call
from .diagnostics import MAX_K_HAT, MAX_R_HAT, MIN_ESS
from .posterior import Posterior
from .verdict import (
    GOOD_RATIO,
    GOOD_SHIFT,
    MAX_MCSE,
    TOO_FEW,
    USABLE_RATIO,
    USABLE_SHIFT,
    Grade,
    Verdict,
    grade_of,
    is_sampler,
    margin,
    max_mcse,
    problems,
    reference_problems,
    relative_error,
)

Figures = Any  # a DataFrame; with pandas' own types every figure would be a union
ENOUGH_DRAWS = 1000  # where there are too few to tell how many are needed


def judge_reference(name: str, posterior: Posterior, quantities: Figures) -> Verdict:
    """Say whether a reference, by its name, is fit to judge others by."""
    if found := reference_problems(posterior, quantities):
        advice = for_reference(next(iter(found)), posterior, quantities)
        return Verdict("refused", f"{name} is not fit to judge: {'; '.join(found.values())}.{NEXT}{advice}.")
    words = f"{name} is the reference"
    if is_sampler(posterior):
        largest, least = np.max(quantities["r_hat"]), np.min(quantities["ess"])
        by_chance = f" (of {len(quantities):,} quantities, no more than chance)"
        words += f": R̂ at most {largest:.3f}{by_chance if largest > MAX_R_HAT else ''}"
        words += f", at least {least:,.0f} effective draws{by_chance if least < MIN_ESS else ''}"
        words += ", no divergences" if posterior.info.divergences is not None else ""
    return Verdict("reference", f"{words}.")


def judge(name: str, reference: str, posterior: Posterior, quantities: Figures) -> Verdict:
    """Say how good ``posterior``, by its name, is beside a reference that is fit to judge.

    ``quantities`` are those of `Comparison`: one row per identified quantity. Effective draws that are too few make no
    posterior bad: their error is then not known well enough to call it good, either.
    """
    own = problems(posterior, quantities)
    too_few = own.pop(TOO_FEW, "")
    if np.all(quantities["sd"].isna()) and "not finite" not in own:
        return _point(name, reference, posterior, quantities, own)
    graded = grade_of(quantities)
    if own or graded.judgement == "bad":
        return _bad(name, reference, posterior, quantities, own)
    if too_few or graded.judgement == "cannot say":
        return _too_few(name, reference, posterior, quantities, too_few)
    good = graded.judgement == "good"
    means = words_of_means(quantities, GOOD_SHIFT if good else USABLE_SHIFT, f" of {reference}'s")
    sds = words_of_sds(quantities, GOOD_RATIO if good else USABLE_RATIO)
    evidence = _evidence(posterior.info.k_hat, False)
    advice = "" if good else f"{NEXT}{next_call('only usable', posterior, quantities)}."
    return Verdict(graded.judgement, f"{name} is {graded.judgement}: means {means}, sds {sds}.{evidence}{advice}")


def _bad(name: str, reference: str, posterior: Posterior, quantities: Figures, own: dict[str, str]) -> Verdict:
    """Say what is wrong with the fit itself, if anything, before what is wrong with its figures."""
    graded = grade_of(quantities)
    faults = words_of_faults(reference, graded, quantities)
    words = " and ".join(faults.values())
    if own:
        words = "; ".join(own.values()) + (f". Beside {reference} it is {words}" if words else "")
    elif not graded.off_centre.any():
        words += f". Its means are {words_of_means(quantities, USABLE_SHIFT)}"
    fault = next(iter(own | faults))
    k_hat = posterior.info.k_hat
    evidence = _evidence(k_hat, True) if faults or k_hat is None else f" k̂ = {k_hat:.2f}."
    return Verdict("bad", f"{name} is bad: {words}.{evidence}{NEXT}{next_call(fault, posterior, quantities)}.")


def _point(name: str, reference: str, posterior: Posterior, quantities: Figures, own: dict[str, str]) -> Verdict:
    worst = str(quantities["mean_shift_in_sd"].abs().idxmax())
    shift = float(quantities["mean_shift_in_sd"][worst])
    where = "within a quarter sd of" if abs(shift) <= USABLE_SHIFT else f"{abs(shift):.2g} sd off"
    trouble = f": {'; '.join(own.values())}. It" if own else " and"
    words = f"{name} is a point{trouble} says nothing of uncertainty; at worst its value is {where} the mean of "
    advice = f"{NEXT}{next_call(next(iter(own)), posterior, quantities)}." if own else ""
    return Verdict("point", f"{words}{reference} ({worst}: {shift:+.2f} sd).{advice}")


def _too_few(name: str, reference: str, posterior: Posterior, quantities: Figures, too_few: str) -> Verdict:
    """Say which figure is not known well enough, and whose draws are too few."""
    ratio = quantities["sd_ratio"]
    sd = quantities["sd"]
    errors = np.stack([quantities["mcse_in_sd"], relative_error(quantities["sd_ratio_error"], ratio)])
    own = np.stack([quantities["mcse"] / sd * ratio, quantities["mcse_sd"] / sd])
    if np.isnan(errors).any():
        advice = draws_call(posterior, ENOUGH_DRAWS)
        words = f"{name} cannot be judged: so few draws tell no Monte Carlo error; take more"
        return Verdict("too few draws", f"{words}: {advice}.")
    of_sd, row = np.unravel_index(errors.argmax(), errors.shape)
    error, at = errors[of_sd, row], quantities.index[row]
    if too_few and error <= max_mcse(len(quantities)):
        words, times = too_few, 2 * MIN_ESS / float(quantities["ess"].min())
    else:
        of_what = f" of its sd is {100 * error:.0f} %" if of_sd else f" is {error:.2f} sd"
        words, times = f"Monte Carlo error{of_what} at {at}", (2 * error / MAX_MCSE) ** 2
    whose = f" of {reference}" if 2 * own[of_sd, row] ** 2 < error**2 else f": {more_draws(posterior, times)}"
    return Verdict(
        "too few draws", f"{name} cannot be judged: {words}; take about {times:.0f} times as many draws{whose}."
    )


def words_of_faults(reference: str, graded: Grade, quantities: Figures) -> dict[str, str]:
    """Return in words where a posterior is beyond what is usable, by fault."""
    ratio = quantities["sd_ratio"]
    shift = quantities["mean_shift_in_sd"]
    found = {}
    if graded.too_narrow.any():
        least = ratio[graded.too_narrow].idxmin()
        worst = f"at {least} its sd is {ratio[least]:.2f} of {reference}'s"
        found["too narrow"] = f"too narrow ({_of(graded.too_narrow)}; {worst})"
    if graded.too_wide.any():
        most = ratio[graded.too_wide].idxmax()
        worst = f"at {most} its sd is {_plain(ratio[most])} times {reference}'s"
        found["too wide"] = f"too wide ({_of(graded.too_wide)}; {worst})"
    if graded.off_centre.any():
        farthest = shift[graded.off_centre].abs().idxmax()
        worst = f"at {farthest} its mean is {'-' if shift[farthest] < 0 else '+'}{_plain(abs(shift[farthest]))} sd away"
        found["off centre"] = f"off centre ({_of(graded.off_centre)}; {worst})"
    return found


def _evidence(k_hat: float | None, is_wrong: bool) -> str:
    """Say whether k̂ agrees with the figures, which alone decide."""
    if k_hat is None:
        return ""
    if k_hat <= MAX_K_HAT:
        return f" k̂ = {k_hat:.2f} {'does not see it' if is_wrong else 'agrees'}."
    unseen = "warns of its tails or joint shape, which means and sds do not show"
    return f" k̂ = {k_hat:.2f} > {MAX_K_HAT} {'agrees' if is_wrong else unseen}."


def words_of_means(quantities: Figures, limit: float, of: str = "") -> str:
    """Return within what distance the means are; beyond the limit, how much of it is put down to chance."""
    shift = quantities["mean_shift_in_sd"].abs()
    worst, words = shift.idxmax(), f"within {_plain(shift.max())} sd{of}"
    if round(shift[worst], 2) <= limit:
        return words
    error = margin(len(shift)) * quantities["mcse_in_sd"][worst]
    return f"{words} ({limit:.2f} is allowed, and {_plain(error)} for Monte Carlo error)"


def words_of_sds(quantities: Figures, limit: float) -> str:
    """Return between what multiples of the reference's the sds are; beyond the limits, what is put down to chance."""
    ratio = quantities["sd_ratio"]
    words = f"{ratio.min():.2f} to {ratio.max():.2f} of its"
    if round(ratio.min(), 2) >= round(1 / limit, 2) and round(ratio.max(), 2) <= limit:
        return words
    worst = ratio.apply(np.log).abs().idxmax()
    error = margin(len(ratio)) * quantities["sd_ratio_error"][worst] / ratio[worst]
    return f"{words} ({1 / limit:.2f} to {limit:.2f} is allowed, and {100 * error:.0f} % for Monte Carlo error)"


def _plain(value: float) -> str:
    """Format to two decimals, large numbers as whole ones."""
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _of(where: np.ndarray) -> str:
    return f"{where.sum()} of {len(where)} quantities"
