"""From figures to a sentence: is an approximation good enough, and may the reference judge it?

Thresholds. Means: .25 of the reference's sd, the pass mark of Stan's stat_comp_benchmarks; .10 for "good".
Standard deviations: within 10 % for "good", 25 % for "usable". k̂: .7 (Vehtari et al. 2024). Reference: R̂ up to 1.01,
an effective sample size of at least 100 per chain for four chains (Vehtari et al. 2021), no divergences.
A figure exceeds a threshold only if it does so by more than two Monte Carlo standard errors, or more if there are many
quantities: by so much that chance makes any mean or standard deviation exceed it in one of twenty comparisons. The
largest R̂ and Monte Carlo error and the least effective sample size of many quantities are likewise judged as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from .diagnostics import MAX_CHANCE, MAX_K_HAT, MAX_R_HAT, MIN_ESS, least_ess
from .posterior import Posterior

if TYPE_CHECKING:
    import pandas as pd

GOOD_SHIFT, USABLE_SHIFT = 0.10, 0.25
GOOD_RATIO, USABLE_RATIO = 1.10, 1.25
MAX_MCSE = 0.10  # Monte Carlo error of a mean, in sds, above which nothing can be said
MIN_MARGIN = 2.0  # Monte Carlo standard errors


class Verdict(NamedTuple):
    """What `compare` says of one posterior.

    Attributes
    ----------
    judgement : str
        "good", "usable", "bad", "point" (no spread to judge), "too few draws" or "not judged"; of the reference,
        "reference" or "refused".
    sentence : str
        The same in words, with the figures behind it.
    """

    judgement: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def is_sampler(posterior: Posterior) -> bool:
    """Return whether the draws come from Markov chains."""
    return posterior.info.r_hat is not None


def margin(count: int) -> float:
    """Return by how many standard errors figures of ``count`` quantities, a mean and an sd each, may be off."""
    return max(MIN_MARGIN, float(-ndtri(MAX_CHANCE / (2 * count))))


def max_mcse(count: int) -> float:
    """Return the largest Monte Carlo error, in sds, that ``count`` means may have: as `least_ess` to its estimate."""
    return MAX_MCSE * (MIN_ESS / least_ess(count)) ** 0.5


def is_apart(quantities: pd.DataFrame) -> bool:
    """Return whether draws tell of different places: chains disagree, means are off, or nothing can be said."""
    off_centre = _certain_shift(quantities) > USABLE_SHIFT
    too_few = quantities["mcse_in_sd"] > max_mcse(len(quantities))
    return bool((quantities["disagrees"] | off_centre | too_few).any())


def _certain_shift(quantities: pd.DataFrame) -> Any:
    return quantities["mean_shift_in_sd"].abs() - margin(len(quantities)) * quantities["mcse_in_sd"]


def distance(quantities: pd.DataFrame) -> pd.Series:
    """Return each quantity's mean shift or log sd ratio, whichever is the larger multiple of its limit of "usable"."""
    shift = quantities["mean_shift_in_sd"].abs() / USABLE_SHIFT
    with np.errstate(divide="ignore"):
        ratio = quantities["sd_ratio"].apply(np.log).abs() / np.log(USABLE_RATIO)
    return np.fmax(shift, ratio)  # pyright: ignore[reportReturnType] (a Series of Series; a point has no ratio)


def sampling_problem(posterior: Posterior, quantities: pd.DataFrame) -> str | None:
    """Return why draws may not represent the distribution they came from, or None; for samplers and guides alike."""
    problems = []
    if is_sampler(posterior):
        if np.any(quantities["disagrees"]):
            worst, r_hat = _largest(quantities["r_hat"][quantities["disagrees"]])
            problems.append(f"its chains disagree (R̂ {r_hat:.4f} at {worst}, at most {MAX_R_HAT} allowed)")
        least, ess = quantities["ess"].idxmin(), np.min(quantities["ess"])
        if ess < (needed := least_ess(len(quantities))):
            problems.append(f"it has too few effective draws ({ess:,.0f} at {least}, {needed:,.0f} needed)")
        divergences = posterior.info.divergences
        if divergences is not None and (diverged := int(divergences.sum())):
            transitions = "one transition" if diverged == 1 else f"{diverged} transitions"
            problems.append(f"{transitions} diverged, so parts of the posterior were not reached")
    elif not posterior.info.converged:
        problems.append(f"it {posterior.info.message}")
    return "; ".join(problems) or None


def reference_problem(posterior: Posterior, quantities: pd.DataFrame) -> str | None:
    """Return why a posterior is not fit to judge others, or None."""
    if np.all(quantities["sd"].isna()):
        return "it is a point, without a spread to measure others by"
    k = posterior.info.k_hat
    if k is None and (posterior.info.elbo is not None or posterior.info.guide):
        return "it is an approximation at an unknown distance from the posterior"
    if k is not None and k > MAX_K_HAT:
        return f"it is an approximation whose importance weights are heavy-tailed (k̂ = {k:.2f} > {MAX_K_HAT})"
    return sampling_problem(posterior, quantities)


def judge(name: str, reference: str, posterior: Posterior, quantities: pd.DataFrame) -> Verdict:
    """Say how good ``posterior``, by its name, is beside a reference that is fit to judge.

    ``quantities`` are those of `Comparison`: one row per identified quantity.
    """
    shifts = quantities["mean_shift_in_sd"].abs()
    worst_shift, shift = _largest(shifts)
    signed = quantities.loc[worst_shift, "mean_shift_in_sd"]
    if np.all(quantities["sd"].isna()):
        where = "within a quarter sd of" if shift <= USABLE_SHIFT else f"{shift:.2g} sd off"
        words = f"{name} is a point and says nothing of uncertainty; at worst its value is {where} the mean of "
        return Verdict("point", f"{words}{reference} ({worst_shift}: {signed:+.2f} sd).")
    least_known, monte_carlo_error = _largest(quantities["mcse_in_sd"])
    if monte_carlo_error > max_mcse(len(quantities)):
        words = f"{name} cannot be judged: Monte Carlo error is {monte_carlo_error:.2f} sd at {least_known}; take about"
        times = (monte_carlo_error / MAX_MCSE) ** 2 * 2
        return Verdict("too few draws", f"{words} {times:.0f} times as many draws.")

    certain_shift = _certain_shift(quantities)
    ratio, error = quantities["sd_ratio"], margin(len(quantities)) * quantities["sd_ratio_error"]
    upper, lower = ratio + error, ratio - error
    too_narrow, too_wide = np.sum(upper < 1 / USABLE_RATIO), np.sum(lower > USABLE_RATIO)
    off_centre = np.sum(certain_shift > USABLE_SHIFT)
    problem = sampling_problem(posterior, quantities)
    k = posterior.info.k_hat

    faults = []
    if too_narrow:
        least = f"at {ratio.idxmin()} its sd is {ratio.min():.2f} of {reference}'s"
        faults.append(f"too narrow ({_of(too_narrow, quantities)}; {least})")
    if too_wide:
        most = f"at {ratio.idxmax()} its sd is {ratio.max():.2f} times {reference}'s"
        faults.append(f"too wide ({_of(too_wide, quantities)}; {most})")
    if off_centre:
        faults.append(f"off centre ({_of(off_centre, quantities)}; at {worst_shift} its mean is {signed:+.2f} sd away)")
    too_large, about_k_hat = k is not None and k > MAX_K_HAT, ""
    if k is not None:
        about_k_hat = f" k̂ = {k:.2f} {'does not see it' if faults else 'agrees'}."
    if too_large:
        about_k_hat = f" k̂ = {k:.2f} > {MAX_K_HAT} {'agrees' if faults else 'warns that its joint shape differs'}."
    if faults:
        means = "" if off_centre else f" Its means are within {shift:.2f} sd."
        also = f" Moreover {problem}." if problem else ""
        advice = ""
        if too_narrow or too_wide:
            advice = f" Its intervals are too {'narrow' if too_narrow else 'wide'}: take a richer guide, or NUTS."
        return Verdict("bad", f"{name} is bad: {' and '.join(faults)}.{means}{about_k_hat}{also}{advice}")
    if problem:
        return Verdict("bad", f"{name} is bad: {problem}.")

    figures = f"means within {shift:.2f} sd of {reference}'s, sds {ratio.min():.2f} to {ratio.max():.2f} of its"
    close = np.all(certain_shift <= GOOD_SHIFT) and np.all(upper >= 1 / GOOD_RATIO) and np.all(lower <= GOOD_RATIO)
    judgement = "good" if close and not too_large else "usable"
    return Verdict(judgement, f"{name} is {judgement}: {figures}.{about_k_hat}")


def _largest(values: Any) -> tuple[str, float]:
    return str(values.idxmax()), float(values.max())


def _of(count: int, quantities: pd.DataFrame) -> str:
    return f"{count} of {len(quantities)} quantities"
